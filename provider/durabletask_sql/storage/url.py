"""Database URLs as users write them."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from durabletask_sql.errors import SettingsError

SQLITE, POSTGRESQL = "sqlite", "postgresql"
_SCHEMES = "sqlite:///file.db (a relative path), sqlite:////folder/file.db or postgresql://user:password@host/database"
_NETWORK = frozenset({
    "nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "9p", "ceph", "glusterfs", "lustre", "beegfs",
    "gpfs", "ocfs2", "gfs2", "davfs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.rclone",
    "fuse.s3fs", "fuse.davfs"})
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """Where the database is. `location` is a file's path, or a libpq URL; `shown` has no password."""

    dialect: str
    location: str
    shown: str

    @property
    def alembic(self) -> str:
        """Return the URL as SQLAlchemy reads it."""
        if self.dialect == SQLITE:
            return f"sqlite:///{self.location}"
        return "postgresql+psycopg://" + self.location.split("://", 1)[1]


def parse_url(url: str) -> DatabaseUrl:
    """Return a checked URL. Raises SettingsError naming what is wrong and what is allowed."""
    scheme, _, rest = url.partition("://")
    match scheme:
        case "sqlite" if rest.startswith("/") and rest not in ("/", "/:memory:"):
            path = Path(rest[1:])
            _check_file(path, url)
            return DatabaseUrl(SQLITE, str(path), url)
        case "sqlite":
            message = f"the database URL {url!r} names no file: write {_SCHEMES}"
            raise SettingsError(message)
        case "postgresql" | "postgres" if rest:
            _check_port(url)
            return DatabaseUrl(POSTGRESQL, f"postgresql://{rest}", hide_password(url))
        case _:
            message = f"the database URL {url!r} has an unknown scheme: write {_SCHEMES}"
            raise SettingsError(message)


def hide_password(url: str) -> str:
    """Return a URL that can be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    netloc = parts.netloc.replace(f":{parts.password}@", ":***@")
    return urlunsplit(parts._replace(netloc=netloc))


def _check_port(url: str) -> None:
    try:
        _ = urlsplit(url).port
    except ValueError as error:
        message = f"the database URL {hide_password(url)!r} has no valid port: write a number from 0 to 65535, or none"
        raise SettingsError(message) from error


def _check_file(path: Path, url: str) -> None:
    folder = path.absolute().parent
    if not folder.is_dir():
        message = f"the folder {str(folder)!r} of the database {url!r} does not exist: create it first"
        raise SettingsError(message)
    if path.is_dir():
        message = f"the database {url!r} is a folder: name a file in it"
        raise SettingsError(message)
    mounts = Path("/proc/mounts")
    kind = file_system_of(path.resolve().parent, mounts.read_text() if mounts.exists() else "")
    if kind in _NETWORK:
        message = (f"the database {url!r} lies on a network file system ({kind}), where SQLite's locks do not hold: use "
                   "a local disk, or PostgreSQL")
        raise SettingsError(message)


def file_system_of(folder: Path, mounts: str) -> str:
    """Return the type of the file system that holds a folder, going by /proc/mounts; "" where that does not tell."""
    best, kind = Path(), ""
    for line in mounts.splitlines():
        _, point, found, *_ = line.split()
        mounted = Path(_ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), point))
        if folder.is_relative_to(mounted) and len(mounted.parts) >= len(best.parts):  # a later mount hides an earlier one
            best, kind = mounted, found
    return kind

"""The database's own settings, as far as the promises rest on them."""

from collections.abc import Iterable, Sequence

from durabletask_sql.doctor.findings import Finding, Level
from durabletask_sql.ports.inspection import Setting

_LARGE_WAL = 64 * 1024 * 1024


def check_settings(settings: Sequence[Setting]) -> list[Finding]:
    """Check what the database says of itself."""
    return [finding for setting in settings for finding in _check(setting)]


def _check(setting: Setting) -> Iterable[Finding]:
    name, value = setting
    match name, value:
        case ("fsync" | "full_page_writes", "off"):
            yield Finding("settings", name, "it is off: a crash of the machine loses data or damages the database",
                          f"set {name} = on in postgresql.conf and reload")
        case ("autovacuum", "off"):
            yield Finding("settings", name, "it is off: the queues' tables will grow without end",
                          "set autovacuum = on in postgresql.conf and reload")
        case ("synchronous_commit", "off" | "local"):
            yield Finding("settings", name, f"its default is {value}; this program's sessions set it on by themselves",
                          "nothing, unless other programs write here", Level.NOTE)
        case ("quick_check", text) if text != "ok":
            yield Finding("settings", name, f"the file is damaged: {text}", "stop the servers, keep a copy, and restore a "
                          "backup, or rescue what can be with the sqlite3 shell's .recover")
        case ("journal_mode", mode) if mode != "wal":
            yield Finding("settings", name, f"it is {mode}, not wal", "let a server open the file: it sets it")
        case ("wal_bytes", size) if int(size) > _LARGE_WAL:
            yield Finding("settings", name, f"the write-ahead log has {int(size) // 1024**2} MiB: somebody reads for long, "
                          "or no server has copied it back", "end long read transactions on the file", Level.NOTE)
        case _:
            pass

"""Where a SQLite file may lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from durabletask_sql.errors import SettingsError
from durabletask_sql.storage import url

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
proc /proc proc rw 0 0
box:/export /srv/shared nfs4 rw 0 0
/dev/sdb1 /srv/shared/fast xfs rw 0 0
//box/files /srv/two\\040words cifs rw 0 0
me@box: /home/me/box fuse.sshfs rw 0 0
"""


@pytest.mark.parametrize(("folder", "kind"), [
    ("/var/lib/hub", "ext4"), ("/srv/shared", "nfs4"), ("/srv/shared/hub", "nfs4"), ("/srv/shared-too", "ext4"),
    ("/srv/shared/fast/hub", "xfs"), ("/srv/two words/hub", "cifs"), ("/home/me/box", "fuse.sshfs")])
def test_the_innermost_mount_says_what_a_folder_lies_on(folder, kind):
    assert url.file_system_of(Path(folder), MOUNTS) == kind


def test_of_two_mounts_on_one_folder_the_later_counts():
    assert url.file_system_of(Path("/data"), "a /data ext4 rw 0 0\nb /data nfs rw 0 0\n") == "nfs"


def test_without_a_list_of_mounts_nothing_is_known():
    assert url.file_system_of(Path("/data"), "") == ""


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs"])
def test_a_network_file_system_is_refused_with_what_to_do(kind, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setattr(url, "file_system_of", lambda folder, _: kind if folder == tmp_path.resolve() else "ext4")
    with pytest.raises(SettingsError, match=rf"lies on a network file system \({kind}\).*use a local disk, or PostgreSQL"):
        url.parse_url(f"sqlite:///{tmp_path}/link/hub.db")

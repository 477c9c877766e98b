"""Every kind of write meets a disk that is really full: a small tmpfs in a mount namespace of its own."""

import errno
import json
import subprocess
import sys

import pytest

from tests.harness import REPOSITORY
from workflow_scripts.core.running import storage

UNSHARE = ["unshare", "--map-root-user", "--mount", "bash", "-euc"]
SCRIPT = """
mount -t tmpfs -o size=128k none "$1"
"$2" -m tests.core.every_write "$1" full
mount -o remount,size=64m "$1"
"$2" -m tests.core.every_write "$1" room
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, dict[str, list]]:
    """Return what each kind of write said on the full disk and after room was made."""
    folder = tmp_path_factory.mktemp("small")
    if subprocess.run([*UNSHARE, 'mount -t tmpfs none "$0"', folder], capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs in a namespace of its own")

    command = [*UNSHARE, SCRIPT, "bash", str(folder), sys.executable]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    full, room = map(json.loads, ended.stdout.splitlines())
    return {"full": full, "room": room}


def test_a_full_disk_is_named_with_its_free_space_and_damages_nothing(reports):
    for kind, (status, message, left) in reports["full"].items():
        assert status == 65, f"{kind}: {message}"
        assert " GB are free at " in message, f"{kind}: {message}"
        assert left == ["ballast", "earlier"], kind


def test_every_write_succeeds_after_room_was_made(reports):
    assert set(reports["room"]) == set(reports["full"])
    for kind, (status, message, _) in reports["room"].items():
        assert status == 0, f"{kind}: {message}"


def test_errors_of_the_file_system_are_explained(tmp_path):
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    quota = OSError(errno.EDQUOT, "Disk quota exceeded", str(folder / "not" / "there"))

    assert storage.explain(IsADirectoryError(errno.EISDIR, "x", str(folder))) == f"{folder}: Is a directory"
    assert "the quota of this user is used up" in (storage.explain(quota) or "")
    assert storage.explain(ConnectionResetError(errno.ECONNRESET, "reset")) is None
    assert storage.explain(RuntimeError("something else")) is None

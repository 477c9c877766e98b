"""What an error of the file system means: a full disk, a quota, a folder that may not be written."""

import errno
import os
import shutil
from pathlib import Path

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota of this user is used up"}
# How libraries that write files by themselves say that a write failed (safetensors, torch.save, PyArrow).
LIBRARIES = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed", "inline_container.cc")


def explain(error: BaseException) -> str | None:
    """Return what a person has to mend if the file system refused a read or a write; else None."""
    if isinstance(error, OSError) and error.errno is not None:
        path = error.filename or os.getcwd()
        if error.errno in FULL:
            return f"{FULL[error.errno]}: {_room(path)}. Make room and run again; nothing finished is lost"
        return f"{path}: {os.strerror(error.errno)}" if error.filename else None

    if any(text in str(error) for text in LIBRARIES):
        return f"a file could not be written, probably for want of space: {_room(os.getcwd())}. Make room and run again"
    return None


def _room(path: str | Path) -> str:
    """Return the free space on the file system of a path."""
    folder = Path(os.fsdecode(path)).absolute()
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return f"{usage.free / 1e9:.2f} GB of {usage.total / 1e9:.2f} GB are free at {folder}"

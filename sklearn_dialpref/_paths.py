"""Names of files that a saved folder or a pickled encoder may have, and writing files for good."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

# what is written and read: no pickle, no code
SUFFIXES = {".json", ".safetensors", ".txt", ".model", ".md", ".jinja", ".onnx"}


def check_name(name: Any, folder: Path) -> None:
    """Raise a ValueError unless it names a file inside the folder, of a kind that is read."""
    parts = PurePosixPath(str(name)).parts
    inside = (
        isinstance(name, str)
        and not PurePosixPath(name).is_absolute()
        and not PureWindowsPath(name).drive
        and "\\" not in name
        and ".." not in parts
        and not any(
            (folder / Path(*parts[:depth])).is_symlink() for depth in range(1, len(parts) + 1)
        )
    )
    if not inside:
        raise ValueError(f"{folder} names the file {name!r}, which does not lie in it")
    if PurePosixPath(name).suffix not in SUFFIXES:
        raise ValueError(f"{folder} names the file {name!r}, of a kind that is never read")


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk."""
    if path.is_dir() and os.name != "posix":
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

"""Put a new folder in the place of an old one, whatever is killed, read or saved meanwhile.

Files are written into a work folder beside the target, ``.<name>-<8 characters>``, which then
takes the target's place. Its owner holds a lock on a marker file in it, which the system releases
when the process dies, so that a later save knows what it may remove.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sklearn_dialpref._paths import sync

if sys.platform != "win32":
    import fcntl

MARKER = "owner.lock"
NEW, OLD = "new", "old"
LOCK_SECONDS = 60.0  # nobody holds a lock for longer than a load takes
POLL_SECONDS = 0.005
RACES = 100  # with other savers, where there are no locks
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux
RENAME_SWAP = 2  # of macOS


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` to write into; it is removed after the block.

    If the process is killed, the next save to ``target`` removes it, see :func:`replace`.
    """
    with locked(target.parent) as held:
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        # without a marker nobody else will touch it: where locks fail, nobody could tell
        marker = _locked_marker(work) if held else None
    try:
        yield work
    finally:
        _remove(work)
        if marker is not None:
            os.close(marker)


def replace(target: Path, new: Path, work: Path) -> None:
    """Put ``new`` in the place of ``target``, or leave that as it is.

    Then remove what killed saves to ``target`` have left. The caller holds the lock of the
    target's parent, if there are locks.

    Parameters
    ----------
    target, new : Path
    work : Path
        Where the old folder goes.
    """
    for race in range(RACES):
        if exchange(new, target):
            break
        try:
            _rename_twice(target, new, work / f"{OLD}-{race}")
            break
        except OSError as error:  # another saver was quicker, where there are no locks
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or race == RACES - 1:
                raise
    sync(target.parent)


def exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False where the system or the file system cannot."""
    if os.name != "posix":
        return False
    libc = ctypes.CDLL(None)
    names = os.fsencode(first), os.fsencode(second)
    if hasattr(libc, "renameat2"):
        found = libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    elif hasattr(libc, "renamex_np"):
        found = libc.renamex_np(*names, RENAME_SWAP)
    else:
        return False
    return bool(found == 0)


def _rename_twice(target: Path, new: Path, old: Path) -> None:
    """The way without an exchange: between the two renames nothing is at ``target``."""
    with suppress(FileNotFoundError):
        target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        with suppress(OSError):
            old.rename(target)
        raise


def resting_place(target: Path) -> Path:
    """The folder itself, or where a save killed between two renames has left it."""
    if os.path.lexists(target):
        return target
    # those without a marker are never removed, so that they may be from long ago
    places = [old for work, old in _old_folders(target) if (work / MARKER).exists()]
    return max(places, key=lambda old: old.parent.stat().st_mtime_ns, default=target)


def abandoned(target: Path) -> list[Path]:
    """Whole folders that were at ``target`` once and that no save will remove."""
    return [old for work, old in _old_folders(target) if not (work / MARKER).exists()]


def _old_folders(target: Path) -> Iterator[tuple[Path, Path]]:
    for work in _work_folders(target):
        for old in work.glob(f"{OLD}-*"):
            yield work, old


def remove_leftovers(target: Path) -> None:
    """Remove the work folders of dead savers to ``target``; the caller holds the parent's lock."""
    for work in _work_folders(target):
        with suppress(OSError):
            work.rmdir()  # of a saver killed before it could write its marker
        marker = _locked_marker(work, create=False)
        if marker is not None:
            _remove(work)
            os.close(marker)


def _work_folders(target: Path) -> list[Path]:
    name = re.compile(re.escape(f".{target.name}-") + "[a-z0-9_]{8}")
    try:
        return [folder for folder in target.parent.iterdir() if name.fullmatch(folder.name)]
    except OSError:
        return []


def _remove(work: Path) -> None:
    """Remove a work folder, its marker last: if this is killed, the next save goes on."""
    with suppress(OSError):
        for content in work.iterdir():
            if content.name != MARKER:
                shutil.rmtree(content, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)


# -- locks ------------------------------------------------------------------------------------


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[bool]:
    """Lock a folder for the block, without a file of its own.

    Yields whether it is locked: not where the system or the file system has no such locks, or
    where somebody keeps it for a minute. Exchanges are whole without it; it only keeps savers
    from replacing a folder again and again under the same reader.
    """
    opened = _opened(folder, os.O_RDONLY)
    try:
        yield opened is not None and _acquired(opened, shared=shared, seconds=LOCK_SECONDS)
    finally:
        if opened is not None:
            _release(opened)


def _locked_marker(work: Path, create: bool = True) -> int | None:
    """The marker's descriptor, whose lock is held until it is closed; None if it is not."""
    opened = _opened(work / MARKER, os.O_RDWR | (os.O_CREAT if create else 0))
    if opened is None or _acquired(opened, shared=False, seconds=0):
        return opened
    os.close(opened)
    return None


def _opened(path: Path, flags: int) -> int | None:
    if sys.platform == "win32":
        return None
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None


def _acquired(opened: int, *, shared: bool, seconds: float) -> bool:
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(opened, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        except OSError:  # some network file systems lock no folders
            return False


def _release(opened: int) -> None:
    with suppress(OSError):
        fcntl.flock(opened, fcntl.LOCK_UN)  # also for children that were forked meanwhile
    os.close(opened)

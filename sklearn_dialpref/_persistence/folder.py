"""Folders of files that appear whole or not at all, and that are read only if nothing changed."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, TypeVar

from sklearn_dialpref._paths import check_name, sync

from .replacing import (
    NEW,
    abandoned,
    locked,
    remove_leftovers,
    replace,
    resting_place,
    work_folder,
)

FORMAT = 1
MANIFEST = "dialpref.json"
MAKER = "sklearn-dialpref"
MOST_FILES = 1000
MOST_JSON_BYTES = 2**24
MOST_BYTES = {".safetensors": 2**36}  # of a file, before it is read
MOST_OTHER_BYTES = 2**31  # an ONNX graph cannot have more
ATTEMPTS = 20  # to read a folder that is being replaced
UNLOCKED_ATTEMPTS = 2
PAUSE_SECONDS = 0.01

Read = TypeVar("Read")


class DamagedFile(ValueError):
    """A file of a saved folder that cannot be read; the message names it."""


# -- writing ----------------------------------------------------------------------------------


@contextmanager
def new_folder(path: str | os.PathLike[str], kind: str) -> Iterator[Path]:
    """An empty folder to write into, which takes its place at ``path`` when the block is done.

    A folder of the same kind at ``path`` is replaced, with all that is in it, in one step where
    the file system can exchange two folders; anything else is not. If ``path`` is a link, what it
    points to is replaced. After an error everything is as it was.

    Parameters
    ----------
    path : str or Path
    kind : str
        What the folder holds, such as "classifier".

    Yields
    ------
    Path

    Raises
    ------
    FileExistsError
        If something else is at ``path``.
    """
    target = Path(os.path.realpath(Path(path).expanduser()))
    _check_replaceable(target, kind)
    target.parent.mkdir(parents=True, exist_ok=True)
    with work_folder(target) as work:
        new = work / NEW
        new.mkdir()
        yield new
        _write_manifest(new, kind)
        with locked(target.parent) as held:
            _check_replaceable(target, kind)
            replace(target, new, work)
            if held:
                remove_leftovers(target)


def _check_replaceable(target: Path, kind: str) -> None:
    for pause in (0, PAUSE_SECONDS, PAUSE_SECONDS):  # without locks it may be in another's hands
        time.sleep(pause)
        if not os.path.lexists(target) or _is_of_kind(target, kind):
            return
    raise FileExistsError(
        f"{target} exists and is not a saved {kind}: choose another path, or remove it"
    )


def _is_of_kind(folder: Path, kind: str) -> bool:
    try:
        manifest = _manifest(folder)
    except (OSError, ValueError):
        return False
    return manifest is not None and manifest.get("kind") == kind


def _write_manifest(folder: Path, kind: str) -> None:
    names = sorted(_files(folder))
    for name in names:
        check_name(name, folder)
    manifest = {
        "made_by": MAKER,
        "format": FORMAT,
        "kind": kind,
        "files": {name: _sha256(folder / name) for name in names},
        "bytes": {name: (folder / name).stat().st_size for name in names},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    # a power cut must not leave the name of a folder whose files are not on the disk
    for path in [*folder.rglob("*"), folder]:
        sync(path)


# -- reading ----------------------------------------------------------------------------------


def read_folder(path: str | os.PathLike[str], kind: str, read: Callable[[Path], Read]) -> Read:
    """What ``read`` makes of the folder, all of it from one version of the folder.

    If the folder was replaced meanwhile, it is read again; the third time while a lock keeps
    savers waiting.

    Parameters
    ----------
    path : str or Path
    kind : str
        What the folder holds, such as "classifier".
    read : callable
        Takes the path of the checked folder.

    Returns
    -------
    object

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        As of :func:`checked_folder`, or if the folder is replaced all the time.
    """
    target = Path(path).expanduser()
    for attempt in range(ATTEMPTS):
        last = attempt == ATTEMPTS - 1
        with _savers_wait(target) if attempt >= UNLOCKED_ATTEMPTS else nullcontext():
            folder = resting_place(target)
            with _version_of(folder) as version:
                try:
                    result = read(checked_folder(folder, kind))
                except Exception:
                    missing = version is None and attempt < UNLOCKED_ATTEMPTS
                    if last or (not missing and _is_current(folder, version)):
                        raise
                else:
                    if _is_current(folder, version):
                        return result
        time.sleep(PAUSE_SECONDS * attempt)
    raise ValueError(f"{target} was replaced {ATTEMPTS} times while it was read; load it again")


def _savers_wait(target: Path) -> AbstractContextManager[object]:
    return locked(Path(os.path.realpath(target)).parent, shared=True)


@contextmanager
def _version_of(folder: Path) -> Iterator[os.stat_result | None]:
    """The identity of the manifest, held open so that no later file can have the same."""
    file, opened = folder / MANIFEST, None
    with suppress(OSError):  # of a folder that is put away in between
        if is_regular(file):
            opened = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        yield None if opened is None else os.fstat(opened)
    finally:
        if opened is not None:
            os.close(opened)


def _is_current(folder: Path, version: os.stat_result | None) -> bool:
    file = folder / MANIFEST
    if version is None:
        return not is_regular(file)
    try:
        return os.path.samestat(file.lstat(), version)
    except OSError:
        return False


def checked_folder(path: str | os.PathLike[str], kind: str) -> Path:
    """The folder, after a look at all of it.

    Only regular files are opened: no link, FIFO, socket or device.

    Parameters
    ----------
    path : str or Path
    kind : str

    Returns
    -------
    Path

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it was not saved by this package, is of another kind or of a later version, has a file
        that it was not saved with, lacks one or has one that changed, or names files elsewhere.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        places = "".join(f"; an interrupted save left one in {old}" for old in abandoned(folder))
        raise FileNotFoundError(f"there is no folder {folder} to load a saved {kind} from{places}")
    try:
        manifest = _manifest_of(folder, kind)
        _check_names(folder, manifest["files"])
        _check_sizes(folder, manifest)
        _check_sums(folder, manifest["files"])
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error}") from error
    return folder


def _manifest_of(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest, once it is of this kind and of a known format."""
    manifest = _manifest(folder)
    if manifest is None:
        raise ValueError(
            f"{folder} was not saved by this package: it has no {MANIFEST} that names it as maker"
        )
    version, saved_kind = manifest.get("format"), manifest.get("kind")
    if type(version) is not int or version < 1:
        raise ValueError(f"{folder} is damaged: {MANIFEST} has the format {version!r}")
    if version > FORMAT:
        raise ValueError(
            f"{folder} was saved in format {version} by a later version of this package, which "
            f"here reads up to {FORMAT} in {MANIFEST}: update sklearn-dialpref, or save it anew"
        )
    if saved_kind != kind:
        raise ValueError(
            f"{folder} holds a saved {saved_kind}, but a {kind} is to be loaded (by {MANIFEST})"
        )
    files = manifest.get("files")
    if not (isinstance(files, dict) and isinstance(manifest.get("bytes", {}), dict)):
        raise ValueError(f"{folder} is damaged: {MANIFEST} does not list its files")
    if len(files) > MOST_FILES:
        raise ValueError(
            f"{folder} is damaged: {MANIFEST} lists {len(files)} files, more than {MOST_FILES}"
        )
    return manifest


def _check_names(folder: Path, files: dict[str, str]) -> None:
    """Raise a ValueError unless just these files are there."""
    for name in files:
        try:
            check_name(name, folder)
        except (OSError, ValueError) as error:  # an OSError of a name that is too long
            raise ValueError(f"{MANIFEST} is damaged: {error}") from error
    present = set(islice(_files(folder), MOST_FILES + 2)) - {MANIFEST}
    if unlisted := sorted(present - set(files))[:5]:
        raise ValueError(
            f"{folder} has files that it was not saved with: {unlisted}; remove them "
            f"({MANIFEST} does not list them)"
        )
    if missing := sorted(set(files) - present)[:5]:
        raise ValueError(
            f"{folder} is damaged: {missing} are missing, which {MANIFEST} lists; save it anew"
        )


def _check_sizes(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise a ValueError unless all are regular files of their sizes: to read takes longer."""
    for name in manifest["files"]:
        file = folder / name
        if not is_regular(file):
            raise ValueError(f"{folder} is damaged: {name} is not a regular file; save it anew")
        size = file.stat().st_size
        # earlier versions did not write sizes
        if size != (listed := manifest.get("bytes", {}).get(name, size)):
            raise ValueError(
                f"{folder} is damaged: {name} is not what was saved, by its size in {MANIFEST} "
                f"({short_repr(listed)}, but it has {size} bytes); save it anew"
            )
        if size > (most := MOST_BYTES.get(file.suffix, MOST_OTHER_BYTES)):
            raise ValueError(
                f"{folder} is damaged: {name} has {size} bytes, more than the {most} that are read"
            )


def _check_sums(folder: Path, files: dict[str, str]) -> None:
    """Raise a ValueError unless the files are what was saved."""
    for name, digest in files.items():
        if _sha256(folder / name) != digest:
            raise ValueError(
                f"{folder} is damaged: {name} is not what was saved, by its sha256 in {MANIFEST}; "
                "save it anew"
            )


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest; None if it is not one of ours."""
    file = folder / MANIFEST
    if not is_regular(file):
        return None
    manifest = read_json(file)
    ours = isinstance(manifest, dict) and manifest.get("made_by") == MAKER
    return manifest if ours else None


def read_json(file: Path) -> Any:
    """The content of a JSON file of a saved folder."""
    if (size := file.stat().st_size) > MOST_JSON_BYTES:
        raise DamagedFile(
            f"{file.parent} is damaged: {file.name} has {size} bytes, more than any that is saved"
        )
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFile(
            f"{file.parent} is damaged: {file.name} is not JSON ({error})"
        ) from error


@contextmanager
def naming(file: Path, format_name: str) -> Iterator[None]:
    """Turn whatever a parser raises in the block into a ValueError that names the file."""
    try:
        yield
    except BaseException as error:
        # a panic of a Rust library is a BaseException whose class cannot be imported
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        raise DamagedFile(f"{file} is not {format_name} ({error})") from error


def is_regular(file: Path) -> bool:
    """Whether it is a file that can be opened safely: no link, FIFO, socket or device."""
    try:
        return stat.S_ISREG(file.lstat().st_mode)
    except (OSError, ValueError):
        return False


def _files(folder: Path) -> Iterator[str]:
    """Everything that is not a folder, as names with slashes."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix()


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

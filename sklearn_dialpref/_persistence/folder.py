"""Folders of files that appear whole or not at all, and that are read only if nothing changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sklearn_dialpref._paths import check_name

FORMAT = 1
MANIFEST = "dialpref.json"
MAKER = "sklearn-dialpref"


@contextmanager
def new_folder(path: str | os.PathLike[str], kind: str) -> Iterator[Path]:
    """An empty folder to write into, which takes its place at ``path`` when the block is done.

    A folder of the same kind that is there already is replaced, with all that is in it; other
    things are not. After an error all is as it was.

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
    target = Path(path).expanduser().absolute()
    if target.exists() and not _is_of_kind(target, kind):
        raise FileExistsError(
            f"{target} exists and is not a saved {kind}: choose another path, or remove it"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        made = work / "new"
        made.mkdir()
        yield made
        for name in _files(made):
            check_name(name, made)
        manifest = {
            "made_by": MAKER,
            "format": FORMAT,
            "kind": kind,
            "files": {name: _sha256(made / name) for name in sorted(_files(made))},
        }
        (made / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for name in _files(made):
            with open(made / name, "rb") as file:
                os.fsync(file.fileno())
        _replace(target, made, work / "old")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _replace(target: Path, made: Path, old: Path) -> None:
    """Put ``made`` in the place of ``target``, or leave that where it is."""
    had = target.exists()
    if had:
        target.rename(old)
    try:
        made.rename(target)
    except BaseException:
        if had:
            old.rename(target)
        raise


def checked_folder(path: str | os.PathLike[str], kind: str) -> Path:
    """The folder, after a look at all of it.

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
        raise FileNotFoundError(f"there is no folder {folder} to load a saved {kind} from")
    manifest = _manifest(folder)
    if manifest is None:
        raise ValueError(
            f"{folder} was not saved by this package: it has no {MANIFEST} that names it as maker"
        )
    version, found = manifest.get("format"), manifest.get("kind")
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"{folder} is damaged: {MANIFEST} has the format {version!r}")
    if version > FORMAT:
        raise ValueError(
            f"{folder} was saved in format {version} by a later version of this package, which "
            f"here reads up to {FORMAT}: update sklearn-dialpref, or save it anew"
        )
    if found != kind:
        raise ValueError(f"{folder} holds a saved {found}, but a {kind} is to be loaded")
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise ValueError(f"{folder} is damaged: {MANIFEST} does not list its files")
    for name in files:
        check_name(name, folder)
    present = set(_files(folder)) - {MANIFEST}
    if strange := sorted(present - set(files)):
        raise ValueError(f"{folder} has files that it was not saved with: {strange}; remove them")
    if lost := sorted(set(files) - present):
        raise ValueError(f"{folder} is damaged: {lost} are missing; save it anew")
    for name, digest in files.items():
        if _sha256(folder / name) != digest:
            raise ValueError(
                f"{folder} is damaged: {name} is not what was saved, by its sha256; save it anew"
            )
    return folder


def _manifest(folder: Path) -> dict[str, Any] | None:
    """What the folder says of itself; None if it is not one of ours."""
    file = folder / MANIFEST
    if not file.is_file():
        return None
    manifest = read_json(file)
    ours = isinstance(manifest, dict) and manifest.get("made_by") == MAKER
    return manifest if ours else None


def read_json(file: Path) -> Any:
    """What a file of a saved folder says."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.parent} is damaged: {file.name} is not JSON ({error})") from error


def _is_of_kind(folder: Path, kind: str) -> bool:
    try:
        manifest = _manifest(folder)
    except ValueError:
        return False
    return manifest is not None and manifest.get("kind") == kind


def _files(folder: Path) -> list[str]:
    """All that is not a folder, as names with slashes."""
    return [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    ]


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

"""Checkpoints of a fit: files from which a killed one goes on, to the model of an unbroken one.

The course of a fit follows from its parameters and its data, so a killed fit runs through it
again: what was finished is read from its file, and what was not goes on from its last checkpoint.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sklearn_dialpref._paths import sync

DESCRIPTION, LOCK = "fit.json", "fit.lock"
FORMAT = 1
# of ours alone is anything ever removed
OURS = re.compile(
    r"checkpoint-(without-llm-)?(layers|model)-[a-z0-9-]+(\.unfinished)?\.safetensors(\.new)?"
    rf"|{re.escape(DESCRIPTION)}(\.new)?|{re.escape(LOCK)}"
)


class Stored(NamedTuple):
    """What a file holds: tensors by name, and everything else as JSON."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


class Checkpoints:
    """The files of one fit.

    Parameters
    ----------
    folder : Path
    fit : str
        What tells this fit's files from another one's.
    device : str
        Torch device, whose random state is kept.
    """

    def __init__(self, folder: Path, fit: str, device: str) -> None:
        self.folder = folder
        self.fit = fit
        self.device = device

    def read(self, name: str) -> Stored | None:
        """What was written under this name, if anything was."""
        file = self._file(name)
        if not file.exists():
            return None
        try:
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata()
                # copies, as the file may be replaced while its tensors are in use
                tensors = {key: opened.get_tensor(key).clone() for key in opened.keys()}  # noqa: SIM118
            if int(metadata["checksum"]) != _checksum(tensors, metadata["state"]):
                raise ValueError("its checksum differs")
            state = json.loads(metadata["state"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"the checkpoint {file} is damaged ({error}); remove it, and the fit repeats that "
                "part"
            ) from error
        if metadata.get("fit") != self.fit:
            raise ValueError(f"the checkpoint {file} is of another fit; remove it")
        return Stored(tensors, state)

    def write(self, name: str, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Write a file that is there whole or not at all."""
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        text = json.dumps(state)
        metadata = {"fit": self.fit, "state": text, "checksum": str(_checksum(plain, text))}
        with _whole(self._file(name)) as new:
            save_file(plain, new, metadata)

    def remove(self, name: str) -> None:
        self._file(name).unlink(missing_ok=True)

    def remove_parts(self, name: str) -> None:
        """Remove the files of what was a part of ``name``."""
        for file in self.folder.glob(f"checkpoint-{name}-*"):
            if OURS.fullmatch(file.name):
                file.unlink()

    def check_space(self, student: nn.Module) -> None:
        """Raise an OSError where the disk has no room for the checkpoints of a student."""
        sizes = [tensor.nbytes for tensor in trained_tensors(student).values()]
        # one checkpoint with AdamW's two averages and the best weights, twice while it is
        # replaced, and the weights after two stages
        needed = 10 * sum(sizes)
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(
                errno.ENOSPC,
                f"checkpoint_dir needs up to {needed / 1e6:,.0f} MB, but its disk has "
                f"{free / 1e6:,.0f} MB left; free some, or pass a folder on another disk",
                str(self.folder),
            )

    def _file(self, name: str) -> Path:
        return self.folder / f"checkpoint-{name}.safetensors"


def _checksum(tensors: Mapping[str, Tensor], text: str) -> int:
    checksum = zlib.crc32(text.encode())
    for name in sorted(tensors):
        checksum = zlib.crc32(name.encode(), checksum)
        bits = tensors[name].reshape(-1).view(torch.uint8)
        checksum = zlib.crc32(bits.numpy().data, checksum)
    return checksum


@contextmanager
def _whole(file: Path) -> Iterator[Path]:
    """A name to write to, which then takes the place of ``file``."""
    new = file.with_name(f"{file.name}.new")
    try:
        yield new
        sync(new)
        new.replace(file)
        sync(file.parent)
    except (OSError, SafetensorError) as error:
        new.unlink(missing_ok=True)
        raise OSError(
            getattr(error, "errno", None) or errno.EIO,
            f"checkpoint_dir cannot be written to ({error}); mend that and call fit again, which "
            "goes on from the last checkpoint",
            str(file.parent),
        ) from error


# -- the folder -----------------------------------------------------------------------------


@contextmanager
def opened_folder(
    path: str | os.PathLike[str], identity: dict[str, str], seed: int, device: str
) -> Iterator[tuple[Checkpoints, int]]:
    """The checkpoints of a fit in a folder, for it alone until the end of the block.

    Parameters
    ----------
    path : str or Path
    identity : dict of str
        What must be the same for the fit to go on, by names that errors show.
    seed : int
        Of a new fit.
    device : str

    Yields
    ------
    checkpoints : Checkpoints
    seed : int
        The one that the fit began with.

    Raises
    ------
    OSError
        If the folder cannot be made or written to, holds anything else, or is in use.
    ValueError
        If it holds an unfinished fit of another identity.
    """
    from filelock import FileLock, Timeout

    folder = Path(path).expanduser()
    with _naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _check_ours(folder)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BlockingIOError(
                errno.EAGAIN,
                "another fit is using checkpoint_dir; wait for its end, or pass another folder "
                "to each fit",
                str(folder),
            ) from None
    try:
        description = _description(folder, identity, seed)
        fit = f"{zlib.crc32(json.dumps(description, sort_keys=True).encode()):08x}"
        yield Checkpoints(folder, fit, device), description["seed"]
        _write_description(folder, {**description, "finished": True})
    finally:
        lock.release()


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """An OSError in the block becomes one that names the folder and the parameter."""
    try:
        yield
    except OSError as error:
        if error.filename == str(folder) and "checkpoint_dir" in str(error):
            raise
        reason = error.strerror or str(error)
        if folder.exists() and not folder.is_dir():
            reason = "it is a file"
        message = f"checkpoint_dir must be a folder that can be written to ({reason})"
        raise type(error)(error.errno, message, str(folder)) from error


def _check_ours(folder: Path) -> None:
    """Raise a FileExistsError for a folder with other things than a fit's checkpoints."""
    names = sorted(path.name for path in folder.iterdir())
    if DESCRIPTION not in names and not all(OURS.fullmatch(name) for name in names):
        others = [name for name in names if not OURS.fullmatch(name)]
        raise FileExistsError(
            errno.EEXIST,
            f"checkpoint_dir holds other things, such as {others[0]!r}; pass a new or an empty "
            "folder",
            str(folder),
        )


def _description(folder: Path, identity: dict[str, str], seed: int) -> dict[str, Any]:
    """Of the fit in the folder, once that is this one; a finished one makes room for another."""
    stored = _read_description(folder)
    if stored is not None:
        finished = stored.pop("finished", False)
        names = {*identity, *stored["identity"]}
        other = sorted(n for n in names if identity.get(n) != stored["identity"].get(n))
        if not other:
            return stored
        if not finished:
            raise ValueError(
                f"checkpoint_dir={str(folder)!r} holds an unfinished fit, from which this one "
                f"differs in {', '.join(other)}; to go on with that one, fit with what it began "
                "with; to begin anew, remove the folder or pass another"
            )
    for file in folder.iterdir():
        if OURS.fullmatch(file.name) and file.name not in (LOCK, DESCRIPTION):
            file.unlink()
    description = {"format": FORMAT, "seed": seed, "identity": identity}
    _write_description(folder, description)
    return description


def _read_description(folder: Path) -> dict[str, Any] | None:
    file = folder / DESCRIPTION
    if not file.exists():
        return None
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        sound = (
            stored["format"] == FORMAT
            and isinstance(stored["identity"], dict)
            and isinstance(stored["seed"], int)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged ({error}); remove it, and the fit begins anew"
        ) from error
    if not sound:
        raise ValueError(
            f"{file} is not as this version writes it; pass another checkpoint_dir or, if an "
            "earlier version wrote it, remove it, and the fit begins anew"
        )
    return dict(stored)


def _write_description(folder: Path, description: dict[str, Any]) -> None:
    with _whole(folder / DESCRIPTION) as new:
        new.write_text(json.dumps(description, indent=1), encoding="utf-8")


# -- what is stored -------------------------------------------------------------------------


def trained_tensors(student: nn.Module) -> dict[str, Tensor]:
    """What training changes: the parameters that are trained, and buffers."""
    parameters = {n: p for n, p in student.named_parameters() if p.requires_grad}
    return {**parameters, **dict(student.named_buffers())}


def random_tensors(device: str) -> dict[str, Tensor]:
    """Torch's random states."""
    states = {"random.cpu": torch.get_rng_state()}
    if device.startswith("cuda"):
        states["random.device"] = torch.cuda.get_rng_state(device)
    elif device == "mps":
        states["random.device"] = torch.mps.get_rng_state()
    return states


def set_random_state(tensors: Mapping[str, Tensor], device: str) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if device.startswith("cuda"):
        torch.cuda.set_rng_state(tensors["random.device"], device)
    elif device == "mps":
        torch.mps.set_rng_state(tensors["random.device"])

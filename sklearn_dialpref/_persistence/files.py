"""Weights and encoders of a saved folder: read, or refused with the name of the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .folder import DamagedFile, naming, read_json

MOST_TENSORS = 5_000  # of a file; a list of a hundred thousand empty ones takes many seconds
MOST_HEADER_BYTES = 2**20
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
POSITIONS = "max_position_embeddings"
TOKENIZER = "tokenizer.json"
PROBES = [
    "a",
    "two words, [UNK] and \N{GRINNING FACE}",
]  # of two lengths, one with what is unknown


def read_tensors(file: Path) -> dict[str, Any]:
    """The tensors of a safetensors file; a DamagedFile if it has none or numbers that are none."""
    from safetensors.torch import load_file

    check_tensors(file)
    with naming(file, "a safetensors file"):
        tensors = load_file(file)
    check_finite(file, tensors)
    return tensors


def check_tensors(file: Path) -> None:
    """Raise a DamagedFile if the header of a safetensors file is damaged or absurdly long."""
    from safetensors import safe_open

    with naming(file, "a safetensors file"):
        with open(file, "rb") as opened:
            header_bytes = int.from_bytes(opened.read(8), "little")
        if header_bytes > MOST_HEADER_BYTES:
            raise ValueError(f"its header has {header_bytes} bytes")
        with safe_open(file, framework="pt") as opened:
            if (number := len(opened.keys())) > MOST_TENSORS:
                raise ValueError(f"it lists {number} tensors")


def check_finite(file: Path, tensors: dict[str, Any]) -> None:
    """Raise a DamagedFile if a tensor has NaN or infinity."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise DamagedFile(f"{file} is damaged: {name} has numbers that are not finite")


def check_features(n_features: Any, names: Any, width: int | None) -> None:
    """Raise a ValueError unless they are those of weights for so many, which is None of text."""
    if n_features != width:
        raise ValueError(f"n_features is {n_features!r}, but the weights are for {width}")
    if names is not None and (
        len(names) != n_features or not all(isinstance(name, str) for name in names)
    ):
        raise ValueError(f"feature_names are not the names of {n_features} features")


def check_encoder(encoder: Any) -> None:
    """Raise a ValueError unless the encoder's weights and what it makes of texts are sound."""
    check_finite(Path("the encoder"), encoder.state_dict())
    embedded = encoder.embed(PROBES)
    if embedded.shape != (len(PROBES), encoder.n_outputs) or not np.isfinite(embedded).all():
        raise ValueError(f"its embedding of texts is of shape {embedded.shape}, or not finite")


def check_sizes(weights: Path) -> None:
    """Raise a DamagedFile if the configuration beside weights is of a far larger model.

    The model would be made at that size before its weights are found not to fit.
    """
    from safetensors import safe_open

    config = weights.with_name("config.json")
    entries = read_json(config) if config.is_file() else None
    if not isinstance(entries, dict):
        return
    with safe_open(weights, framework="pt") as opened:
        tensors = opened.keys()
        shapes = [opened.get_slice(name).get_shape() for name in tensors]
    longest = max((length for shape in shapes for length in shape), default=0)
    for name, value in entries.items():
        most = longest if name.endswith("_size") else len(shapes) if name in LAYERS else None
        if name == POSITIONS:  # rotary ones are no tensor
            most = 1000 * longest
        if most is not None and isinstance(value, int) and value > most:
            raise DamagedFile(
                f"{config} is damaged: its {name} is {value:.3g}, too large for {weights.name}"
            )


@contextmanager
def naming_encoder(folder: Path) -> Iterator[None]:
    """Load an encoder in the block; whatever is raised becomes a DamagedFile naming a file."""
    for file in sorted(folder.rglob("*.safetensors")):
        check_tensors(file)
        check_sizes(file)
    try:
        yield
    except Warning:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        _blame(folder)
        names = [file.relative_to(folder).as_posix() for file in _files(folder)]
        raise DamagedFile(
            f"{folder} is damaged: {', '.join(names)} do not fit together "
            f"({type(error).__name__}: {error})"
        ) from error


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in (".json", ".safetensors"))


def _blame(folder: Path) -> None:
    """Raise a DamagedFile for the file that cannot be read by itself, if there is one."""
    from tokenizers import Tokenizer

    for file in _files(folder):
        if file.suffix != ".json":
            continue
        if file.name == TOKENIZER:
            with naming(file, "a tokenizer"):
                Tokenizer.from_file(str(file))
        else:
            read_json(file)

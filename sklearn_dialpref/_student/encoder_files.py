"""What an encoder's files may ask for: known modules, and nothing that runs other code.

sentence-transformers imports what ``modules.json`` and the configurations name. With
``trust_remote_code=False`` it runs no code out of the folder; but a name can also be that of any
function that is installed, and options of a configuration go to loaders as they are.

Also those files as bytes, for pickles.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from sklearn_dialpref._compat import quiet_transformers
from sklearn_dialpref._paths import check_name

PACKAGE = "sentence_transformers."
MODULES = {
    *("Transformer", "Pooling", "Normalize", "Dense", "StaticEmbedding", "LayerNorm", "Dropout"),
    "WeightedLayerPooling",
}
TRANSFORMER_OPTIONS = {
    *("max_seq_length", "do_lower_case", "transformer_task", "modality_config"),
    *("module_output_name", "message_format", "unpad_inputs"),
}


def check_encoder_files(folder: Path) -> None:
    """Raise a ValueError if a configuration names other code, options or files.

    Parameters
    ----------
    folder : Path
        Folder of a sentence-transformers model.
    """
    if (folder / "modules.json").exists():
        for module in _json(folder / "modules.json"):
            kind, path = str(module.get("type")), str(module.get("path", ""))
            if not _is_read(kind):
                raise ValueError(
                    f"modules.json names {kind!r}, which is not one of {sorted(MODULES)}"
                )
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ValueError(f"modules.json names {path!r}, which lies elsewhere")
    for file in folder.rglob("sentence_*_config.json"):
        strange = {k for k, v in _json(file).items() if k not in TRANSFORMER_OPTIONS and v}
        if strange:
            raise ValueError(f"{file.name} has options that are not read: {sorted(strange)}")
    for file in folder.rglob("*.index.json"):
        for name in _json(file).get("weight_map", {}).values():
            if PurePosixPath(str(name)).name != name:
                raise ValueError(f"{file.name} names {name!r}, which lies elsewhere")
    for file in folder.rglob("*config*.json"):
        for key, value in _entries(_json(file)):
            if key == "activation_function" and "." in value and not value.startswith("torch.nn."):
                raise ValueError(f"{file.name} names {value!r}, which is not of torch.nn")
            if key.endswith("attn_implementation") and "/" in value:
                raise ValueError(f"{file.name} names {value!r}, which would be fetched")


def _is_read(kind: str) -> bool:
    return kind.startswith(PACKAGE) and kind.rpartition(".")[2] in MODULES


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file.name} is not JSON ({error})") from error


def _entries(value: Any) -> Iterator[tuple[str, str]]:
    """All keys with a str as value, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str):
                yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def is_known(model: Any) -> bool:
    """Whether a SentenceTransformer is of modules that are read from files."""
    kinds = [type(module) for module in model]
    return all(_is_read(f"{kind.__module__}.{kind.__name__}") for kind in kinds)


def write_encoder(model: Any, folder: Path) -> None:
    with quiet_transformers():
        model.save(str(folder), create_model_card=False)


def files_of(model: Any) -> dict[str, bytes]:
    """The files of a SentenceTransformer, by their names."""
    with tempfile.TemporaryDirectory() as folder:
        write_encoder(model, Path(folder))
        return {
            file.relative_to(folder).as_posix(): file.read_bytes()
            for file in sorted(Path(folder).rglob("*"))
            if file.is_file()
        }


@contextmanager
def written(files: dict[str, bytes]) -> Iterator[Path]:
    """A folder of these files, for a while."""
    # where weights stay mapped into memory their file may not be removable
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for name in files:
            check_name(name, Path("a pickled encoder"))
        for name, content in files.items():
            file = Path(folder) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        yield Path(folder)

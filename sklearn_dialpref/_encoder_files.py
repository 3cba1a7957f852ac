"""What the files of an encoder may ask for: known modules, and nothing that runs other code.

sentence-transformers imports what ``modules.json`` and the configurations name.  With
``trust_remote_code=False`` it runs no code out of the folder; but a name can also be that of any
function that is installed, and options of a configuration go to loaders as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = ["check_encoder_files"]

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
        Of a sentence-transformers model.
    """
    if (folder / "modules.json").exists():
        for module in _json(folder / "modules.json"):
            kind, path = str(module.get("type")), str(module.get("path", ""))
            if not kind.startswith(PACKAGE) or kind.rpartition(".")[2] not in MODULES:
                raise ValueError(
                    f"modules.json names {kind!r}, which is none of {sorted(MODULES)}"
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


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file.name} is no JSON ({error})") from error


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

"""What must be the same for a killed fit to go on: parameters, data, encoder and versions."""

from __future__ import annotations

import hashlib
import json
import pickle
from contextlib import suppress
from importlib.metadata import version
from types import CodeType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import Dialogues
from sklearn_dialpref._labels.targets import Targets, canonical_order, class_weights
from sklearn_dialpref._student.frozen import fingerprint

from .stages import named_loss

# which do not change the model, or are told apart by what they lead to
LEFT_OUT = {
    "encoder",
    "loss",
    "class_weight",
    "classes",
    "device",
    "memory",
    "n_jobs",
    "checkpoint_dir",
    "callbacks",
    "accelerator",
    "random_state",
    "verbose",
}
PACKAGES = (
    "sklearn-dialpref",
    "torch",
    "sentence-transformers",
    "transformers",
    "skorch",
    "numpy",
)
TEXTS = 10_000  # at a time


def fit_identity(
    estimator: Any,
    dialogues: Dialogues,
    slots: list[NDArray[Any]],
    targets: Targets,
    seed: int,
    device: str,
) -> dict[str, str]:
    """Digests of all that a model follows from, by names that an error can show.

    Data count in canonical order, and only those that are trained on.
    """
    parameters = estimator.get_params(deep=False)
    identity = {name: repr(value) for name, value in parameters.items() if name not in LEFT_OUT}
    identity["loss"] = _of_loss(estimator.loss)
    weights = class_weights(targets, estimator.class_weight)
    identity["class_weight"] = "none" if weights is None else _digest(weights)
    if parameters["random_state"] is not None:
        identity["random_state"] = str(seed)
    identity["encoder"] = "precomputed"
    if dialogues.features is None:
        identity["encoder"] = fingerprint(estimator.encoder)
    identity |= {f"the version of {name}": version(name) for name in PACKAGES}
    identity["the torch device"] = device
    identity["the number of torch's threads"] = str(torch.get_num_threads())
    return identity | _data(dialogues, slots, targets)


def _data(dialogues: Dialogues, slots: list[NDArray[Any]], targets: Targets) -> dict[str, str]:
    order = canonical_order(dialogues, targets)
    order = order[(targets.has_human | targets.has_score)[order]]
    group = np.arange(len(order))
    if dialogues.has_dialogues:
        group = np.unique(dialogues.group[order], return_inverse=True)[1]
    contents = [slot[order] for slot in slots] or [dialogues.features[order]]  # type: ignore[index]
    return {
        "X": _digest(group, *contents),
        "classes": repr(targets.classes.tolist()),
        "y_human": _digest(targets.human[order]),
        "y_llm": "none" if targets.scores is None else _digest(targets.scores[order]),
        "classes of speakers": (
            "all" if targets.possible is None else _digest(targets.possible[order])
        ),
    }


def _digest(*arrays: NDArray[Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        if array.dtype != object:
            digest.update(np.ascontiguousarray(array).data)
            continue
        for start in range(0, len(array), TEXTS):
            digest.update(json.dumps(array[start : start + TEXTS].tolist()).encode())
    return digest.hexdigest()


def _of_loss(loss: Any) -> str:
    name = named_loss(loss)
    if isinstance(name, str):
        return name
    code = getattr(loss, "__code__", None)
    if code is not None:  # pickle knows a function by its name alone
        constants = [c for c in code.co_consts if not isinstance(c, CodeType)]
        parts = [loss.__qualname__, code.co_code, code.co_names, constants, loss.__defaults__]
        return _digest(np.array([repr(parts)], dtype=object))
    with suppress(pickle.PicklingError, AttributeError, TypeError):
        return hashlib.blake2b(pickle.dumps(loss), digest_size=16).hexdigest()
    return type(loss).__qualname__

"""What a fitted classifier says of its labels, as JSON and back; without scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST_NAME = 2**16  # bytes, of a class

__all__ = [
    "PredictsLabels",
    "labels_as_json",
    "labels_card",
    "plain",
    "plain_values",
    "set_labels",
]


class PredictsLabels:
    """From logits to probabilities and labels; for anything with ``classes_``."""

    classes_: NDArray[Any]
    multilabel_: bool
    thresholds_: NDArray[np.float64]

    def _probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.multilabel_:
            return np.exp(-np.logaddexp(0, -logits))
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def _labels(self, logits: NDArray[np.float64]) -> NDArray[Any]:
        if self.multilabel_:
            return (self._probabilities(logits) >= self.thresholds_).astype(np.int64)
        return self.classes_[logits.argmax(axis=1)]


def plain(value: Any, what: str) -> Any:
    """A label, name or number as JSON has it."""
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        value = value.item()  # of a time it would be a number, or not, by its unit
    if value is not None and not isinstance(value, str | int | float | bool):
        raise TypeError(
            f"{what} of type {type(value).__name__}, such as {value!r}, cannot be saved: use "
            "strings or numbers"
        )
    return value


def plain_values(values: Any, what: str) -> list[Any]:
    return [plain(value, what) for value in values]


def labels_as_json(estimator: Any) -> dict[str, Any]:
    """Classes, thresholds and speakers of a fitted classifier, and how many texts a row has."""
    classes = estimator.classes_
    thresholds = plain_values(estimator.thresholds_, "") if estimator.multilabel_ else None
    return {
        "classes": {"values": plain_values(classes, "classes"), "dtype": classes.dtype.str},
        "multilabel": estimator.multilabel_,
        "thresholds": thresholds,
        "of_speakers": [
            [plain(speaker, "speakers"), allowed.tolist()]
            for speaker, allowed in estimator._of_speakers.items()
        ],
        "n_slots": estimator._n_slots,
    }


def labels_card(state: dict[str, Any]) -> str:
    """The part of a model card on what :func:`labels_as_json` found."""
    names = state["classes"]["values"]
    kind = "labels, any number of them on an utterance" if state["multilabel"] else "classes"
    return f"## {len(names)} {kind}\n\n" + ", ".join(f"`{name}`" for name in names)


def set_labels(estimator: Any, state: dict[str, Any], folder: Path) -> None:
    """Give the estimator what :func:`labels_as_json` took from another."""
    values, dtype = state["classes"]["values"], np.dtype(state["classes"]["dtype"])
    if not all(isinstance(value, str | int | float | bool) for value in values):
        raise ValueError(f"{folder} is damaged: its classes are not strings or numbers")
    if dtype.kind not in "OUSbiuf" or dtype.itemsize > LONGEST_NAME:
        raise ValueError(f"{folder} is damaged: its classes are of type {dtype}")
    estimator.classes_ = np.array(values, dtype=dtype)
    estimator.multilabel_ = bool(state["multilabel"])
    if estimator.multilabel_:
        estimator.thresholds_ = np.array(state["thresholds"], dtype=np.float64)
    estimator._of_speakers = {
        speaker: np.array(allowed, dtype=bool) for speaker, allowed in state["of_speakers"]
    }
    by_class = [estimator.thresholds_] if estimator.multilabel_ else []
    shape = estimator.classes_.shape
    if any(values.shape != shape for values in [*by_class, *estimator._of_speakers.values()]):
        raise ValueError(f"{folder} is damaged: thresholds or speakers are not of its classes")
    estimator._n_slots = int(state["n_slots"])

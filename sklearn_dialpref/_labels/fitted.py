"""What a fitted classifier knows of its labels; without scikit-learn and torch, for serving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.batches import checked_batches
from sklearn_dialpref._dialogues.speakers import ClassesBySpeaker, possible_classes
from sklearn_dialpref._dialogues.validation import Dialogues

LONGEST_NAME = 2**16  # bytes, of a class


@dataclass(frozen=True, eq=False)
class FittedLabels:
    """Classes of a fitted classifier, and how logits become probabilities and labels.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        Class labels, sorted; multilabel: the names of the label columns.
    multilabel : bool
        Whether an utterance can have several labels.
    thresholds : ndarray of shape (n_classes,), or None
        Multilabel: probability from which on a label is predicted.
    classes_by_speaker : dict of ndarray of bool, shape (n_classes,)
        Which classes each named speaker can have; empty if all speakers can have all.
    n_texts : int
        Texts that a row consists of: 1, 2 with a context, 0 with features.
    """

    classes: NDArray[Any]
    multilabel: bool
    thresholds: NDArray[np.float64] | None
    classes_by_speaker: ClassesBySpeaker
    n_texts: int

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Softmax over the classes; multilabel: each label's sigmoid."""
        if self.multilabel:
            return np.exp(-np.logaddexp(0, -logits))
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def labels(self, logits: NDArray[np.float64]) -> NDArray[Any]:
        """The most probable class; multilabel: 1 where a label reaches its threshold."""
        if self.thresholds is not None:
            return (self.probabilities(logits) >= self.thresholds).astype(np.int64)
        return self.classes[logits.argmax(axis=1)]

    def among_possible(
        self, logits: NDArray[np.float64], dialogues: Dialogues
    ) -> NDArray[np.float64]:
        """The logits, minus infinity for classes that an utterance's speaker cannot have."""
        if not self.classes_by_speaker:
            return logits
        possible = possible_classes(self.classes_by_speaker, dialogues, len(self.classes))
        return np.where(possible, logits, -np.inf)

    def to_json(self) -> dict[str, Any]:
        """As JSON has it; a TypeError for classes or speakers that JSON does not have."""
        values = plain_values(self.classes, "classes")
        thresholds = None if self.thresholds is None else plain_values(self.thresholds, "")
        return {
            "classes": {"values": values, "dtype": self.classes.dtype.str},
            "multilabel": self.multilabel,
            "thresholds": thresholds,
            "of_speakers": [
                [plain(speaker, "speakers"), possible.tolist()]
                for speaker, possible in self.classes_by_speaker.items()
            ],
            "n_slots": self.n_texts,
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any], folder: Path) -> FittedLabels:
        """What :meth:`to_json` gave; a ValueError that names the folder if it is damaged."""
        values, dtype = state["classes"]["values"], np.dtype(state["classes"]["dtype"])
        if not all(isinstance(value, str | int | float | bool) for value in values):
            raise ValueError(f"{folder} is damaged: its classes are not strings or numbers")
        if dtype.kind not in "OUSbiuf" or dtype.itemsize > LONGEST_NAME:
            raise ValueError(f"{folder} is damaged: its classes are of type {dtype}")
        multilabel = bool(state["multilabel"])
        labels = cls(
            np.array(values, dtype=dtype),
            multilabel,
            np.array(state["thresholds"], dtype=np.float64) if multilabel else None,
            {
                speaker: np.array(possible, dtype=bool)
                for speaker, possible in state["of_speakers"]
            },
            int(state["n_slots"]),
        )
        by_class: list[NDArray[Any]] = [*labels.classes_by_speaker.values()]
        if labels.thresholds is not None:
            by_class.append(labels.thresholds)
        if any(values.shape != labels.classes.shape for values in by_class):
            raise ValueError(f"{folder} is damaged: thresholds or speakers are not of its classes")
        return labels

    def card(self) -> str:
        """Their part of a model card."""
        kind = "labels, any number of them on an utterance" if self.multilabel else "classes"
        names = ", ".join(f"`{plain(name, 'classes')}`" for name in self.classes)
        return f"## {len(self.classes)} {kind}\n\n{names}"


class HasFittedLabels:
    """Gives a classifier with ``fitted_labels_`` the attributes that users know."""

    fitted_labels_: FittedLabels

    @property
    def classes_(self) -> NDArray[Any]:
        """Class labels, sorted; multilabel: the names of the label columns."""
        return self.fitted_labels_.classes

    @property
    def multilabel_(self) -> bool:
        """Whether each utterance can have several labels."""
        return self.fitted_labels_.multilabel

    @property
    def thresholds_(self) -> NDArray[np.float64]:
        """Multilabel only: probability from which on a label is predicted."""
        if self.fitted_labels_.thresholds is None:
            raise AttributeError("thresholds_ is there for multilabel problems only")
        return self.fitted_labels_.thresholds


class TextClassifier(Protocol):
    """A fitted classifier of text, as streams and exports use it."""

    context_turns: int
    fitted_labels_: FittedLabels

    def _logits_from_texts(
        self, texts: list[str], index: NDArray[np.int64], keep: bool = True
    ) -> NDArray[np.float64]: ...


def predicted_batches(model: Any, batches: Iterable[Any], output: str) -> Iterator[NDArray[Any]]:
    """What a model predicts of tables that come one after the other; it keeps nothing of them."""
    labels: FittedLabels = model.fitted_labels_
    outputs = {"label": labels.labels, "proba": labels.probabilities}
    if output not in outputs:
        raise ValueError(f"output must be one of {sorted(outputs)}, got {output!r}")
    parts = checked_batches(batches) if model.context_turns else batches
    return (outputs[output](model._logits(part, keep=False)) for part in parts)


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

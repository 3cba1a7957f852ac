"""Rows with their labels, from which estimators are trained on some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from sklearn_dialpref._dialogues.validation import Dialogues, check_dialogues, label_array
from sklearn_dialpref._labels.scores import kind_of_scores
from sklearn_dialpref._labels.speakers import all_classes
from sklearn_dialpref._labels.targets import Targets, canonical_order, check_targets

__all__ = [
    "LabelledRows",
    "clone_with_classes",
    "final_estimator",
    "in_classes",
    "labelled_rows",
    "take",
    "without",
]


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Utterances and their labels, in a form of which rows can be taken.

    Attributes
    ----------
    X : DataFrame, ndarray or sequence of str, of n rows
    human : ndarray
        Single-label: (n,) objects, as they came. Multilabel: (n, K) float of 0, 1 or NaN.
    llm : ndarray or None
        Votes as objects, or (n, K) float scores in the order of the classes.
    dialogues : Dialogues
    targets : Targets
    unit : ndarray of int64, shape (n,)
        The dialogue of each row. Without dialogues each row is one, numbered by what it holds.
    order : ndarray of int64, shape (n,)
        The rows by dialogue and turn; without dialogues by what they hold.
    """

    X: Any
    human: NDArray[Any]
    llm: NDArray[Any] | None
    dialogues: Dialogues
    targets: Targets
    unit: NDArray[np.int64]
    order: NDArray[np.int64]


def labelled_rows(estimator: Any, X: Any, y_human: Any, y_llm: Any) -> LabelledRows:
    """Read the rows, whose classes are those of the estimator where it names any."""
    dialogues = check_dialogues(X)
    classes = all_classes(_parameters(final_estimator(estimator)).get("classes"), y_human)
    targets = check_targets(y_human, y_llm, len(dialogues), classes)
    if dialogues.has_dialogues:
        unit = dialogues.group
        order = np.lexsort((dialogues.turn, unit))
    else:
        order = canonical_order(dialogues, targets)
        unit = np.argsort(order)
    return LabelledRows(
        X, _human(y_human, targets), _llm(y_llm, targets), dialogues, targets, unit, order
    )


def _human(y_human: Any, targets: Targets) -> NDArray[Any]:
    if targets.multilabel:
        return targets.human
    if y_human is None:
        return np.full(len(targets.human), None, dtype=object)
    return label_array(y_human).reshape(-1).astype(object)


def _llm(y_llm: Any, targets: Targets) -> NDArray[Any] | None:
    if y_llm is None:
        return None
    llm = label_array(y_llm)
    if not targets.multilabel and kind_of_scores(llm) == "votes":
        return llm.astype(object)
    assert targets.scores is not None
    return targets.scores.astype(np.float64)


def final_estimator(estimator: Any) -> Any:
    """The classifier at the end of pipelines and inside searches."""
    while True:
        if hasattr(estimator, "steps"):
            estimator = estimator.steps[-1][1]
        elif hasattr(estimator, "estimator"):
            estimator = estimator.estimator
        else:
            return estimator


def _parameters(estimator: Any) -> dict[str, Any]:
    return estimator.get_params(deep=False) if hasattr(estimator, "get_params") else {}


def clone_with_classes(estimator: Any, targets: Targets) -> Any:
    """A clone that knows all classes, since few labels can lack one."""
    student = clone(estimator)
    final = final_estimator(student)
    parameters = _parameters(final)
    # classes of each speaker stay; others are sorted as the columns of the scores are
    if not isinstance(parameters.get("classes", {}), Mapping):
        final.set_params(classes=targets.classes.tolist())
    return student


def without(labels: NDArray[Any], blank: NDArray[np.bool_]) -> NDArray[Any]:
    """The labels, missing in some rows."""
    labels = labels.copy()
    labels[blank] = None if labels.dtype.kind == "O" else np.nan
    return labels


def take(X: Any, rows: NDArray[np.int64]) -> Any:
    """Rows of any form of ``X``, which keeps its type."""
    native = nw.from_native(X, pass_through=True, allow_series=True)
    if isinstance(native, nw.DataFrame | nw.Series):
        return native[rows].to_native()
    return (X if hasattr(X, "dtype") else label_array(X))[rows]


def in_classes(proba: Any, known: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of the known classes as those of all; that of the others is 0.

    Parameters
    ----------
    proba : ndarray of shape (n, L)
    known : ndarray of shape (L,)
        Part of `classes`.
    classes : ndarray of shape (K,)
        Sorted.

    Returns
    -------
    ndarray of shape (n, K)
    """
    wide = np.zeros((len(proba), len(classes)))
    wide[:, np.searchsorted(classes, known)] = proba
    return wide

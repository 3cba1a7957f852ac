"""What a student and a teacher answer, in the same classes."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import check_dialogues
from sklearn_dialpref.inspection.labelled_rows import in_classes, take

__all__ = ["ask_teacher", "student_proba"]

Scores = NDArray[np.float64]


def student_proba(student: Any, X: Any, classes: NDArray[Any]) -> Scores:
    """The student's probabilities of all classes, of which it may know a part.

    Parameters
    ----------
    student : fitted classifier
    X : DataFrame, ndarray or sequence of str, of n rows
    classes : ndarray of shape (K,)
        Sorted.

    Returns
    -------
    ndarray of shape (n, K)
    """
    return in_classes(student.predict_proba(X), student.classes_, classes)


def ask_teacher(teacher: Any, X: Any, asked: NDArray[np.bool_]) -> Scores:
    """The teacher's probabilities of these rows; NaN elsewhere, and where it has no answer.

    An annotator is shown all rows. Another classifier is asked about whole dialogues, which hold
    the context of the rows.

    Parameters
    ----------
    teacher : fitted classifier
    X : DataFrame, ndarray or sequence of str, of n rows
    asked : ndarray of bool, shape (n,)
        At least one is.

    Returns
    -------
    ndarray of shape (n, K)
        Columns by sorted class.
    """
    order = np.argsort(teacher.classes_, kind="stable")
    if "asked" in inspect.signature(teacher.predict_proba).parameters:
        return np.asarray(teacher.predict_proba(X, asked=asked))[:, order]
    group = check_dialogues(X).group
    shown = np.flatnonzero(np.isin(group, group[asked]))
    answers = np.full((len(asked), len(order)), np.nan)
    answers[shown] = np.asarray(teacher.predict_proba(take(X, shown)))[:, order]
    answers[~asked] = np.nan
    return answers

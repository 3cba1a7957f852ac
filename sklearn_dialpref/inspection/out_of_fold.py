"""Probabilities of every utterance by a student that has not seen its dialogue."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.utils import check_scalar

from sklearn_dialpref._dialogues.validation import warn_of_other_order, wholly_known
from sklearn_dialpref._labels.targets import Targets
from sklearn_dialpref._progress import one_bar
from sklearn_dialpref.model_selection import _spread

from .labelled_rows import (
    LabelledRows,
    clone_with_classes,
    final_estimator,
    in_classes,
    labelled_rows,
    take,
)

__all__ = ["out_of_fold_proba"]


def out_of_fold_proba(
    estimator: Any, X: Any, y_human: Any = None, y_llm: Any = None, *, cv: int = 5
) -> NDArray[np.float64]:
    """Probability of each class by a student that has not seen the utterance's dialogue.

    Each dialogue is in one of `cv` folds. A clone of the estimator is trained on all other folds,
    with their human and their LLM labels, and predicts this one. So every utterance gets
    probabilities, whether it has a label or not, and neither its own labels nor those of its
    dialogue have a part in them.

    Parameters
    ----------
    estimator : classifier
        A student with ``fit(X, y_human, y_llm=…)`` such as
        :class:`~sklearn_dialpref.DialoguePreferenceClassifier`, also at the end of a
        :class:`~sklearn.pipeline.Pipeline` or in a search; or, without `y_llm`, any classifier
        with ``fit(X, y)``, which is trained on the labelled rows only. It is cloned, fitted or
        not. If it has a parameter ``classes`` that is None, the clones get all classes, since a
        fold can lack one.
    X : DataFrame, ndarray or sequence of str, of n rows
        Utterances, in any form that the estimator accepts. Without dialogues each row is one.
    y_human : array-like of shape (n,) or (n, L), default=None
        Human labels; missing is None, NaN or ``pd.NA``. 2-D: 0, 1 or missing for each of L labels
        (multilabel).
    y_llm : array-like of shape (n,), (n, A) or (n, K), default=None
        Labels, votes or scores of the LLM.
    cv : int, default=5
        Number of folds, at least 2. Human labels of each class are spread evenly over them, and
        so are the dialogues without any.

    Returns
    -------
    proba : ndarray of shape (n, K)
        In the order of the rows of `X`. The columns are those of ``estimator.predict_proba``
        after ``estimator.fit(X, y_human, y_llm)``: the sorted classes, which are the estimator's
        parameter ``classes`` or, without one, all human labels, votes and names of score columns.
        Multilabel: a column for each label, in the order of `y_human`'s columns or of
        ``classes``. A class that a clone has not learned has probability 0.

    Raises
    ------
    ValueError
        If labels do not fit, there are fewer dialogues than folds, or those outside a fold hold
        too few labels to train on.
    TypeError
        If the estimator has no ``predict_proba``, or `y_llm` comes with one that cannot take it.

    See Also
    --------
    LabelledGroupKFold : Folds for scikit-learn's own functions, with labelled test rows only.

    Notes
    -----
    The folds do not depend on the order of the rows. They are those of
    :class:`~sklearn_dialpref.LabelledGroupKFold` for the dialogues that hold human labels. The
    others are spread in the same way, by their LLM labels.

    In a pipeline `y_llm` is routed to the last step: as ``step__y_llm`` or, with metadata routing,
    to those that request it.

    Examples
    --------
    >>> from sklearn_dialpref import DialoguePreferenceClassifier
    >>> from sklearn_dialpref.datasets import make_dialogues
    >>> from sklearn_dialpref import out_of_fold_proba
    >>> data = make_dialogues(n_dialogues=40, n_features=8, human_fraction=0.5, random_state=0)
    >>> clf = DialoguePreferenceClassifier(
    ...     encoder="precomputed", schedule="joint", max_epochs=2, random_state=0
    ... )
    >>> proba = out_of_fold_proba(clf, data.X, data.y_human, data.y_llm, cv=2)
    >>> proba.shape == (len(data.X), 3)
    True
    """
    check_scalar(cv, "cv", Integral, min_val=2)
    takes_llm = takes_llm_labels(estimator, y_llm)
    warn_of_other_order(X, y_human=y_human, y_llm=y_llm)
    rows = labelled_rows(estimator, X, y_human, y_llm)
    proba = np.empty((len(rows.unit), len(rows.targets.classes)))
    with one_bar("out_of_fold_proba", cv):
        for fold in students_of_folds(estimator, rows, cv, takes_llm):
            proba[fold.test] = fold.proba
    return proba


@dataclass(frozen=True, eq=False)
class Fold:
    """A student of all other folds, and what it says of this one.

    Attributes
    ----------
    student : classifier
    train, test : ndarray of int64
        Rows of the other folds and of this one, dialogue by dialogue.
    proba : ndarray of shape (n_test, K)
        Probabilities of the test rows.
    """

    student: Any
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    proba: NDArray[np.float64]


def students_of_folds(
    estimator: Any, rows: LabelledRows, cv: int, takes_llm: bool
) -> Iterator[Fold]:
    """Train a clone for each fold of whole dialogues.

    Parameters
    ----------
    estimator : classifier
    rows : LabelledRows
    cv : int
    takes_llm : bool
        As :func:`takes_llm_labels` says.

    Yields
    ------
    Fold
    """
    for number, (train, test) in enumerate(_folds(rows, cv)):
        _check_training_labels(
            rows.targets, train[_usable(rows, takes_llm)[train]], takes_llm, number
        )
        student = clone_with_classes(estimator, rows.targets)
        fit_student(student, rows, train, takes_llm)
        predicted = student.predict_proba(take(rows.X, test))
        yield Fold(student, train, test, _aligned(predicted, student, rows.targets))


def takes_llm_labels(estimator: Any, y_llm: Any) -> bool:
    """Whether its fit takes LLM labels; an error if it must but does not, or cannot be used."""
    final = final_estimator(estimator)
    name = type(final).__name__
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"{type(estimator).__name__} has no predict_proba, but out-of-fold probabilities need "
            "one; choose a classifier with it, or wrap this one in CalibratedClassifierCV"
        )
    takes_llm = "y_llm" in inspect.signature(final.fit).parameters
    if y_llm is not None and not takes_llm:
        raise TypeError(
            f"y_llm came with {name}, whose fit takes no y_llm; pass y_llm=None to train it on "
            "human labels alone"
        )
    return takes_llm


# -- folds ----------------------------------------------------------------------------------


def _folds(rows: LabelledRows, cv: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Row numbers of the training and the test part of each fold, dialogue by dialogue."""
    fold_of_row = _fold_of_unit(rows, cv)[rows.unit]
    for fold in range(cv):
        in_fold = fold_of_row[rows.order] == fold
        if in_fold.any():  # few labelled and few other dialogues can leave one empty
            yield rows.order[~in_fold], rows.order[in_fold]


def _fold_of_unit(rows: LabelledRows, cv: int) -> NDArray[np.int64]:
    n_units = int(rows.unit.max()) + 1
    if n_units < cv:
        kind = "dialogues" if rows.dialogues.has_dialogues else "rows"
        raise ValueError(f"cv={cv} folds need as many {kind}, but X has {n_units}; lower cv")
    human, llm = _label_counts(rows.targets)
    labelled = np.bincount(rows.unit, rows.targets.has_human, n_units) > 0
    fold = np.empty(n_units, dtype=np.int64)
    for units, table in ((labelled, human), (~labelled, llm)):
        counts = np.zeros((n_units, table.shape[1]))
        np.add.at(counts, rows.unit, table)
        fold[units] = _spread(counts[units], np.bincount(rows.unit)[units], cv, None)
    return fold


def _label_counts(targets: Targets) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far each row has each label: by a person, and by the LLM."""
    n_classes = len(targets.classes)
    if not targets.multilabel:
        human = (targets.human[:, None] == np.arange(n_classes)).astype(np.float64)
    else:
        human = np.hstack([targets.human == 1, targets.human == 0]).astype(np.float64)
    if targets.scores is None:
        return human, np.zeros((len(human), n_classes))
    return human, np.nan_to_num(targets.scores).astype(np.float64)


# -- fits -----------------------------------------------------------------------------------


def _check_training_labels(
    targets: Targets, usable: NDArray[np.int64], takes_llm: bool, fold: int
) -> None:
    if not len(usable):
        raise ValueError(
            f"all labels are in the dialogues of fold {fold}, so that nothing is left to train "
            "on; label utterances of more dialogues"
        )
    if takes_llm or targets.multilabel:
        return
    found = np.unique(targets.human[usable])
    if len(found) < 2:
        raise ValueError(
            f"the dialogues outside fold {fold} hold human labels of one class only, "
            f"{targets.classes[found[0]].item()!r}, so that no classifier can be trained on "
            "them; label utterances of more dialogues"
        )


def _usable(rows: LabelledRows, takes_llm: bool) -> NDArray[np.bool_]:
    """Rows that a student can learn from."""
    if takes_llm:
        return rows.targets.has_human | rows.targets.has_score
    return wholly_known(rows.human)


def fit_student(
    student: Any, rows: LabelledRows, train: NDArray[np.int64], takes_llm: bool
) -> None:
    """Fit it to these rows: with both kinds of labels, or to those that people have labelled."""
    if not takes_llm:
        train = train[_usable(rows, takes_llm)[train]]
        human = rows.human[train]
        # typed again, as numbers that are objects are refused
        labels = np.asarray(human.tolist())
        student.fit(take(rows.X, train), labels.astype(int) if human.ndim == 2 else labels)
        return
    llm = {}
    if rows.llm is not None and rows.targets.has_score[train].any():
        llm[llm_argument(student)] = rows.llm[train]
    student.fit(take(rows.X, train), rows.human[train], **llm)


def llm_argument(estimator: Any) -> str:
    """The name under which fit passes ``y_llm`` on to the final estimator."""
    prefix = ""
    while not get_config()["enable_metadata_routing"]:
        if hasattr(estimator, "steps"):
            name, estimator = estimator.steps[-1]
            prefix += f"{name}__"
        elif hasattr(estimator, "estimator"):
            estimator = estimator.estimator
        else:
            break
    return f"{prefix}y_llm"


def _aligned(predicted: Any, student: Any, targets: Targets) -> NDArray[np.float64]:
    """Probabilities with a column for each of all classes."""
    if isinstance(predicted, list):
        raise TypeError(
            f"predict_proba of {type(student).__name__} returns a list with an array per label; "
            "wrap the classifier in OneVsRestClassifier"
        )
    predicted = np.asarray(predicted, dtype=np.float64)
    if targets.multilabel:
        return predicted
    return in_classes(predicted, student.classes_, targets.classes)

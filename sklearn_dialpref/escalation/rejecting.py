"""Which utterances get no answer, as they are unlike all that the student was trained on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._labels.targets import Targets
from sklearn_dialpref.inspection.labelled_rows import LabelledRows, take
from sklearn_dialpref.inspection.out_of_fold import students_of_folds

from .novelty import ClassNeighbours, novelty_scores, p_values
from .rules import Rule

__all__ = ["Rejection", "RejectsUnknown", "out_of_fold", "rejected_out_of_fold"]

Scores = NDArray[np.float64]
Codes = NDArray[np.int64]
Embed = Callable[[Any], NDArray[np.float32]]

MOST_ROWS = 20_000  # that utterances are compared with; more would hardly be nearer
PART = 10_000  # rows whose embeddings are in memory


@dataclass(frozen=True, eq=False)
class Rejection:
    """What new utterances are compared with.

    Attributes
    ----------
    neighbours : ClassNeighbours
        Training utterances with a label.
    known : ndarray
        Novelty scores of utterances with a label, whose dialogues were left out; sorted.
    threshold : float
        The share of known utterances that is rejected.
    """

    neighbours: ClassNeighbours
    known: Scores
    threshold: float

    def p_values(self, embed: Embed, X: Any, proba: Scores) -> Scores:
        """The share of known utterances that are at least as novel as each of these."""
        scores = scores_of_rows(self.neighbours, embed, X, np.arange(len(proba)), proba)
        return p_values(scores, self.known)


class RejectsUnknown:
    """Mixin that lets a classifier with a student take utterances for unknown."""

    classes_: NDArray[Any]
    student_: Any
    reject_threshold: float | None
    _rejection: Rejection | None
    _rule: Rule

    def novelty(self, X: Any) -> NDArray[np.float64]:
        """How unlike the labelled utterances of ``fit`` each utterance is.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str, of n rows
            As for :meth:`predict`.

        Returns
        -------
        ndarray of shape (n,)
            The share of known utterances that are less novel, below 1. It is rejected from
            ``1 - reject_threshold`` on.

        Raises
        ------
        NotFittedError
            If it is not fitted.
        ValueError
            If `reject_threshold` was None.
        """
        proba = self._student_proba(X)
        if self._rejection is None:
            raise ValueError(
                "novelty is learned with reject_threshold only; set it, and fit again"
            )
        return 1 - self._rejection.p_values(self.student_.embed, X, proba)

    def _student_proba(self, X: Any) -> Scores:
        raise NotImplementedError

    def _is_unknown(self, X: Any, proba: Scores) -> NDArray[np.bool_]:
        """Which of these utterances are unlike all with a label."""
        if self._rejection is None:
            return np.zeros(len(proba), dtype=bool)
        p_values = self._rejection.p_values(self.student_.embed, X, proba)
        return p_values <= self._rejection.threshold

    def _asked(self, X: Any, proba: Scores) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which are passed on to the teacher or a person, and which are taken for unknown."""
        unknown = self._is_unknown(X, proba)
        return self._rule.escalates(proba) & ~unknown, unknown

    def _fit_rejection(
        self, rows: LabelledRows, order: Codes, novelty: Scores
    ) -> Rejection | None:
        if self.reject_threshold is None:
            return None
        goal = self.classes_, novelty, self.reject_threshold
        return fit_rejection(self.student_, rows, order, *goal)


def check_embeds(student: Any) -> None:
    """Refuse a student that gives no embeddings."""
    if not hasattr(student, "embed"):
        raise TypeError(
            "reject_threshold needs a student with embed(X), such as a "
            f"DialoguePreferenceClassifier, but {type(student).__name__} has none; pass "
            "reject_threshold=None or another student"
        )


def out_of_fold(
    estimator: Any, rows: LabelledRows, cv: int, takes_llm: bool, reject_threshold: float | None
) -> tuple[Scores, Scores]:
    """Probabilities and novelty scores by students that have not seen the dialogue.

    Parameters
    ----------
    estimator : classifier
        A student; it is cloned.
    rows : LabelledRows
    cv : int
        Number of folds, those of :func:`~sklearn_dialpref.inspection.out_of_fold_proba`.
    takes_llm : bool
        Whether the student learns from LLM labels.
    reject_threshold : float or None
        None: no novelty scores.

    Returns
    -------
    proba : ndarray of shape (n, n_classes)
        What ``out_of_fold_proba`` gives.
    novelty : ndarray of shape (n,)
        NaN for rows without a label, and for some where there are very many.
    """
    if reject_threshold is not None:
        check_embeds(estimator)
    targets, labels = rows.targets, known_labels(rows.targets)
    proba, novelty = np.empty((len(labels), len(targets.classes))), np.full(len(labels), np.nan)
    for fold in students_of_folds(estimator, rows, cv, takes_llm):
        proba[fold.test] = fold.proba
        if reject_threshold is None:
            continue
        neighbours = fit_neighbours(fold.student, rows, labels, fold.train, proba.shape[1])
        known = some(fold.test[labels[fold.test] >= 0], MOST_ROWS // cv)
        embed = fold.student.embed
        novelty[known] = scores_of_rows(neighbours, embed, rows.X, known, proba[known])
    return proba, novelty


def rejected_out_of_fold(scores: Scores, threshold: float | None) -> NDArray[np.bool_]:
    """Which of the rows with these scores would be rejected; none without a score."""
    has_score = ~np.isnan(scores)
    rejected = np.zeros(len(scores), dtype=bool)
    if threshold is None:
        return rejected
    rejected[has_score] = p_values(scores[has_score], known_scores(scores)) <= threshold
    return rejected


def known_scores(scores: Scores) -> Scores:
    return np.sort(scores[~np.isnan(scores)])


def fit_rejection(
    student: Any,
    rows: LabelledRows,
    order: Codes,
    classes: NDArray[Any],
    scores: Scores,
    threshold: float,
) -> Rejection:
    """What new utterances are compared with.

    Parameters
    ----------
    student : classifier
        Fitted on all rows.
    rows : LabelledRows
    order : ndarray of int
        The rows in an order of their own.
    classes : ndarray of shape (n_classes,)
        Those of the labels, and maybe others.
    scores : ndarray of shape (n,)
        The novelty that :func:`out_of_fold` gave.
    threshold : float

    Returns
    -------
    Rejection

    Warns
    -----
    UserWarning
        If there are too few known utterances to reject any.
    """
    known = known_scores(scores)
    if 1 / (len(known) + 1) > threshold:
        warnings.warn(
            f"reject_threshold={threshold:g} rejects nothing, as only {len(known)} utterances "
            f"have a label; label at least {int(np.ceil(1 / threshold)) - 1}",
            UserWarning,
            stacklevel=3,
        )
    labels = known_labels(rows.targets)
    labels = np.where(labels < 0, -1, np.searchsorted(classes, rows.targets.classes)[labels])
    neighbours = fit_neighbours(student, rows, labels, order, len(classes))
    return Rejection(neighbours, known, threshold)


def known_labels(targets: Targets) -> Codes:
    """The class of each row by a person, or else by the LLM; -1 without a label."""
    labels = np.where(targets.has_human, targets.human, -1)
    by_llm = targets.has_score & ~targets.has_human
    if targets.scores is not None:
        labels[by_llm] = targets.scores[by_llm].argmax(axis=1)
    return labels


def fit_neighbours(
    student: Any, rows: LabelledRows, labels: Codes, train: Codes, n_classes: int
) -> ClassNeighbours:
    """The training utterances that have a label."""
    known = some(train[labels[train] >= 0], MOST_ROWS)
    embeddings = np.concatenate([*embedded(student.embed, rows.X, known)])
    return ClassNeighbours.fit(embeddings, labels[known], n_classes)


def scores_of_rows(
    neighbours: ClassNeighbours, embed: Embed, X: Any, rows: Codes, proba: Scores
) -> Scores:
    """The novelty of these rows, whose probabilities are given."""
    scores, start = np.empty(len(rows)), 0
    for embeddings in embedded(embed, X, rows):
        part = slice(start, start + len(embeddings))
        scores[part] = novelty_scores(neighbours, embeddings, proba[part])
        start = part.stop
    return scores


def embedded(embed: Embed, X: Any, rows: Codes) -> Iterator[NDArray[np.float32]]:
    """The embeddings of rows in parts."""
    for start in range(0, len(rows), PART):
        yield embed(take(X, rows[start : start + PART]))


def some(rows: Codes, n_rows: int) -> Codes:
    """At most so many of the rows."""
    return rows[np.sort(np.random.default_rng(0).permutation(len(rows))[:n_rows])]

r"""How unlike all training utterances of its class an utterance is.

Distances are taken in the space of linear discriminant analysis, where the classes lie apart and
one is the spread within a class. Let :math:`d_c` be the distance to the fifth nearest training
utterance of class *c*, and :math:`p_c` the student's probability of it. The score is

.. math:: \sum_c p_c (d_c - \log p_c),

the expected distance and the entropy of the student's answer: an utterance is novel if those that
share its class are far away, or if none of the classes fits it.

The score of an utterance becomes a conformal p-value beside those of known utterances whose whole
dialogues were left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import pairwise_distances_chunked

__all__ = ["ClassNeighbours", "novelty_scores", "p_values"]

Scores = NDArray[np.float64]
Codes = NDArray[np.int64]

N_NEIGHBOURS = 5
# Of the covariance within the classes, towards a multiple of the identity: few utterances of a
# class do not show its covariance in hundreds of dimensions.
SHRINKAGE = 0.3
WORKING_MEMORY = 64  # MiB


@dataclass(frozen=True, eq=False)
class ClassNeighbours:
    """Training utterances by their class, in a space where the classes lie apart.

    Attributes
    ----------
    projection : LinearDiscriminantAnalysis or None
        None where too few utterances share a class: distances are those of the embeddings.
    points : ndarray of shape (n, n_components)
        The utterances, class by class.
    stops : ndarray of int, shape (n_classes,)
        Where the utterances of each class end.
    """

    projection: LinearDiscriminantAnalysis | None
    points: Scores
    stops: Codes

    @classmethod
    def fit(
        cls, embeddings: NDArray[np.floating], labels: Codes, n_classes: int
    ) -> ClassNeighbours:
        """Learn the space.

        Parameters
        ----------
        embeddings : ndarray of shape (n, n_dimensions)
        labels : ndarray of int, shape (n,)
            The class of each, below ``n_classes``. A class may have no utterance.
        n_classes : int

        Returns
        -------
        ClassNeighbours
        """
        order = np.argsort(labels, kind="stable")
        points, labels = embeddings[order].astype(np.float64), labels[order]
        projection = discriminant_analysis(points, labels)
        if projection is not None:
            points = projection.transform(points)
        return cls(projection, points, np.bincount(labels, minlength=n_classes).cumsum())

    def distances(self, embeddings: NDArray[np.floating]) -> Scores:
        """The distance of each utterance to each class, as far as its fifth nearest utterance.

        Parameters
        ----------
        embeddings : ndarray of shape (n, n_dimensions)

        Returns
        -------
        ndarray of shape (n, n_classes)
            To a class without utterances as far as to the farthest one.
        """
        points = embeddings.astype(np.float64)
        if self.projection is not None:
            points = self.projection.transform(points)
        parts = pairwise_distances_chunked(
            points, self.points, reduce_func=self._by_class, working_memory=WORKING_MEMORY
        )
        return np.concatenate(list(parts))

    def _by_class(self, distances: Scores, start: int) -> Scores:
        columns = []
        for utterances in np.split(distances, self.stops[:-1], axis=1):
            nth = min(N_NEIGHBOURS, utterances.shape[1]) - 1
            is_empty = nth < 0
            column = np.partition(utterances, nth, axis=1)[:, nth] if not is_empty else np.nan
            columns.append(np.broadcast_to(column, len(distances)))
        by_class = np.stack(columns, axis=1)
        farthest = np.nanmax(by_class, axis=1, keepdims=True)
        return np.where(np.isnan(by_class), farthest, by_class)


def discriminant_analysis(points: Scores, labels: Codes) -> LinearDiscriminantAnalysis | None:
    """The space where classes lie apart; None if the spread within the classes is not known."""
    repeated = np.bincount(labels)[labels] > 1  # the others say nothing of that spread
    if len(np.unique(labels[repeated])) < 2:
        return None
    try:
        analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage=SHRINKAGE)
        return analysis.fit(points[repeated], labels[repeated])
    except np.linalg.LinAlgError:  # all utterances of a class are the same
        return None


def novelty_scores(
    neighbours: ClassNeighbours, embeddings: NDArray[np.floating], proba: Scores
) -> Scores:
    """How unlike the training utterances of its class each utterance is.

    Parameters
    ----------
    neighbours : ClassNeighbours
    embeddings : ndarray of shape (n, n_dimensions)
    proba : ndarray of shape (n, n_classes)
        The student's probabilities.

    Returns
    -------
    ndarray of shape (n,)
        0 or more.
    """
    return np.asarray((proba * neighbours.distances(embeddings) + entr(proba)).sum(axis=1))


def p_values(scores: Scores, known: Scores) -> Scores:
    """The share of known utterances that are at least as novel, each score counted among them.

    Among known utterances it is at most *a* for a share of *a* of them.

    Parameters
    ----------
    scores : ndarray of shape (n,)
    known : ndarray of shape (m,)
        Scores of known utterances, sorted.

    Returns
    -------
    ndarray of shape (n,)
        At least ``1 / (m + 1)``.
    """
    n_as_novel = len(known) - np.searchsorted(known, scores, side="left")
    return (1 + n_as_novel) / (len(known) + 1)

"""Where a label of a multilabel problem begins: thresholds for the best F1 on human labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from .recipe import COMMON_POSITIVES, DRAWN_ROWS, THRESHOLD_DRAWS


def f1_thresholds(human: Tensor, unseen: Tensor | None, seed: int) -> NDArray[np.float64]:
    """Probability from which on each label is predicted, for the best F1.

    The threshold of the best F1 jumps from one row's score to another's when few rows are
    positive, so its mean over bootstrap draws of the rows is taken, on the scale of logits. Of a
    label that nobody has learned yet it takes in every row; so it is shrunk towards the pooled
    threshold of all labels, with a prior weight of ``COMMON_POSITIVES`` positives.

    Parameters
    ----------
    human : Tensor of shape (n, L)
        0, 1 or NaN.
    unseen : Tensor of shape (n, L), or None
        Logits of rows by students that had not seen them; NaN where there are none.
    seed : int

    Returns
    -------
    ndarray of shape (L,)
        The common one for a label without a positive example; 0.5 if none has any.
    """
    thresholds = np.zeros(human.shape[1])
    if unseen is None:
        return expit(thresholds)
    truth, scores = human.numpy(), unseen.numpy()
    known = ~(np.isnan(truth) | np.isnan(scores))
    positive = known & (truth == 1)
    if not positive.any():
        return expit(thresholds)
    rng = np.random.RandomState(seed)
    common = _mean_best_threshold(positive[known], scores[known], rng)
    for label, rows in enumerate(known.T):
        # few positives make a threshold noisy: it shrinks towards the common one
        own, n = 0.0, positive[:, label].sum()
        if n:
            own = _mean_best_threshold(positive[rows, label], scores[rows, label], rng)
        thresholds[label] = (n * own + COMMON_POSITIVES * common) / (n + COMMON_POSITIVES)
    return expit(thresholds)


def _mean_best_threshold(
    truth: NDArray[np.bool_], score: NDArray[np.floating], rng: np.random.RandomState
) -> float:
    """Mean over bootstrap draws of the score from which on a prediction has the best F1."""
    n = len(truth)
    order = np.argsort(-score, kind="stable")
    truth, score = truth[order], score[order].astype(np.float64)
    # halfway to the next score; there is none between equal ones, and the last takes all rows
    between = np.append((score[:-1] + score[1:]) / 2, score[-1])
    possible = np.append(score[:-1] > score[1:], True)
    n_draws = min(THRESHOLD_DRAWS, DRAWN_ROWS // n)
    weight = np.ones((1, n))
    if n_draws > 1:
        weight = rng.multinomial(n, np.full(n, 1 / n), size=n_draws).astype(np.float64)
        # a draw without a positive row has no best F1
        weight = weight[weight[:, truth].any(axis=1)]
    true_positives, predicted = np.cumsum(weight * truth, axis=1), np.cumsum(weight, axis=1)
    f1 = np.where(
        possible, 2 * true_positives / np.maximum(predicted + true_positives[:, -1:], 1), -1.0
    )
    best = between[f1.argmax(axis=1)]
    return float(best.mean()) if len(best) else 0.0

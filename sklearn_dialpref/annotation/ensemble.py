"""Many answers to one question as one score per class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.model_selection import GroupKFold

__all__ = [
    "Combination",
    "agreement",
    "combine",
    "fit_bias",
    "fit_combination",
    "held_out_losses",
    "plain",
    "votes",
    "weighted_mean",
]

Scores = NDArray[np.float64]

FLOOR = 0.01  # added to each score before its logarithm: a vote that nobody gave is not impossible
MOST_LOG_TEMPERATURE = 3.0
PENALTY = 0.02  # on squared parameters, per parameter and as a share of a nat per row
FOLDS = 5
FEWEST_ROWS = 20  # labels below which nothing is learned
FEWEST_DIALOGUES = 5


@dataclass(frozen=True)
class Combination:
    """How the answers of an ensemble become one distribution.

    Attributes
    ----------
    weights : ndarray of shape (A,)
        Of the members, summing to 1.
    temperature : float
        Divides the logarithm of the mean score.
    bias : ndarray of shape (K,)
        Added to it; sums to 0.
    """

    weights: Scores
    temperature: float
    bias: Scores

    @classmethod
    def plain(cls, n_members: int, n_classes: int) -> Combination:
        """The mean of the members."""
        return cls(np.full(n_members, 1 / n_members), 1.0, np.zeros(n_classes))


plain = Combination.plain


def weighted_mean(scores: Scores, weights: Scores) -> Scores:
    """Mean over the members that answered; NaN where none did.

    Parameters
    ----------
    scores : ndarray of shape (n, A, K)
        NaN where a member gave no answer.
    weights : ndarray of shape (A,)

    Returns
    -------
    ndarray of shape (n, K)
    """
    given = ~np.isnan(scores[:, :, 0]) * weights
    total = given.sum(axis=1, keepdims=True)
    summed = np.einsum("na,nak->nk", given, np.nan_to_num(scores))
    with np.errstate(invalid="ignore", divide="ignore"):
        return summed / total


def combine(scores: Scores, how: Combination) -> Scores:
    """The distribution of each row; NaN where no member answered.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dialpref.annotation.ensemble import Combination, combine
    >>> scores = np.array([[[1.0, 0.0], [0.5, 0.5]], [[np.nan, np.nan], [0.2, 0.8]]])
    >>> combine(scores, Combination.plain(2, 2))
    array([[0.75, 0.25],
           [0.2 , 0.8 ]])
    """
    mean = weighted_mean(scores, how.weights)
    if how.temperature == 1 and not how.bias.any():
        return mean
    return softmax(np.log(mean + FLOOR) / how.temperature + how.bias, axis=1)


def votes(scores: Scores, classes: NDArray[Any]) -> NDArray[Any]:
    """The likeliest class of each member, of object; None where a member gave no answer.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dialpref.annotation.ensemble import votes
    >>> votes(np.array([[[0.9, 0.1], [np.nan, np.nan]]]), np.array(["no", "yes"])).tolist()
    [['no', None]]
    """
    labels = classes.astype(object)[np.nan_to_num(scores).argmax(axis=2)]
    labels[np.isnan(scores[:, :, 0])] = None
    return labels


def agreement(scores: Scores) -> Scores:
    """Share of the members with an answer that vote for the commonest class; NaN where none.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dialpref.annotation.ensemble import agreement
    >>> agreement(np.array([[[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]])).round(2)
    array([0.67])
    """
    given = ~np.isnan(scores[:, :, 0])
    best = np.nan_to_num(scores).argmax(axis=2)
    counts = np.stack([((best == label) & given).sum(axis=1) for label in range(scores.shape[2])])
    with np.errstate(invalid="ignore"):
        return counts.max(axis=0) / given.sum(axis=1)


def fit_combination(
    scores: Scores,
    y: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    weights: bool = True,
    temperature: bool = True,
    bias: bool = True,
    seed: int = 0,
) -> Combination:
    """The combination that human labels speak for; the plain mean unless they clearly do.

    Temperature, then a bias per class, then weights of the members are added as long as
    cross-validation over dialogues finds the log-loss of held-out rows to fall by more than one
    standard error.

    Parameters
    ----------
    scores : ndarray of shape (n, A, K)
        NaN where a member gave no answer; rows without any are left out.
    y : ndarray of int, shape (n,)
        Position of the human label among the classes.
    groups : ndarray of int, shape (n,)
        Dialogue of each row.
    weights, temperature, bias : bool, default=True
        What may be learned.
    seed : int, default=0
        Of the folds.

    Returns
    -------
    Combination
    """
    answered = ~np.isnan(scores[:, :, 0]).all(axis=1)
    scores, y, groups = scores[answered], y[answered], groups[answered]
    n_members, n_classes = scores.shape[1:]
    chosen: tuple[str, ...] = ()
    if len(y) < FEWEST_ROWS or len(np.unique(groups)) < FEWEST_DIALOGUES:
        return Combination.plain(n_members, n_classes)
    allowed = {"temperature": temperature, "bias": bias, "weights": weights and n_members > 1}
    losses = held_out_losses(scores, y, groups, chosen, seed)
    for part in (name for name, on in allowed.items() if on):
        tried = held_out_losses(scores, y, groups, (*chosen, part), seed)
        gain = losses - tried
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
            chosen, losses = (*chosen, part), tried
    return _fit(scores, y, chosen)


def fit_bias(scores: Scores, y: NDArray[np.int64]) -> Combination:
    """Temperature and a bias per class, for the least log-loss on human labels.

    Parameters
    ----------
    scores : ndarray of shape (n, A, K)
        Each row has an answer.
    y : ndarray of int, shape (n,)
        Position of the human label among the classes.

    Returns
    -------
    Combination
        All members weigh the same.
    """
    return _fit(scores, y, ("temperature", "bias"))


def held_out_losses(
    scores: Scores,
    y: NDArray[np.int64],
    groups: NDArray[np.int64],
    parts: tuple[str, ...],
    seed: int,
) -> Scores:
    """Log-loss of each row under a combination that was learned from other dialogues.

    Parameters
    ----------
    scores : ndarray of shape (n, A, K)
        Each row has an answer.
    y : ndarray of int, shape (n,)
        Position of the human label among the classes.
    groups : ndarray of int, shape (n,)
        Dialogue of each row, of at least five.
    parts : tuple of {"temperature", "bias", "weights"}
        What is learned.
    seed : int
        Of the folds.

    Returns
    -------
    ndarray of shape (n,)
    """
    losses = np.empty(len(y))
    for train, test in GroupKFold(FOLDS, shuffle=True, random_state=seed).split(y, y, groups):
        how = _fit(scores[train], y[train], parts)
        losses[test] = _losses(scores[test], y[test], how)
    return losses


def _losses(scores: Scores, y: NDArray[np.int64], how: Combination) -> Scores:
    logits = np.log(weighted_mean(scores, how.weights) + FLOOR) / how.temperature + how.bias
    return -log_softmax(logits, axis=1)[np.arange(len(y)), y]


def _fit(scores: Scores, y: NDArray[np.int64], parts: tuple[str, ...]) -> Combination:
    """Least mean log-loss, with a ridge towards the plain mean."""
    n_members, n_classes = scores.shape[1:]
    sizes = {"temperature": 1, "bias": n_classes, "weights": n_members}
    initial = np.zeros(sum(sizes[part] for part in parts))
    if not len(initial):
        return Combination.plain(n_members, n_classes)

    def unpack(values: Scores) -> Combination:
        by_part = {part: np.zeros(size) for part, size in sizes.items()}
        start = 0
        for part in parts:
            by_part[part] = values[start : start + sizes[part]]
            start += sizes[part]
        log_temperature = np.clip(
            by_part["temperature"][0], -MOST_LOG_TEMPERATURE, MOST_LOG_TEMPERATURE
        )
        bias = by_part["bias"] - by_part["bias"].mean()
        return Combination(softmax(by_part["weights"]), float(np.exp(log_temperature)), bias)

    def objective(values: Scores) -> tuple[float, Scores]:
        how = unpack(values)
        loss, by_part = _loss_and_gradient(scores, y, how)
        if abs(np.log(how.temperature)) >= MOST_LOG_TEMPERATURE:
            by_part["temperature"] = np.zeros(1)
        gradient = np.concatenate([by_part[part] for part in parts])
        return loss + PENALTY * (values**2).sum(), gradient + 2 * PENALTY * values

    return unpack(minimize(objective, initial, method="L-BFGS-B", jac=True).x)


def _loss_and_gradient(
    scores: Scores, y: NDArray[np.int64], how: Combination
) -> tuple[float, dict[str, Scores]]:
    """Mean log-loss, and its gradient: in log temperature, bias and the logits of the weights."""
    rows = np.arange(len(y))
    mean = weighted_mean(scores, how.weights)
    scaled = np.log(mean + FLOOR) / how.temperature
    logs = log_softmax(scaled + how.bias, axis=1)
    of_logits = np.exp(logs)
    of_logits[rows, y] -= 1
    of_logits /= len(y)
    given = ~np.isnan(scores[:, :, 0])
    of_mean = of_logits / (how.temperature * (mean + FLOOR))
    of_mean /= (given * how.weights).sum(axis=1, keepdims=True)
    pulls = np.einsum("nk,nak->na", of_mean, np.nan_to_num(scores))
    of_weights = (given * (pulls - (of_mean * mean).sum(axis=1, keepdims=True))).sum(axis=0)
    return float(-logs[rows, y].mean()), {
        "temperature": np.array([-(of_logits * scaled).sum()]),
        "bias": of_logits.sum(axis=0),
        "weights": how.weights * (of_weights - how.weights @ of_weights),
    }

"""What the human labels tell about the teacher: is it of use, and is it biased to a class."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from torch import Tensor
from torch.nn.functional import logsigmoid

from sklearn_dialpref.annotation.ensemble import Combination, combine, fit_bias

from .batches import Rows
from .recipe import (
    BIAS_DRAWS,
    BIAS_FOLDS,
    FEWEST_TO_JUDGE,
    GRAVE,
    SIGNIFICANT,
    SMALL_EFFECT,
    SURE,
)

# -- is it of use -------------------------------------------------------------------------------


def teacher_is_useless(rows: Rows, chosen: NDArray[np.bool_], logits: Tensor) -> bool:
    """Whether neither the teacher's scores nor what a student learned from them say anything.

    Both are compared with the human labels: the scores themselves, in rows that have them, and the
    log-probabilities of the student, which knows more of a weak teacher, as it has seen all its
    labels, but nothing if it was trained too little. Neither may be significantly higher for the
    human labels than for the same labels in random order, nor by more than a small effect.

    Parameters
    ----------
    rows : Rows
    chosen : ndarray of bool, shape (n,)
        Human-labelled rows.
    logits : Tensor of shape (n_chosen, n_classes)
        Of a student that has seen the teacher's scores alone.
    """
    n = int(chosen.sum())
    if n < FEWEST_TO_JUDGE:
        return False
    truth = _human_shares(rows)[chosen]
    scores = _two_sided(rows.scores) if rows.multilabel else rows.scores[:, None]
    learned = _log_probabilities(logits, rows.multilabel)
    # of few rows a teacher of use can miss significance: there a small effect is enough
    enough = min(SIGNIFICANT, SMALL_EFFECT * n**0.5)
    stratum = None  # who can have the same classes
    if rows.possible is not None:
        stratum = rows.possible[chosen].unique(dim=0, return_inverse=True)[1]
    values = (scores[chosen], learned)
    return all(permutation_z(value, truth, stratum) < enough for value in values)


def _two_sided(shares: Tensor) -> Tensor:
    """Multilabel: (n, L) probabilities as (n, L, 2) of absence and presence."""
    return torch.stack([1 - shares, shares], dim=-1)


def _human_shares(rows: Rows) -> Tensor:
    """One-hot human labels, (n, 1, K), or (n, L, 2) for multilabel; NaN where missing."""
    if rows.multilabel:
        return _two_sided(rows.human)
    shares = torch.eye(rows.scores.shape[1])[rows.human.clamp(min=0)]
    return shares.masked_fill((rows.human < 0)[:, None], float("nan"))[:, None]


def _log_probabilities(logits: Tensor, multilabel: bool) -> Tensor:
    if multilabel:
        return torch.stack([logsigmoid(-logits), logsigmoid(logits)], dim=-1)
    return logits.log_softmax(dim=1)[:, None]


def permutation_z(values: Tensor, truth: Tensor, stratum: Tensor | None = None) -> float:
    """How far ``sum_i values[i, truth_i]`` is above its mean over permutations of the rows.

    In standard deviations, which are known for a sum of this kind (Hoeffding, "A combinatorial
    central limit theorem", 1951). Summed over the P labels as if they were independent.

    Parameters
    ----------
    values, truth : Tensor of shape (n, P, K)
        Numbers, and labels as shares; entries with NaN are left out.
    stratum : Tensor of int, shape (n,), default=None
        Rows that may change places have the same number.

    Returns
    -------
    float
        Infinite where nothing varies.
    """
    excess, variance = 0.0, 0.0
    strata = torch.zeros(len(values)) if stratum is None else stratum
    columns = zip(values.double().unbind(1), truth.double().unbind(1), strict=True)
    for (value, true), number in product(columns, strata.unique()):
        known = ~(value.isnan() | true.isnan()).any(dim=1) & (strata == number)
        value, true = value[known], true[known]
        if len(value) < 2:
            continue
        share = true.mean(dim=0)
        # centred both ways, the sum has a mean of 0 over the permutations
        value = value - (value * share).sum(dim=1, keepdim=True)
        value = value - value.mean(dim=0)
        excess += float((value * true).sum())
        variance += float((value**2 * share).sum()) * len(value) / (len(value) - 1)
    return excess / variance**0.5 if variance > 0 else float("inf")


# -- does it lean towards a class ---------------------------------------------------------------


@dataclass(frozen=True)
class TeacherBias:
    """What correcting the teacher's class bias is worth on the human-labelled rows.

    Attributes
    ----------
    correction : Combination
        Temperature and bias per class, fitted on all rows with both labels.
    gain : float
        In accuracy on held-out dialogues.
    low : float
        Lower end of its interval, over bootstrap draws of the dialogues.
    """

    correction: Combination
    gain: float
    low: float

    @property
    def counts(self) -> bool:
        """Whether it is so grave, beyond doubt, that the teacher is to be corrected."""
        return self.gain >= GRAVE and self.low > 0

    @property
    def towards(self) -> NDArray[np.float64]:
        """Log-odds by which the teacher leans towards each class, of shape (K,), summing to 0."""
        return -self.correction.bias

    def corrected(self, rows: Rows) -> Tensor:
        """The scores of the rows without the bias."""
        scores = rows.scores
        shares = torch.from_numpy(combine(scores[:, None].double().numpy(), self.correction))
        # the correction smooths: what no row was given, or this one cannot have, stays at 0
        given = (scores > 0).any(dim=0)
        shares = shares * (given if rows.possible is None else given & rows.possible)
        return (shares / shares.sum(dim=1, keepdim=True)).to(scores.dtype)


def teacher_bias(rows: Rows, seed: int) -> TeacherBias | None:
    """The teacher's bias towards classes; None for too few labels, and for multilabel problems.

    Accuracy decides, not log-loss: a teacher that gives rare classes more often than people do
    costs log-loss, but may be what finds these classes at all.
    """
    if rows.multilabel:
        return None
    both = rows.has_human & rows.has_score
    unit = rows.group[both]
    if len(np.unique(unit)) < BIAS_FOLDS:  # of few dialogues each row stands for itself
        unit = np.arange(both.sum())
    if both.sum() < FEWEST_TO_JUDGE:
        return None
    scores = rows.scores[both][:, None].double().numpy()
    truth = rows.human[both].numpy()
    right = _share_right(scores[:, 0], truth)
    # a correction always gains on the rows that it was fitted to, so others judge it
    corrected = np.empty(len(truth))
    folds = GroupKFold(min(BIAS_FOLDS, len(np.unique(unit))), shuffle=True, random_state=seed)
    for train, test in folds.split(truth, truth, unit):
        correction = fit_bias(scores[train], truth[train])
        corrected[test] = _share_right(combine(scores[test], correction), truth[test])
    gain = corrected - right
    return TeacherBias(fit_bias(scores, truth), float(gain.mean()), _low_end(gain, unit, seed))


def teacher_status(given: bool, left_out: bool, bias: TeacherBias | None) -> str:
    """In a word what became of the teacher's labels."""
    if not given:
        return "absent"
    if left_out:
        return "left out"
    return "corrected" if bias is not None and bias.counts else "used"


def _share_right(shares: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """Whether the likeliest class is the true one; a part of it where classes are equal."""
    likeliest = shares >= shares.max(axis=1, keepdims=True) - 1e-9
    return likeliest[np.arange(len(truth)), truth] / likeliest.sum(axis=1)


def _low_end(gain: NDArray[np.float64], unit: NDArray[np.int64], seed: int) -> float:
    """What the mean gain exceeds in most bootstrap draws of whole dialogues."""
    _, place, size = np.unique(unit, return_inverse=True, return_counts=True)
    total = np.bincount(place, gain)
    # rows of a dialogue resemble each other: drawn one by one they would seem too certain
    even = np.full(len(size), 1 / len(size))
    drawn = np.random.RandomState(seed).multinomial(len(size), even, size=BIAS_DRAWS)
    return float(np.quantile(drawn @ total / (drawn @ size), 1 - SURE))

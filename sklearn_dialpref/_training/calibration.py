"""Scale and level of the logits, which a loss on pairs does not identify."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

IMPOSSIBLE = -1e4  # a logit; with an infinite one, 0 · log 0 would be NaN
LARGEST_TEMPERATURE = 20.0
LEAST_MEAN = 1e-15  # of probabilities, so that a level stays finite where they round to 0 or 1
ROUNDS = 3  # of scale and level in turn; they hardly move after the first


def scale_and_shift(
    logits: Tensor, scores: Tensor, *, multilabel: bool, free: Tensor
) -> tuple[float, Tensor]:
    """Factor and constant per class that turn logits into calibrated ones.

    Parameters
    ----------
    logits : Tensor of shape (n, K)
    scores : Tensor of shape (n, K)
        Of the teacher; multilabel: NaN where it gave none.
    multilabel : bool
    free : Tensor of bool, shape (K,)
        Classes whose constant is fitted; the others' are equal.

    Returns
    -------
    scale : float
    shift : Tensor of shape (K,)
        To be added after scaling.
    """
    scale, shift = 1.0, torch.zeros(logits.shape[1], dtype=logits.dtype)
    if not free.any():
        return 1 / temperature(logits, scores, multilabel), shift
    for _ in range(ROUNDS):
        shift = level_shift(scale * logits, scores, multilabel, free)
        # the shift in units of the unscaled logits, so that both are scaled alike
        moved = logits + shift / scale
        scale = 1 / temperature(moved, scores, multilabel)
    return scale, level_shift(scale * logits, scores, multilabel, free)


def temperature(logits: Tensor, scores: Tensor, multilabel: bool) -> float:
    """What to divide the logits by, for the least cross-entropy with the scores; at least 1.

    The rows are ones that were trained on, which makes a student look surer than it may be: so
    logits are only ever cooled.
    """
    known = ~scores.isnan()

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        if multilabel:
            return float(binary_cross_entropy_with_logits(scaled[known], scores[known]))
        return float(cross_entropy(scaled, scores))

    return best_temperature(loss, 1.0)[0]


def best_temperature(loss: Callable[[float], float], least: float) -> tuple[float, float]:
    """The temperature from ``least`` on of the least loss, and that loss.

    After Guo et al., "On calibration of modern neural networks", 2017, arXiv:1706.04599.
    """
    # in logarithms, where halving and doubling are steps of one size
    bounds = (math.log(least), math.log(LARGEST_TEMPERATURE))
    best = minimize_scalar(lambda log: loss(math.exp(log)), bounds=bounds, method="bounded")
    plain = loss(1.0)
    return (math.exp(best.x), best.fun) if best.fun < plain else (1.0, plain)


def level_shift(
    logits: Tensor, scores: Tensor, multilabel: bool, free: Tensor, steps: int = 100
) -> Tensor:
    """The constant per free class that makes its mean prediction equal its mean score."""
    # 0 and 1 have no finite logit
    target = scores.nanmean(dim=0).clamp(1e-4, 1 - 1e-4)
    free = free & ~target.isnan()  # a label that the teacher never scored
    # nor a class that none of the rows can have
    free = free & (logits > IMPOSSIBLE / LARGEST_TEMPERATURE / 2).any(dim=0)
    shift = torch.zeros(logits.shape[1], dtype=logits.dtype)
    for _ in range(steps):
        if multilabel:
            mean = torch.sigmoid(logits + shift).mean(dim=0)
            step = target.logit() - mean.clamp(LEAST_MEAN, 1 - LEAST_MEAN).logit()
        else:
            mean = torch.softmax(logits + shift, dim=1).mean(dim=0)
            step = (target / mean.clamp(min=LEAST_MEAN)).log()
        shift = shift + step.where(free, 0.0)
    # a softmax does not see what all classes have in common
    return shift if multilabel else shift - shift.mean()

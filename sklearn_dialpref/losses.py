r"""Losses that teach a student from an LLM's scores.

Every loss is a pure function with one signature::

    loss(logits, scores, pairs, *, margin_scale, min_gap, smoothing, confusion, multilabel)

``logits`` and ``scores`` have one row per utterance, ``pairs`` holds row numbers of utterances
of the same dialogue. Pair losses read differences of rows, pointwise losses read rows; each
ignores what it does not need. :data:`LOSSES` maps the names that
:class:`~sklearn_dialpref.DialoguePreferenceClassifier` accepts to these functions.

Notation: :math:`f_{ic}` is the student's logit and :math:`s_{ic}` the teacher's score for class
:math:`c` of utterance :math:`i`; for a pair :math:`(i, j)`, :math:`m = s_{ic} - s_{jc}` is the gap
and :math:`d = f_{ic} - f_{jc}` the student's difference. Only entries with
:math:`|m| > \texttt{min\_gap}` count; a pair loss is the mean over them.

The noise-reduced loss is a **reconstruction** of the idea of arXiv:2503.05620 from its abstract
and summaries; no equation of that paper was available.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid, relu, softplus

__all__ = [
    "LOSSES",
    "POINTWISE",
    "conservative",
    "cross_entropy",
    "forward_corrected",
    "hinge",
    "margin_mse",
    "noise_reduced",
    "ranknet",
    "robust",
    "soft_cross_entropy",
]


Loss = TypeVar("Loss", bound=Callable[..., Tensor])

PARAMETERS = r"""
Parameters
----------
logits : Tensor of shape (n_rows, n_classes)
    The student's logits.
scores : Tensor of shape (n_rows, n_classes)
    The teacher's scores in [0, 1]; a NaN row has no score, and nothing is learned from it.
pairs : Tensor of shape (2, n_pairs)
    Row numbers of utterances of the same dialogue, for the losses that read pairs.
margin_scale : float, default=1.0
    :math:`\gamma`, in logits per unit of score, where the formula has it.
min_gap : float, default=0.0
    Score gaps up to this size are ties, and do not count in losses that read pairs.
smoothing : float, default=0.0
    Assumed probability ε in [0, 0.5) that a pair's order is wrong. Only :func:`conservative` and
    :func:`robust` use it.
confusion : Tensor of shape (n_classes, n_classes) or (n_labels, 2, 2), default=None
    :math:`T` of :func:`forward_corrected`, rows summing to 1; the only loss that uses it. The
    estimator estimates it on the rows that carry both a human and an LLM label.
multilabel : bool, default=False
    Whether each column is a label of its own; pair losses treat both cases alike.

Returns
-------
Tensor of shape ()
    Mean over the ordered (pair, class) entries or, of a pointwise loss, over the rows with a
    score (multilabel: entries); zero, connected to the graph, if there are none.
""".strip()


def _documented(loss: Loss) -> Loss:
    """Put what all losses share into the docstring of one."""
    loss.__doc__ = inspect.cleandoc(loss.__doc__ or "").replace("{parameters}", PARAMETERS)
    return loss


def _mean(values: Tensor, logits: Tensor) -> Tensor:
    """Mean of ``values``, or a zero that is still connected to the graph if there are none."""
    return values.mean() if values.numel() else logits.sum() * 0.0


def _differences(
    logits: Tensor, scores: Tensor, pairs: Tensor, min_gap: float
) -> tuple[Tensor, Tensor]:
    """Gaps ``m`` and differences ``d`` of the ordered (pair, class) entries, flat."""
    i, j = pairs
    gap = scores[i] - scores[j]
    ordered = gap.abs() > min_gap  # False for NaN: an unscored row orders nothing
    return gap[ordered], (logits[i] - logits[j])[ordered]


def _agreement(
    logits: Tensor, scores: Tensor, pairs: Tensor, min_gap: float
) -> tuple[Tensor, Tensor]:
    """``|m|`` and ``sign(m) d``: the size of the gap, and how far the student agrees."""
    gap, difference = _differences(logits, scores, pairs, min_gap)
    return gap.abs(), gap.sign() * difference


@_documented
def noise_reduced(
    logits: Tensor,
    scores: Tensor,
    pairs: Tensor,
    *,
    margin_scale: float = 1.0,
    min_gap: float = 0.0,
    smoothing: float = 0.0,
    confusion: Tensor | None = None,
    multilabel: bool = False,
) -> Tensor:
    r"""Logistic preference loss with the score gap as adaptive margin.

    .. math:: \operatorname{softplus}(\gamma |m| - \operatorname{sign}(m)\, d)

    A bias that the teacher carries through a dialogue, or towards a class, cancels in ``m``.

    {parameters}

    References
    ----------
    Reconstruction of Liu et al., arXiv:2503.05620; the margin follows Llama 2, arXiv:2307.09288,
    and Secrets of RLHF II, arXiv:2401.06080.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dialpref.losses import noise_reduced
    >>> logits = torch.tensor([[2.0], [0.0]])
    >>> scores = torch.tensor([[0.9], [0.4]])
    >>> round(noise_reduced(logits, scores, torch.tensor([[0], [1]])).item(), 4)
    0.2014
    """
    # gaps of scores are 1 at most, differences of logits are not: the scale makes one the other
    size, agreement = _agreement(logits, scores, pairs, min_gap)
    return _mean(softplus(margin_scale * size - agreement), logits)


@_documented
def hinge(
    logits: Tensor,
    scores: Tensor,
    pairs: Tensor,
    *,
    margin_scale: float = 1.0,
    min_gap: float = 0.0,
    smoothing: float = 0.0,
    confusion: Tensor | None = None,
    multilabel: bool = False,
) -> Tensor:
    r"""Hinge preference loss with the score gap as adaptive margin.

    .. math:: \max(0,\; \gamma |m| - \operatorname{sign}(m)\, d)

    {parameters}

    References
    ----------
    Herbrich, Graepel & Obermayer, "Large margin rank boundaries for ordinal regression", 2000.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dialpref.losses import hinge
    >>> logits, scores = torch.tensor([[0.2], [0.0]]), torch.tensor([[1.0], [0.0]])
    >>> round(hinge(logits, scores, torch.tensor([[0], [1]])).item(), 4)
    0.8
    """
    size, agreement = _agreement(logits, scores, pairs, min_gap)
    return _mean(relu(margin_scale * size - agreement), logits)


@_documented
def ranknet(
    logits: Tensor,
    scores: Tensor,
    pairs: Tensor,
    *,
    margin_scale: float = 1.0,
    min_gap: float = 0.0,
    smoothing: float = 0.0,
    confusion: Tensor | None = None,
    multilabel: bool = False,
) -> Tensor:
    r"""RankNet: cross-entropy of the order against the soft target :math:`\sigma(\gamma m)`.

    .. math:: \operatorname{softplus}(d) - \sigma(\gamma m)\, d

    {parameters}

    References
    ----------
    Burges et al., "Learning to rank using gradient descent", ICML 2005.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dialpref.losses import ranknet
    >>> logits, scores = torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [0.0]])
    >>> round(ranknet(logits, scores, torch.tensor([[0], [1]])).item(), 4)
    0.6931
    """
    gap, difference = _differences(logits, scores, pairs, min_gap)
    return _mean(softplus(difference) - torch.sigmoid(margin_scale * gap) * difference, logits)


@_documented
def margin_mse(
    logits: Tensor,
    scores: Tensor,
    pairs: Tensor,
    *,
    margin_scale: float = 1.0,
    min_gap: float = 0.0,
    smoothing: float = 0.0,
    confusion: Tensor | None = None,
    multilabel: bool = False,
) -> Tensor:
    r"""MarginMSE: the student's difference is regressed on the teacher's gap.

    .. math:: (d - \gamma m)^2

    {parameters}

    References
    ----------
    Hofstätter et al., "Improving efficient neural ranking models with cross-architecture
    knowledge distillation", arXiv:2010.02666.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dialpref.losses import margin_mse
    >>> logits, scores = torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0], [0.0]])
    >>> margin_mse(logits, scores, torch.tensor([[0], [1]])).item()
    1.0
    """
    gap, difference = _differences(logits, scores, pairs, min_gap)
    return _mean((difference - margin_scale * gap).square(), logits)


@_documented
def conservative(
    logits: Tensor,
    scores: Tensor,
    pairs: Tensor,
    *,
    margin_scale: float = 1.0,
    min_gap: float = 0.0,
    smoothing: float = 0.0,
    confusion: Tensor | None = None,
    multilabel: bool = False,
) -> Tensor:
    r"""Noise-reduced loss with label smoothing: each order is assumed wrong with probability ε.

    .. math:: (1 - ε)\,\ell(m) + ε\,\ell(-m), \qquad
              \ell(m) = \operatorname{softplus}(\gamma |m| - \operatorname{sign}(m)\, d)


    {parameters}

    References
    ----------
    cDPO: Mitchell, "A note on DPO with noisy preferences & relationship to IPO", 2023.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dialpref.losses import conservative
    >>> logits, scores = torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0], [0.0]])
    >>> round(conservative(logits, scores, torch.tensor([[0], [1]]), smoothing=0.1).item(), 4)
    0.5868
    """
    size, agreement = _agreement(logits, scores, pairs, min_gap)
    as_ordered = softplus(margin_scale * size - agreement)
    flipped = softplus(margin_scale * size + agreement)
    return _mean((1 - smoothing) * as_ordered + smoothing * flipped, logits)


@_documented
def robust(
    logits: Tensor,
    scores: Tensor,
    pairs: Tensor,
    *,
    margin_scale: float = 1.0,
    min_gap: float = 0.0,
    smoothing: float = 0.0,
    confusion: Tensor | None = None,
    multilabel: bool = False,
) -> Tensor:
    r"""Noise-reduced loss, unbiased when each order is flipped with probability ε.

    .. math:: \frac{(1 - ε)\,\ell(m) - ε\,\ell(-m)}{1 - 2ε}, \qquad
              \ell(m) = \operatorname{softplus}(\gamma |m| - \operatorname{sign}(m)\, d)

    Its expectation over flips is the clean loss. Unlike the others it can be negative.

    {parameters}

    References
    ----------
    rDPO: Chowdhury, Kini & Natarajan, "Provably robust DPO: aligning language models with noisy
    feedback", arXiv:2403.00409.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dialpref.losses import robust
    >>> logits, scores = torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0], [0.0]])
    >>> round(robust(logits, scores, torch.tensor([[0], [1]]), smoothing=0.1).item(), 4)
    -0.0287
    """
    size, agreement = _agreement(logits, scores, pairs, min_gap)
    as_ordered = softplus(margin_scale * size - agreement)
    flipped = softplus(margin_scale * size + agreement)
    return _mean(
        ((1 - smoothing) * as_ordered - smoothing * flipped) / (1 - 2 * smoothing), logits
    )


def _distillation(logits: Tensor, targets: Tensor, multilabel: bool) -> Tensor:
    """Cross-entropy of ``logits`` against soft targets; rows or entries with NaN are left out."""
    if multilabel:
        known = ~targets.isnan()
        target, logit = targets[known], logits[known]
        return _mean(-target * logsigmoid(logit) - (1 - target) * logsigmoid(-logit), logits)
    known = ~targets.isnan().any(dim=1)
    return _mean(-(targets[known] * log_softmax(logits[known], dim=1)).sum(dim=1), logits)


@_documented
def soft_cross_entropy(
    logits: Tensor,
    scores: Tensor,
    pairs: Tensor,
    *,
    margin_scale: float = 1.0,
    min_gap: float = 0.0,
    smoothing: float = 0.0,
    confusion: Tensor | None = None,
    multilabel: bool = False,
) -> Tensor:
    r"""Ordinary distillation: cross-entropy against the teacher's scores.

    .. math:: -\sum_c s_{ic} \log \operatorname{softmax}(f_i)_c

    Multilabel: the mean binary cross-entropy over the known entries. Pairs, margins, smoothing
    and confusion are not used.

    {parameters}

    References
    ----------
    Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dialpref.losses import soft_cross_entropy
    >>> scores = torch.tensor([[0.5, 0.5]])
    >>> none = torch.empty(2, 0, dtype=torch.long)
    >>> round(soft_cross_entropy(torch.zeros(1, 2), scores, none).item(), 4)
    0.6931
    """
    return _distillation(logits, scores, multilabel)


@_documented
def cross_entropy(
    logits: Tensor,
    scores: Tensor,
    pairs: Tensor,
    *,
    margin_scale: float = 1.0,
    min_gap: float = 0.0,
    smoothing: float = 0.0,
    confusion: Tensor | None = None,
    multilabel: bool = False,
) -> Tensor:
    r"""Cross-entropy against the teacher's hard label, the class of the highest score.

    .. math:: -\log \operatorname{softmax}(f_i)_{\operatorname{argmax}_c s_{ic}}

    Classes that tie for the highest score share the target. Multilabel: scores of at least 0.5
    count as present. Pairs, margins, smoothing and confusion are not used.

    {parameters}

    Examples
    --------
    >>> import torch
    >>> from sklearn_dialpref.losses import cross_entropy
    >>> none = torch.empty(2, 0, dtype=torch.long)
    >>> loss = cross_entropy(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.4]]), none)
    >>> round(loss.item(), 4)
    0.3133
    """
    if multilabel:
        hard = (scores >= 0.5).to(scores.dtype)
        return _distillation(logits, hard.where(~scores.isnan(), scores), multilabel)
    # votes tie often; the first of the tied classes would get all of them
    best = (scores == scores.amax(dim=1, keepdim=True)).to(scores.dtype)
    hard = best / best.sum(dim=1, keepdim=True)
    return _distillation(logits, hard.where(~scores.isnan(), scores), multilabel)


@_documented
def forward_corrected(
    logits: Tensor,
    scores: Tensor,
    pairs: Tensor,
    *,
    margin_scale: float = 1.0,
    min_gap: float = 0.0,
    smoothing: float = 0.0,
    confusion: Tensor | None = None,
    multilabel: bool = False,
) -> Tensor:
    r"""Distillation through the teacher's confusion matrix ("forward" loss correction).

    .. math:: -\sum_l s_{il} \log \sum_k \operatorname{softmax}(f_i)_k \, T_{kl},
              \qquad T_{kl} = P(\text{teacher says } l \mid \text{true class } k)

    Multilabel: the same with two classes per label. Pairs, margins and smoothing are not used.

    {parameters}

    Raises
    ------
    ValueError
        If ``confusion`` is None.

    References
    ----------
    Patrini et al., "Making deep neural networks robust to label noise: a loss correction
    approach", arXiv:1609.03683.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dialpref.losses import forward_corrected
    >>> confusion = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    >>> none = torch.empty(2, 0, dtype=torch.long)
    >>> loss = forward_corrected(
    ...     torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), none, confusion=confusion
    ... )
    >>> round(loss.item(), 4)
    0.5978
    """
    if confusion is None:
        raise ValueError(
            "loss 'forward_corrected' needs the teacher's confusion matrix, but got "
            "confusion=None; it is estimated on rows that carry both a human and an LLM label"
        )
    # a probability that rounds to 0 has no finite logarithm, and 0 · log 0 would be NaN
    tiny = torch.finfo(logits.dtype).tiny
    if multilabel:
        known = ~scores.isnan()
        student = torch.sigmoid(logits)
        predicted = (1 - student) * confusion[:, 0, 1] + student * confusion[:, 1, 1]
        target, predicted = scores[known], predicted[known]
        yes, no = predicted.clamp_min(tiny).log(), (1 - predicted).clamp_min(tiny).log()
        return _mean(-target * yes - (1 - target) * no, logits)
    known = ~scores.isnan().any(dim=1)
    predicted = torch.softmax(logits[known], dim=1) @ confusion
    return _mean(-(scores[known] * predicted.clamp_min(tiny).log()).sum(dim=1), logits)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "noise_reduced": noise_reduced,
    "hinge": hinge,
    "ranknet": ranknet,
    "margin_mse": margin_mse,
    "conservative": conservative,
    "robust": robust,
    "soft_cross_entropy": soft_cross_entropy,
    "cross_entropy": cross_entropy,
    "forward_corrected": forward_corrected,
}
"""The losses by name."""

POINTWISE = frozenset({"soft_cross_entropy", "cross_entropy", "forward_corrected"})
"""Names of the losses that read rows and not pairs."""

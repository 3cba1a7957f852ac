"""A simulated large language model: votes whose noise has known parts."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length, check_random_state, check_scalar, column_or_1d


def simulate_votes(
    y: ArrayLike,
    groups: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    n_votes: int = 5,
    signal: float = 2.0,
    class_bias: float | ArrayLike = 0.5,
    dialogue_bias: float = 0.5,
    noise: float = 0.5,
    vote_noise: float = 0.5,
    random_state: int | np.random.RandomState | None = None,
) -> NDArray[Any]:
    r"""Votes of a simulated LLM that labels each utterance with several prompts.

    Vote :math:`v` of utterance :math:`i`, which has the true class :math:`y_i` and stands in
    dialogue :math:`g(i)`, is

    .. math::

        \mathrm{vote}_{iv} = \arg\max_c \left[
            a \, 1\{y_i = c\} + b_c + d_{g(i), c} + e_{ic} + u_{ivc} \right]

    ====================  =====================================================================
    term                  meaning and distribution
    ====================  =====================================================================
    :math:`a`             what the LLM understands: the constant `signal`
    :math:`b_c`           bias towards a class, the same everywhere: normal, then shifted and
                          scaled to mean 0 and standard deviation `class_bias` over the classes
    :math:`d_{g, c}`      bias that lasts through one dialogue: normal with standard deviation
                          `dialogue_bias`, shared by all utterances of the dialogue
    :math:`e_{ic}`        an utterance that is hard in itself: normal with standard deviation
                          `noise`, shared by all votes on the utterance
    :math:`u_{ivc}`       a single answer: Gumbel with scale `vote_noise`
    ====================  =====================================================================

    The Gumbel term makes each vote a draw from the softmax of the other four terms divided by
    `vote_noise`, which is thus the sampling temperature of the LLM.

    All parts are drawn whatever their scale. With one seed, setting a scale to 0 removes that
    part and leaves the draws of the others as they were.

    Parameters
    ----------
    y : array-like of shape (n_utterances,)
        True labels, none missing.
    groups : array-like of shape (n_utterances,)
        The dialogue of each utterance.
    classes : array-like of shape (n_classes,), default=None
        All labels that the LLM may answer. None: the sorted distinct values of `y`.
    n_votes : int, default=5
        Number of votes (prompts) for each utterance.
    signal : float, default=2.0
        Advantage of the true class, in logits. 0 is an LLM that understands nothing.
    class_bias : float or array-like of shape (n_classes,), default=0.5
        Standard deviation of the bias over the classes, in logits, or the bias of each class in
        the order of `classes`.
    dialogue_bias : float, default=0.5
        Standard deviation of the bias per dialogue and class, in logits.
    noise : float, default=0.5
        Standard deviation of the noise per utterance and class, in logits.
    vote_noise : float, default=0.5
        Scale of the noise per vote and class, in logits. 0: all votes on an utterance agree.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws. An int gives the same votes on every machine.

    Returns
    -------
    votes : ndarray of shape (n_utterances, n_votes)
        Labels, of the type of `classes`.

    Raises
    ------
    ValueError
        If `y` has a label that is not in `classes`, there are fewer than two classes, lengths
        differ, or a parameter is out of range.

    See Also
    --------
    make_dialogues : Dialogues together with such votes.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dialpref.datasets import simulate_votes
    >>> y = np.tile(["negative", "neutral", "positive"], 200)
    >>> dialogue = np.repeat(np.arange(60), 10)
    >>> votes = simulate_votes(y, dialogue, class_bias=[0.0, 1.0, 0.0], random_state=0)
    >>> votes.shape
    (600, 5)
    >>> [round(float(np.mean(votes == c)), 2) for c in ("negative", "neutral", "positive")]
    [0.29, 0.47, 0.25]
    """
    check_consistent_length(y, groups)
    label_set, y_code = _encode(column_or_1d(y), classes)
    _, group = np.unique(column_or_1d(groups), return_inverse=True)
    check_scalar(n_votes, "n_votes", Integral, min_val=1)
    scales = {
        "signal": signal,
        "dialogue_bias": dialogue_bias,
        "noise": noise,
        "vote_noise": vote_noise,
    }
    for name, scale in scales.items():
        check_scale(scale, name)

    n, n_classes = len(y_code), len(label_set)
    rng = check_random_state(random_state)
    # every part is drawn, in this order, so that no scale changes the draws of another part
    logits = np.tile(_class_bias(class_bias, n_classes, rng.standard_normal(n_classes)), (n, 1))
    logits += dialogue_bias * rng.standard_normal((group.max() + 1, n_classes))[group]
    logits += noise * rng.standard_normal((n, n_classes))
    logits[np.arange(n), y_code] += signal
    answers = logits[:, None, :] + vote_noise * rng.gumbel(size=(n, n_votes, n_classes))
    return label_set[answers.argmax(axis=2)]


def check_scale(value: float, name: str) -> None:
    """Raise an error unless `value` is a finite number, 0 or more."""
    check_scalar(value, name, Real, min_val=0)
    if not np.isfinite(value):
        raise ValueError(f"{name} must be a finite number >= 0, got {value}")


def _encode(y: NDArray[Any], classes: ArrayLike | None) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Give the array of classes and the position of each label of `y` in it."""
    if classes is None:
        label_set, code = np.unique(y, return_inverse=True)
    else:
        label_set = column_or_1d(classes)
        order = np.argsort(label_set, kind="stable")
        ranked = label_set[order]
        if np.any(ranked[1:] == ranked[:-1]):
            raise ValueError(f"classes has a label twice: {label_set.tolist()}")
        unknown = np.unique(y[~np.isin(y, label_set)])
        if len(unknown):
            raise ValueError(
                f"y has the labels {unknown.tolist()}, which are not in classes "
                f"{label_set.tolist()}; add them to classes"
            )
        code = order[np.searchsorted(ranked, y)]
    if len(label_set) < 2:
        raise ValueError(
            f"There must be at least 2 classes, got {label_set.tolist()}; name them in classes"
        )
    return label_set, code


def _class_bias(
    class_bias: float | ArrayLike, n_classes: int, draw: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give the bias of each class: as stated, or `draw` with the stated standard deviation."""
    if np.ndim(class_bias) == 0:
        check_scale(class_bias, "class_bias")  # type: ignore[arg-type]
        return float(class_bias) * (draw - draw.mean()) / draw.std()  # type: ignore[arg-type]
    bias = np.asarray(class_bias, dtype=np.float64)
    if bias.shape != (n_classes,):
        raise ValueError(
            f"class_bias has shape {bias.shape} but there are {n_classes} classes; pass one "
            "number per class, or a single number for the standard deviation of a random bias"
        )
    if not np.isfinite(bias).all():
        raise ValueError(f"class_bias must be finite, got {bias.tolist()}")
    return bias

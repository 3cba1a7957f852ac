"""Scores for dialogue states: dicts of slots and values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length

from sklearn_dialpref._dialogues.validation import is_missing

__all__ = ["joint_goal_accuracy_score", "slot_f1_score"]


def joint_goal_accuracy_score(
    y_true: Iterable[Any],
    y_pred: Iterable[Any],
    *,
    slots: Collection[Any] | None = None,
    sample_weight: Any = None,
) -> float:
    r"""Share of utterances after which the whole dialogue state is right.

    Parameters
    ----------
    y_true : sequence of n dict
        The state after each utterance, slots and their values; a slot that is not there has no
        value. A list, tuple or set of values stands for any of them, as in SGD. Utterances with
        a missing state (None, NaN, pd.NA) are left out.
    y_pred : sequence of n dict
        Predicted states, of single values.
    slots : collection, default=None
        The slots that count; by default all in `y_true` and `y_pred`.
    sample_weight : array-like of shape (n,), default=None
        Weights of the utterances.

    Returns
    -------
    score : float
        In [0, 1]; 1 is best.

    Raises
    ------
    ValueError
        If no utterance has a true state, a predicted one is missing, or lengths differ.
    TypeError
        If a state is not a dict.

    See Also
    --------
    slot_f1_score : Right values one by one.
    DialogueStateTracker : Predicts states.

    Notes
    -----
    The joint goal accuracy of MultiWOZ [1]_: an utterance is right if true and predicted state
    have the same slots with the same values. Values are compared as they are; normalise spelling
    and synonyms before. That of SGD [2]_ is a mean over the services of each turn: pass a row for
    each service of an utterance. Its fuzzy comparison of free text is not done here.

    References
    ----------
    .. [1] Budzianowski et al., "MultiWOZ - A large-scale multi-domain Wizard-of-Oz dataset for
       task-oriented dialogue modelling", EMNLP 2018.
    .. [2] Rastogi et al., "Towards scalable multi-domain conversational agents: the
       schema-guided dialogue dataset", AAAI 2020.

    Examples
    --------
    >>> from sklearn_dialpref.metrics import joint_goal_accuracy_score
    >>> y_true = [{"area": "north"}, {"area": "north", "stars": ["4", "four"]}]
    >>> joint_goal_accuracy_score(y_true, [{"area": "north"}, {"area": "north", "stars": "four"}])
    1.0
    >>> joint_goal_accuracy_score(y_true, [{"area": "north"}, {"area": "north"}])
    0.5
    """
    y_true = list(y_true)
    rows, truth, predicted = _states(y_true, y_pred, slots)
    right = [
        true.keys() == guess.keys() and all(_agree(true[slot], guess[slot]) for slot in true)
        for true, guess in zip(truth, predicted, strict=True)
    ]
    weight = None
    if sample_weight is not None:
        weight = np.asarray(sample_weight, dtype=float)
        check_consistent_length(y_true, weight)
        weight = weight[rows]
    return float(np.average(right, weights=weight))


def slot_f1_score(
    y_true: Iterable[Any],
    y_pred: Iterable[Any],
    *,
    slots: Collection[Any] | None = None,
    average: str | None = "micro",
) -> Any:
    r"""F1 of the slots' values in dialogue states.

    Parameters
    ----------
    y_true, y_pred : sequence of n dict
        As for :func:`joint_goal_accuracy_score`.
    slots : collection, default=None
        The slots that count; by default all in `y_true` and `y_pred`.
    average : {"micro", "macro"} or None, default="micro"
        ``"micro"``: over all values together; ``"macro"``: the mean over slots; None: for each
        slot.

    Returns
    -------
    score : float, or dict of float if ``average=None``
        In [0, 1]; 1 is best. 0 where a slot has neither a true nor a predicted value.

    Raises
    ------
    ValueError
        If no utterance has a true state, a predicted one is missing, lengths differ, or `average`
        is not among those above.
    TypeError
        If a state is not a dict.

    See Also
    --------
    joint_goal_accuracy_score : Whole states.

    Notes
    -----
    With the number of right values :math:`TP`, of predicted values that are wrong or of slots
    without one :math:`FP`, and of true values that were not predicted :math:`FN` (a wrong value
    counts as both),

    .. math:: F_1 = \frac{2 TP}{2 TP + FP + FN}.

    Examples
    --------
    >>> from sklearn_dialpref.metrics import slot_f1_score
    >>> y_true = [{"area": "north"}, {"area": "north", "stars": "4"}]
    >>> y_pred = [{"area": "north"}, {"area": "south"}]
    >>> slot_f1_score(y_true, y_pred, average=None)
    {'area': 0.5, 'stars': 0.0}
    >>> round(slot_f1_score(y_true, y_pred), 3)
    0.4
    """
    if average not in ("micro", "macro", None):
        raise ValueError(f"average must be 'micro', 'macro' or None, got {average!r}")
    _, truth, predicted = _states(y_true, y_pred, slots)
    seen = {slot for state in truth + predicted for slot in state}
    names = sorted(seen, key=str) if slots is None else slots
    right, n_predicted, true = (dict.fromkeys(names, 0) for _ in range(3))
    for state, guess in zip(truth, predicted, strict=True):
        for slot in state:
            true[slot] += 1
        for slot, value in guess.items():
            n_predicted[slot] += 1
            right[slot] += slot in state and _agree(state[slot], value)
    if average == "micro":
        right, n_predicted, true = (
            {"": sum(count.values())} for count in (right, n_predicted, true)
        )
    each = {
        slot: 2 * right[slot] / total if (total := n_predicted[slot] + true[slot]) else 0.0
        for slot in right
    }
    if average is None:
        return each
    return float(np.mean(list(each.values()))) if each else 0.0


def _states(
    y_true: Iterable[Any], y_pred: Iterable[Any], slots: Collection[Any] | None
) -> tuple[np.ndarray, list[Mapping[Any, Any]], list[Mapping[Any, Any]]]:
    """Rows that have a true state, and both states of each, of the slots that count."""
    truth, predicted = list(y_true), list(y_pred)
    check_consistent_length(truth, predicted)
    rows = np.flatnonzero([not missing_state(state) for state in truth])
    if not len(rows):
        raise ValueError("y_true holds no state, all are missing; label some utterances")
    for name, states in (("y_true", truth), ("y_pred", predicted)):
        for row in rows:
            if not isinstance(states[row], Mapping):
                raise TypeError(
                    f"{name} must hold dicts of slots and values, but row {row} holds "
                    f"{states[row]!r}"
                )
    kept = [[_of(slots, states[row]) for row in rows] for states in (truth, predicted)]
    return rows, kept[0], kept[1]


def _of(slots: Collection[Any] | None, state: Mapping[Any, Any]) -> Mapping[Any, Any]:
    return state if slots is None else {k: v for k, v in state.items() if k in slots}


def missing_state(state: Any) -> bool:
    """Whether there is no state: None, NaN or pd.NA."""
    return not isinstance(state, Mapping) and bool(is_missing([state]).all())


def _agree(true: Any, guess: Any) -> bool:
    if isinstance(true, Sequence | set | frozenset) and not isinstance(true, str | bytes):
        return guess in true
    return bool(true == guess)

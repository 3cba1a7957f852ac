"""Scores for dialogue states: dicts of slots and values."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_array, check_consistent_length

from ._state_values import State, is_absent, read_state, spellings, state_column

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
        The state after each utterance: slots and their values. A slot that is missing, or whose
        value is None, NaN or pd.NA, is absent. A list, tuple, set or array of values stands for
        any of them, as in SGD. Utterances with a missing state (None, NaN, pd.NA) are left out.
    y_pred : sequence of n dict
        Predicted states, with one value for each slot.
    slots : collection, default=None
        The slots that count; by default all in `y_true` and `y_pred`.
    sample_weight : array-like of shape (n,), default=None
        Weights of the utterances, not negative.

    Returns
    -------
    score : float
        In [0, 1]; 1 is best.

    Raises
    ------
    ValueError
        If no utterance has a true state, lengths differ, a state is nested (see
        :func:`flatten_states`), a prediction has several values for a slot, `slots` is empty, or
        weights are negative, not finite, or all 0.
    TypeError
        If a state is not a dict, a predicted one is missing, or a value cannot be compared.

    Warns
    -----
    UndefinedMetricWarning
        If none of `slots` occurs in any state: all states are then equal, and the score is 1.

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
    truth, predicted, rows, n_rows = _scored_states(y_true, y_pred, slots)
    if slots is not None and not any([*truth, *predicted]):
        _warn_undefined("joint_goal_accuracy_score is 1", slots)
    right = [
        true.keys() == guess.keys() and all(_agree(true[slot], guess[slot]) for slot in true)
        for true, guess in zip(truth, predicted, strict=True)
    ]
    weight = None if sample_weight is None else _weights(sample_weight, n_rows)[rows]
    if weight is not None and not weight.any():
        raise ValueError("sample_weight is 0 on all utterances that have a state; weigh some")
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
        In [0, 1]; 1 is best. 0 for a slot with neither a true nor a predicted value.

    Raises
    ------
    ValueError
        If no utterance has a true state, lengths differ, a state is nested (see
        :func:`flatten_states`), a prediction has several values for a slot, `slots` is empty, or
        `average` is unknown.
    TypeError
        If a state is not a dict, a predicted one is missing, or a value cannot be compared.

    Warns
    -----
    UndefinedMetricWarning
        If a slot has neither a true nor a predicted value. Its score is 0.

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
    truth, predicted, _, _ = _scored_states(y_true, y_pred, slots)
    n_true, n_predicted = (
        Counter(slot for state in states for slot in state) for states in (truth, predicted)
    )
    n_right = Counter(
        slot
        for true, guess in zip(truth, predicted, strict=True)
        for slot in true
        if slot in guess and _agree(true[slot], guess[slot])
    )
    counters = (n_right, n_predicted, n_true)
    if average == "micro":
        counts = {"all slots": [counter.total() for counter in counters]}
    else:
        names = sorted(n_true | n_predicted, key=_by_text) if slots is None else slots
        counts = {slot: [counter[slot] for counter in counters] for slot in names}
    undefined = [slot for slot, (_, *n_values) in counts.items() if not any(n_values)]
    if undefined or not counts:
        _warn_undefined("slot_f1_score is 0", undefined or "all slots")
    f1 = {slot: _f1(*count) for slot, count in counts.items()}
    if average is None:
        return f1
    return float(np.mean(list(f1.values()))) if f1 else 0.0


def _by_text(slot: Any) -> tuple[str, str]:
    return str(slot), type(slot).__name__


def _f1(n_right: int, n_predicted: int, n_true: int) -> float:
    total = n_predicted + n_true
    return 2 * n_right / total if total else 0.0


def _warn_undefined(value: str, slots: Any) -> None:
    warnings.warn(
        f"{value} where neither y_true nor y_pred has a value, which holds for {slots}",
        UndefinedMetricWarning,
        stacklevel=3,
    )


def _scored_states(
    y_true: Any, y_pred: Any, slots: Collection[Any] | None
) -> tuple[list[State], list[State], list[int], int]:
    """Both states of the rows that have a true one, of the slots that count; their rows, and n."""
    _check_slots(slots)
    columns = {"y_true": state_column(y_true, "y_true"), "y_pred": state_column(y_pred, "y_pred")}
    check_consistent_length(*columns.values())
    n_rows = len(columns["y_true"])
    rows = [row for row, state in enumerate(columns["y_true"]) if not is_absent(state)]
    if not rows:
        raise ValueError(
            f"y_true holds no state, all are missing in {n_rows} rows; label some utterances"
        )
    truth, predicted = (
        [_counting(_read(column[row], row, name), slots) for row in rows]
        for name, column in columns.items()
    )
    for row, guess in zip(rows, predicted, strict=True):
        for slot, value in guess.items():
            if len(options := spellings(value)) > 1:
                raise ValueError(
                    f"y_pred, row {row}, slot {slot!r}: {len(options)} values, {options!r}; a "
                    "prediction has one value for each slot"
                )
            guess[slot] = options[0]
    return truth, predicted, rows, n_rows


def _check_slots(slots: Any) -> None:
    if slots is None:
        return
    plain = isinstance(slots, str | bytes) or getattr(slots, "ndim", 1) != 1
    if plain or not isinstance(slots, Collection):
        raise TypeError(
            f"slots must be a collection of slot names, got {slots!r}; pass a list of them"
        )
    if not len(slots):
        raise ValueError("slots is empty; name the slots that count, or pass None for all")
    for slot in slots:
        try:
            hash(slot)
        except TypeError:
            raise TypeError(
                f"slots must hold names that can be keys of a dict, but holds {slot!r}"
            ) from None


def _read(state: Any, row: int, name: str) -> State:
    known = read_state(state, row, name)
    if known is None:
        raise TypeError(
            f"{name} must hold dicts of slots and values, but row {row} holds {state!r}; pass "
            "{{}} where no slot has a value"
        )
    return known


def _counting(state: State, slots: Collection[Any] | None) -> State:
    return state if slots is None else {slot: state[slot] for slot in slots if slot in state}


def _weights(sample_weight: Any, n_rows: int) -> NDArray[np.float64]:
    weight = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weight.shape != (n_rows,):
        raise ValueError(
            f"sample_weight must hold a number for each of the {n_rows} utterances, but has shape "
            f"{weight.shape}"
        )
    with np.errstate(over="ignore"):
        if weight.min() < 0 or np.isinf(weight.sum()):
            raise ValueError(
                "sample_weight must not be negative, nor too large to be added up, but reaches "
                f"from {weight.min():.3g} to {weight.max():.3g}"
            )
    return weight


def _agree(true: Any, guess: Any) -> bool:
    return any(bool(option == guess) for option in spellings(true))

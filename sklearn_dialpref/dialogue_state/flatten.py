"""States of one level made of nested ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref.metrics._state_values import (
    NO_VALUE,
    as_list,
    is_absent,
    read_state,
    state_column,
)

__all__ = ["flatten_states"]

_MAX_LEVELS = 20


def flatten_states(states: Any, *, absent: Collection[str] = NO_VALUE) -> NDArray[np.object_]:
    """Make states of one level of nested ones, and leave out slots without a value.

    Corpora keep states in levels: by service or domain, and, in MultiWOZ, by part of the domain.
    A slot's name becomes the tuple of the keys that lead to it; a slot at the first level keeps
    its name.

    Parameters
    ----------
    states : sequence of n dict
        State of each utterance; None, NaN or pd.NA where missing. Values are single values, lists
        of the spellings of one value, or dicts of further slots.
    absent : collection of str, default=("", "not mentioned")
        Strings that stand for no value, as in MultiWOZ. So do always None, NaN, pd.NA, and empty
        lists and dicts.

    Returns
    -------
    states : ndarray of shape (n,), of dict or None
        As :class:`DialogueStateTracker` and the metrics of states take them; None where missing.

    Raises
    ------
    ValueError
        If a list holds dicts or lists, two slots get the same name, or a state has more than 20
        levels.
    TypeError
        If a state is not a dict, or a value cannot be compared.

    See Also
    --------
    DialogueStateTracker : Learns states.

    Examples
    --------
    >>> from sklearn_dialpref.dialogue_state import flatten_states
    >>> metadata = {
    ...     "hotel": {
    ...         "book": {"booked": [], "people": ""},
    ...         "semi": {"area": "north", "stars": "not mentioned"},
    ...     }
    ... }
    >>> flatten_states([metadata, None, {"area": None}]).tolist()
    [{('hotel', 'semi', 'area'): 'north'}, None, {}]
    """
    if isinstance(absent, str) or not isinstance(absent, Collection):
        raise TypeError(f"absent must be a collection of str, got {absent!r}; pass [{absent!r}]")
    column = state_column(states, "states")
    flat = np.empty(len(column), dtype=object)
    for row, state in enumerate(column):
        if isinstance(state, Mapping):
            state = _one_level(state, row, frozenset(absent))
        flat[row] = read_state(state, row, "states")
    return flat


def _one_level(state: Mapping[Any, Any], row: int, absent: frozenset[str]) -> dict[Any, Any]:
    flat: dict[Any, Any] = {}
    for path, value in _leaves(state, (), row):
        slot = path[0] if len(path) == 1 else path
        value = _without_absent(value, absent)
        if is_absent(value):
            continue
        if slot in flat:
            raise ValueError(
                f"states, row {row}: two slots are named {slot!r}; rename one of them"
            )
        flat[slot] = value
    return flat


def _leaves(
    state: Mapping[Any, Any], path: tuple[Any, ...], row: int
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if len(path) == _MAX_LEVELS:
        raise ValueError(
            f"states, row {row}: more than {_MAX_LEVELS} levels; pass the part that is the state"
        )
    for key, value in state.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key), row)
        else:
            yield (*path, key), value


def _without_absent(value: Any, absent: frozenset[str]) -> Any:
    options = as_list(value)
    if options is None:
        return None if isinstance(value, str) and value in absent else value
    kept = [
        option
        for option in options
        if not (is_absent(option) or (isinstance(option, str) and option in absent))
    ]
    return kept or None

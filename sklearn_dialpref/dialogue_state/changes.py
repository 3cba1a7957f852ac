"""From dialogue states to what each utterance changed, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import Dialogues, label_array
from sklearn_dialpref.metrics._state_values import (
    CLEARED,
    UNKNOWN,
    Slots,
    State,
    read_state,
    sort_key,
    spellings,
)

__all__ = [
    "SET",
    "Change",
    "accumulate",
    "change_table",
    "changes_in",
    "collect_slots",
    "most_probable",
    "read_states",
    "spans_of",
]

SET = "<set>"

States = list[State | None]


class Change(NamedTuple):
    """What an utterance does to a slot: its new value, ``"<set>"`` or ``"<cleared>"``."""

    slot: Any
    value: Any


# -- states ---------------------------------------------------------------------------------


def read_states(y: Any, n_rows: int, name: str) -> list[States]:
    """Each vote as a list of n states, None where missing.

    Parameters
    ----------
    y : sequence of n dict, array-like of shape (n, A), or None
    n_rows : int
    name : str
        Of the argument, for errors.

    Returns
    -------
    list of A lists of n dict or None
    """
    if y is None:
        return []
    table = label_array(y)
    if table.ndim not in (1, 2) or len(table) != n_rows:
        raise ValueError(
            f"{name} must hold a state (a dict) for each of the {n_rows} utterances, None where "
            f"missing, but has shape {table.shape}"
        )
    return [
        [_state(value, row, name) for row, value in enumerate(votes)]
        for votes in table.reshape(n_rows, -1).T
    ]


def _state(value: Any, row: int, name: str) -> State | None:
    state = read_state(value, row, name)
    for slot, options in (state or {}).items():
        if CLEARED in spellings(options):
            raise ValueError(
                f"{name}, row {row}, slot {slot!r}: the value {CLEARED!r} stands for a change "
                "that clears a slot; leave out a slot that has no value"
            )
    return state


def collect_slots(states: Iterable[State | None], dontcare: Any) -> Slots:
    """All slots with all their values, both sorted; of several spellings the first counts."""
    values: dict[Any, set[Any]] = {}
    for state in states:
        for slot, value in (state or {}).items():
            values.setdefault(slot, set()).add(spellings(value)[0])
    return {
        slot: tuple(sorted(values[slot] - {dontcare}, key=sort_key))
        for slot in sorted(values, key=sort_key)
    }


# -- what utterances changed ----------------------------------------------------------------


class Span(NamedTuple):
    """Utterances from one labelled state of a dialogue to the next, and these states."""

    rows: list[int]
    before: State
    after: State


def spans_of(states: States, dialogues: Dialogues, can_change: NDArray[np.bool_]) -> list[Span]:
    """The spans of all dialogues, the first of each beginning with no state.

    Parameters
    ----------
    states : list of n dict or None
        As :func:`normalise_state` returns them.
    dialogues : Dialogues
    can_change : ndarray of bool, shape (n,)
        Utterances that can change the state; the others are in no span.
    """
    spans = []
    group = -1
    before: State = {}
    rows: list[int] = []
    for row in in_order(dialogues):
        if dialogues.group[row] != group:
            group, before, rows = dialogues.group[row], {}, []
        if not can_change[row]:
            continue
        rows.append(row)
        state = states[row]
        if state is not None:
            spans.append(Span(rows, before, state))
            before, rows = state, []
    return spans


def in_order(dialogues: Dialogues) -> NDArray[np.int64]:
    """Rows dialogue by dialogue, in the order of their turns."""
    return np.lexsort((dialogues.turn, dialogues.group))


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, frozenset) and isinstance(new, frozenset):
        return not old.isdisjoint(new)
    return bool(old == new)


def _change(slot: Any, new: Any) -> Change:
    return Change(slot, SET if isinstance(new, frozenset) else new)


def changes_in(spans: Iterable[Span]) -> set[Change]:
    """The changes for which the labels tell which utterance made them."""
    changes = set()
    for rows, before, after in spans:
        for slot in before | after if len(rows) == 1 else ():
            old, new = before.get(slot, CLEARED), after.get(slot, CLEARED)
            if UNKNOWN not in (old, new) and not _same(old, new):
                changes.add(_change(slot, new))
    return changes


def change_table(
    spans: Iterable[Span], n_rows: int, changes: Sequence[Change]
) -> NDArray[np.float64]:
    """1 where an utterance made a change, 0 where not, NaN where that is not known.

    It is not known which utterance of several between two states made a change, nor whether one
    said again what held before it.

    Parameters
    ----------
    spans : iterable of Span
    n_rows : int
    changes : sequence of L Change

    Returns
    -------
    ndarray of shape (n_rows, L)
    """
    column_of = {change: column for column, change in enumerate(changes)}
    columns_of_slot = _columns_of_slots(changes)
    cleared = {slot: column for (slot, value), column in column_of.items() if value == CLEARED}
    table = np.full((n_rows, len(changes)), np.nan)
    for rows, before, after in spans:
        table[rows] = 0.0
        for slot in before | after:
            old, new = before.get(slot, CLEARED), after.get(slot, CLEARED)
            known = UNKNOWN not in (old, new)
            if known and _same(old, new):
                column = column_of.get(_change(slot, new))
                table[np.ix_(rows, [] if column is None else [column])] = np.nan
            elif known and len(rows) == 1:
                table[rows, column_of[_change(slot, new)]] = 1.0
            else:
                table[np.ix_(rows, columns_of_slot.get(slot, []))] = np.nan
        absent = [column for slot, column in cleared.items() if slot not in before | after]
        table[np.ix_(rows, absent)] = np.nan
    return table


def _columns_of_slots(changes: Sequence[Change]) -> dict[Any, list[int]]:
    """The columns of each slot's changes."""
    columns: dict[Any, list[int]] = {}
    for column, change in enumerate(changes):
        columns.setdefault(change.slot, []).append(column)
    return columns


# -- and back -------------------------------------------------------------------------------


def most_probable(
    proba: NDArray[np.float64], predicted: NDArray[Any], changes: Sequence[Change]
) -> list[list[Change]]:
    """The predicted changes of each utterance, of each slot the most probable one."""
    proba = np.where(predicted, proba, -1.0)
    made: list[list[Change]] = [[] for _ in range(len(proba))]
    for columns in map(np.array, _columns_of_slots(changes).values()):
        best = columns[proba[:, columns].argmax(axis=1)]
        for row in np.flatnonzero(proba[np.arange(len(proba)), best] >= 0):
            made[row].append(changes[best[row]])
    return made


def accumulate(made: Sequence[Sequence[Change]], dialogues: Dialogues) -> NDArray[Any]:
    """The state after each utterance, by what it and those before it changed."""
    states = np.empty(len(made), dtype=object)
    group = -1
    state: State = {}
    for row in in_order(dialogues):
        if dialogues.group[row] != group:
            group, state = dialogues.group[row], {}
        for slot, value in made[row]:
            if value == CLEARED:
                state.pop(slot, None)
            else:
                state[slot] = value
        states[row] = dict(state)
    return states

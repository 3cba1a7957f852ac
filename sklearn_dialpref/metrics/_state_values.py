"""What a dialogue state may hold: slots, values and their spellings, and what counts as absent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np

from sklearn_dialpref._dialogues.validation import label_array, missing_in

CLEARED = "<cleared>"  # stands for a change that clears a slot, never for a value
UNKNOWN = object()  # stands for a value that no slot has
NO_VALUE = ("", "not mentioned")  # in MultiWOZ

State = dict[Any, Any]
Slots = dict[Any, tuple[Any, ...] | None]


def state_column(y: Any, name: str) -> list[Any]:
    """One state for each row, of any container, not yet read."""
    column = label_array(list(y) if isinstance(y, Iterator) else y)
    if column.ndim != 1:
        raise ValueError(
            f"{name} must hold one state (a dict) for each utterance, but has shape "
            f"{column.shape}; pass one column of dicts"
        )
    return column.tolist() if column.dtype != object else list(column)


def read_state(state: Any, row: int, name: str) -> State | None:
    """Read a state: the slots that have a value, lists for several spellings; None if missing.

    Parameters
    ----------
    state : dict, None, NaN or pd.NA
    row : int
    name : str
        Of the argument, for errors.

    Raises
    ------
    TypeError
        If the state is not a dict, or a value is neither hashable nor a list of such values.
    ValueError
        If a slot has no name, or its value is an empty list or nested.
    """
    if isinstance(state, Mapping):
        where = f"{name}, row {row}"
        slots = ((slot, read_value(value, slot, where)) for slot, value in state.items())
        return {slot: value for slot, value in slots if value is not None}
    if is_absent(state):
        return None
    raise TypeError(
        f"{name} must hold dicts of slots and values, or None, but row {row} holds {state!r} of "
        f"type {type(state).__name__}; table.to_dict('records') makes dicts of a table with a "
        "column for each slot, json.loads of JSON text"
    )


def read_value(value: Any, slot: Any, where: str) -> Any:
    """A value, a non-empty list of its spellings, or None if it is absent."""
    where = f"{where}, slot {slot!r}"
    if is_absent(slot):
        raise ValueError(f"{where}: a slot without a name; name it, or leave it out")
    if is_absent(value):
        return None
    if isinstance(value, Mapping):
        raise ValueError(
            f"{where}: a nested state, {value!r}; flatten_states makes one level of it"
        )
    options = as_list(value)
    if options is None:
        return check_single(value, where)
    options = [option for option in options if not is_absent(option)]
    if not options:
        raise ValueError(
            f"{where}: an empty list; leave the slot out, or write None, where it has no value "
            "(flatten_states does)"
        )
    for option in options:
        if isinstance(option, Mapping) or as_list(option) is not None:
            raise ValueError(
                f"{where}: a nested list, {value!r}; remove the slot, or make it one value or a "
                "list of its spellings, such as ['4', 'four']"
            )
        check_single(option, where)
    return options


def read_slots(slots: Any) -> Slots:
    """The slots that a user names, with a tuple of values, or None for free ones."""
    if not isinstance(slots, Mapping):
        raise TypeError(
            "slots must be a dict of slots, each with the list of its values, or with None for a "
            f"free slot, but is {slots!r} of type {type(slots).__name__}"
        )
    return {slot: _slot_values(values, slot) for slot, values in slots.items()}


def _slot_values(values: Any, slot: Any) -> tuple[Any, ...] | None:
    if is_absent(values):
        return None
    options = as_list(values)
    if options is None:
        raise TypeError(
            f"slots[{slot!r}] must be a list of values, or None for a free slot, but is "
            f"{values!r} of type {type(values).__name__}"
        )
    for option in options:
        if isinstance(read_value(option, slot, "slots"), list) or is_absent(option):
            raise ValueError(
                f"slots[{slot!r}] must be a list of single values, but holds {option!r}"
            )
    return tuple(options)


def normalise_state(
    state: State, slots: Slots, dontcare: Any
) -> tuple[State, list[tuple[Any, Any]]]:
    """The state in the values of ``slots``, and the (slot, value) pairs that are not among them.

    A categorical slot takes its first known spelling, or ``UNKNOWN``; a free one takes all
    spellings as a frozenset.
    """
    known, unknown = {}, []
    for slot, value in state.items():
        options = spellings(value)
        if slot not in slots:
            unknown.append((slot, value))
        elif dontcare in options:
            known[slot] = dontcare
        elif (values := slots[slot]) is None:
            known[slot] = frozenset(options)
        else:
            known[slot] = next((option for option in options if option in values), UNKNOWN)
            if known[slot] is UNKNOWN:
                unknown.append((slot, value))
    return known, unknown


def check_single(value: Any, where: str) -> Any:
    """Return a value that can be compared with others; refuse any other."""
    try:
        hash(value)
        single = isinstance(value, str | bytes) or not isinstance(value, Iterable)
    except TypeError:
        single = False
    if not single:
        raise TypeError(
            f"{where}: {value!r} of type {type(value).__name__} cannot be compared as a value; "
            "convert it to a str, a number, or a list of them"
        )
    return value


def is_absent(value: Any) -> bool:
    """Whether a value is None, NaN, NaT, pd.NA, or masked."""
    if isinstance(value, str):
        return False
    if value is np.ma.masked:
        return True
    cell = np.empty(1, dtype=object)
    cell[0] = value
    return bool(missing_in(cell)[0])


def as_list(value: Any) -> list[Any] | None:
    """The entries of a sequence, a set or an array of any library; None for a single value."""
    if isinstance(value, str | bytes | bytearray | memoryview):
        return None
    if isinstance(value, Sequence):
        return list(value)
    if isinstance(value, Set):
        return sorted(value, key=sort_key)
    if hasattr(value, "__array__") and not np.isscalar(value):
        # tolist keeps what is masked or null; of other arrays numpy knows the entries
        entries = value.tolist() if hasattr(value, "tolist") else np.asarray(value).tolist()
        return entries if isinstance(entries, list) else None
    return None


def sort_key(name: Any) -> tuple[str, str]:
    """Order of slots or values of any types."""
    return type(name).__name__, str(name)


def spellings(value: Any) -> list[Any]:
    """The spellings of a value that :func:`read_value` read."""
    return value if isinstance(value, list) else [value]

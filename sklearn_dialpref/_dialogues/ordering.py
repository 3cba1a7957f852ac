"""Codes of equal values, and the order of utterances in their dialogues."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, time, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from numbers import Real
from reprlib import repr as short_repr
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .containers import missing_in

INFINITY = float("inf")
TIMES = (date, time, timedelta, np.datetime64)  # a datetime is a date


def codes_of(values: NDArray[Any]) -> NDArray[np.int64]:
    """Codes of equal values, in sorted order; mixed types are sorted by type, then as text."""
    try:
        return np.unique(values, return_inverse=True)[1].astype(np.int64)
    except TypeError:
        keys = sorted(set(values), key=lambda v: (type(v).__name__, str(v)))
        code = {value: rank for rank, value in enumerate(keys)}
        return np.fromiter((code[v] for v in values), dtype=np.int64, count=len(values))


def turn_ranks(
    turn: NDArray[Any] | None, group: NDArray[np.int64], dialogue_id: NDArray[Any]
) -> NDArray[np.int64]:
    """The rank of each row inside its dialogue, by its turn or by the order of the rows."""
    keys = np.zeros(len(group)) if turn is None else _turn_keys(turn)
    order = np.lexsort((keys, group))
    same = group[order][1:] == group[order][:-1]
    if turn is not None and (twice := same & (keys[order][1:] == keys[order][:-1])).any():
        row = order[np.argmax(twice) + 1]
        raise ValueError(
            f"dialogue {dialogue_id[row]!r} has turn {turn.tolist()[row]!r} more than once "
            f"(row {row}); number the utterances of a dialogue"
        )
    first = np.flatnonzero(np.r_[True, ~same])
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(first, np.diff(np.r_[first, len(group)]))
    return rank


def whole_numbers(turn: NDArray[Any] | None) -> NDArray[np.float64] | None:
    """Turns as numbers, if they are whole ones; None of times."""
    if turn is None or turn.dtype.kind not in "iufOU":
        return None
    try:
        numbers = turn.astype(np.float64)
    except (TypeError, ValueError, OverflowError):  # times as objects, or beyond floats
        return None
    is_whole = np.isfinite(numbers) & (numbers == np.floor(numbers))
    return numbers if is_whole.all() else None


def _turn_keys(turn: NDArray[Any]) -> NDArray[Any]:
    """Numbers that sort as the turns do."""
    if (missing := missing_in(turn)).any():
        raise ValueError(f"turn is missing in row {np.argmax(missing)}; number it")
    if turn.dtype.kind in "iumM" or (turn.dtype.kind == "f" and np.isfinite(turn).all()):
        return turn
    values = [_sortable(row, value) for row, value in enumerate(turn.tolist())]
    try:
        keys = sorted(set(values))
    except TypeError:
        other = next(row for row, value in enumerate(values) if _kind(value) != _kind(values[0]))
        raise ValueError(
            f"turn mixes types: row 0 holds {turn[0]!r} but row {other} holds {turn[other]!r}; "
            "convert the column to one type"
        ) from None
    rank = {value: place for place, value in enumerate(keys)}
    return np.array([rank[value] for value in values])


def _kind(value: Any) -> Any:
    if isinstance(value, Real | Decimal):
        return Real
    return type(value), getattr(value, "tzinfo", None) is None


def _sortable(row: int, value: Any) -> Any:
    """A turn as it is, but text as the exact number it holds: "10" would sort before "2"."""
    sortable = value.item() if isinstance(value, np.number) else value
    if isinstance(value, str):
        with suppress(InvalidOperation):
            sortable = Decimal(value)
    if not isinstance(value, bool) and (_is_finite(sortable) or isinstance(sortable, TIMES)):
        return sortable
    raise ValueError(
        f"turn must be numbers or times, but row {row} holds {short_repr(value)} of type "
        f"{type(value).__name__}; number the utterances, or convert the column "
        "(such as with pd.to_datetime)"
    )


def _is_finite(value: Any) -> bool:
    if isinstance(value, Decimal):
        return value.is_finite()
    return isinstance(value, int | float | Fraction) and bool(-INFINITY < value < INFINITY)

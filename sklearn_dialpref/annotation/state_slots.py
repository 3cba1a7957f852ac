"""Slots and values as a model is asked about them: by names, which are mapped back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sklearn_dialpref.metrics._state_values import (
    CLEARED,
    NO_VALUE,
    Slots,
    check_single,
    read_slots,
)

from .class_names import check_writable
from .scoring import OffList

__all__ = ["CHANGES", "CLEAR", "DONTCARE", "SlotNames", "quoted"]

CHANGES = "changes"  # key of the changes of a single utterance
DONTCARE, CLEAR = "dontcare", "cleared"  # what stands for values of these meanings
MOST_FREE = 200  # characters of the value of a free slot
QUOTED = 60  # characters of an answer that a reason quotes
NAMED = 5  # slots or values that a reason lists


class SlotNames:
    """Distinct names by which a model is asked about slots and values, of whatever type they are.

    Parameters
    ----------
    slots : mapping of slot to list of values, or to None for a free slot
    dontcare : object, default="dontcare"
        The value that stands for "any will do".

    Attributes
    ----------
    slots : dict
        With tuples of values.
    slot_of : dict of str to slot
        By name, in the order of ``slots``.
    values_of : dict of str to dict
        By name of a categorical slot its values by their names, without ``dontcare``.

    Raises
    ------
    ValueError
        If there is no slot, a slot has a value that stands for a change, or a text has a lone
        surrogate.
    TypeError
        If ``slots`` is not as described.
    """

    def __init__(self, slots: Mapping[Any, Any], dontcare: Any = DONTCARE) -> None:
        self.slots: Slots = read_slots(slots)
        self.dontcare = check_single(dontcare, "dontcare")
        if not self.slots:
            raise ValueError("slots must name at least one slot, but is empty")
        names = _distinct(map(_slot_name, self.slots), taken=[CHANGES])
        self.slot_of: dict[str, Any] = dict(zip(names, self.slots, strict=True))
        self.values_of: dict[str, dict[str, Any]] = {
            name: _value_names(slot, [v for v in values if v != dontcare])
            for (slot, values), name in zip(self.slots.items(), names, strict=True)
            if values is not None
        }

        # models do not care for capitals, and no two names differ in these alone
        self._names = {name.casefold(): name for name in names}
        self._values = {
            name: {one.casefold(): value for one, value in values.items()}
            for name, values in self.values_of.items()
        }

    def read(self, name: str, value: Any) -> tuple[Any, Any]:
        """The slot and the new value that a change in JSON is about.

        The value is ``dontcare``, ``CLEARED``, one of the slot's values, or the text of a free
        slot.

        Raises
        ------
        OffList
            If there is no such slot or value.
        """
        known = self._names.get(name.casefold())
        if known is None:
            raise OffList(f"slot {quoted(name)} is unknown; the slots are {_some(self.slot_of)}")
        return self.slot_of[known], self._value(known, _text_of(value, known))

    def _value(self, name: str, text: str) -> Any:
        options = self._values.get(name, {})
        if text.casefold() in options:
            return options[text.casefold()]
        meaning = re.sub(r"[\W_]+", "", text).casefold()  # also "don't care" and "<cleared>"
        if meaning in (DONTCARE, CLEAR):
            return self.dontcare if meaning == DONTCARE else CLEARED
        if name not in self.values_of:
            return _free_value(text, name)
        raise OffList(
            f"slot {name!r} has no value {quoted(text)}; its values are "
            f"{_some(self.values_of[name])}"
        )


def _slot_name(slot: Any) -> str:
    """A key that all endpoints bear: ``Hotels-star_rating`` of ``("Hotels", "star rating")``."""
    parts = slot if isinstance(slot, tuple) else (slot,)
    return re.sub(r"[^\w.-]+", "_", "-".join(map(str, parts))).strip("_") or "slot"


def _value_names(slot: Any, values: Sequence[Any]) -> dict[str, Any]:
    if CLEARED in values:
        raise ValueError(
            f"slots[{slot!r}] holds {CLEARED!r}, which stands for a change that clears a slot; "
            "leave it out"
        )
    shown = [" ".join(str(value).split()) for value in values]
    for text in shown:
        check_writable(f"slots[{slot!r}]", text)
    return dict(zip(_distinct(shown, taken=[DONTCARE, CLEAR]), values, strict=True))


def _distinct(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    """The names, with a number behind those that came before, whatever their capitals."""
    seen, result = set(taken), []
    for name in names:
        number, one = 1, name
        while one.casefold() in seen:
            number += 1
            one = f"{name}_{number}"
        seen.add(one.casefold())
        result.append(one)
    return result


def _text_of(value: Any, name: str) -> str:
    """A value as text; a number or true also counts as its text."""
    if value is None or isinstance(value, list):
        shown = "null" if value is None else "a list or an object"
        raise OffList(f"slot {name!r} must have a text as value, but has {shown}")
    return " ".join((value if isinstance(value, str) else json.dumps(value)).split())


def _free_value(text: str, name: str) -> str:
    if text.casefold() in NO_VALUE:
        raise OffList(f"slot {name!r} has {quoted(text)}, which is no value")
    if len(text) > MOST_FREE:
        raise OffList(f"slot {name!r} has a value of more than {MOST_FREE} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise OffList(f"slot {name!r} has half of a character in {quoted(text)}") from None
    return text


def quoted(text: str) -> str:
    """The beginning of a text, in quotes."""
    return repr(text[:QUOTED])


def _some(names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + rest

"""What an utterance changes in a dialogue state: bound by a schema, read back, and added up."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import Dialogues
from sklearn_dialpref.metrics._state_values import CLEARED, Slots, State

from .scoring import OffList
from .state_slots import CHANGES, CLEAR, DONTCARE, SlotNames, quoted

__all__ = [
    "Changes",
    "add_up",
    "changes_format",
    "read_changes",
    "split_by_number",
    "stretch_format",
]

Changes = dict[Any, Any]
"""New values of slots; ``CLEARED`` of one that is cleared."""

# What OpenAI's strict schemas may hold: 1,000 enum values in all; above 250 in one place other
# limits count as well.
MOST_ENUMS, MOST_IN_ONE = 1000, 250


# -- schemas --------------------------------------------------------------------------------


def changes_format(names: SlotNames) -> dict[str, Any]:
    """Entries of a request that bind the answer about one utterance.

    The answer is ``{"changes": [{slot: value}, …]}``.
    """
    return _response_format({CHANGES: _changes(names)})


def stretch_format(names: SlotNames, numbers: Sequence[int]) -> dict[str, Any]:
    """Entries of a request that bind the answer about some turns, with the changes by number."""
    properties = {str(number): {"$ref": f"#/$defs/{CHANGES}"} for number in numbers}
    return _response_format(properties, {CHANGES: _changes(names)})


def _changes(names: SlotNames) -> dict[str, Any]:
    """A list of objects of one key each.

    OpenAI takes alternatives only where their first keys differ, as they do here; with
    ``{"slot": …, "value": …}`` they would not, and each change would take more tokens.
    """
    bound = _bound(names)
    one = [
        _object({name: {"type": "string", **({"enum": bound[name]} if name in bound else {})}})
        for name in names.slot_of
    ]
    return {"type": "array", "items": {"anyOf": one}}


def _bound(names: SlotNames) -> dict[str, list[str]]:
    """What slots may have, of those with the fewest values, as many as a schema may hold."""
    bound, left = {}, MOST_ENUMS
    for name in sorted(names.values_of, key=lambda name: len(names.values_of[name])):
        values = [*names.values_of[name], DONTCARE, CLEAR]
        if len(values) <= min(left, MOST_IN_ONE):
            bound[name], left = values, left - len(values)
    return bound


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _response_format(
    properties: dict[str, Any], definitions: dict[str, Any] | None = None
) -> dict[str, Any]:
    schema = _object(properties) | ({"$defs": definitions} if definitions else {})
    wrapped = {"name": "changes", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": wrapped}}


# -- reading --------------------------------------------------------------------------------


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all its keys, also those that come twice."""


def read_changes(text: str, names: SlotNames) -> Changes:
    """What an answer says that an utterance changes.

    Endpoints that do not bind an answer may leave the key ``"changes"`` out, put several slots
    into one object, write numbers without quotes, or a code fence around it all.

    Parameters
    ----------
    text : str
    names : SlotNames

    Returns
    -------
    dict
        Slots and their new values, ``CLEARED`` for one that is cleared.

    Raises
    ------
    OffList
        If anything in it is not a change: then nothing of it counts.

    Examples
    --------
    >>> from sklearn_dialpref.annotation.state_answers import read_changes
    >>> from sklearn_dialpref.annotation.state_slots import SlotNames
    >>> names = SlotNames({("Hotels", "stars"): [3, 4], ("Hotels", "name"): None})
    >>> read_changes('{"changes": [{"Hotels-stars": "4"}, {"Hotels-name": "Ritz"}]}', names)
    {('Hotels', 'stars'): 4, ('Hotels', 'name'): 'Ritz'}
    >>> read_changes('{"changes": [{"Hotels-star": "5"}]}', names)
    Traceback (most recent call last):
    ...
    sklearn_dialpref.annotation.scoring.OffList: slot 'Hotels-star' is unknown; the slots are ...
    """
    changes: Changes = {}
    for name, value in _changed(_parsed(text), text):
        slot, new = names.read(name, value)
        if slot in changes:
            raise OffList(f"slot {quoted(name)} comes twice")
        changes[slot] = new
    return changes


def split_by_number(text: str, numbers: Sequence[int]) -> dict[int, str | OffList]:
    """The answer about each turn of a stretch, as :func:`read_changes` takes it.

    Parameters
    ----------
    text : str
        A JSON object with the numbers as keys.
    numbers : sequence of int
        Which were asked for. Others that the answer has are of no use.

    Returns
    -------
    dict of int to str or OffList
        The reason where a number is missing or comes twice, or where nothing can be read.

    Examples
    --------
    >>> from sklearn_dialpref.annotation.state_answers import split_by_number
    >>> split_by_number('{"2": [], "1": [{"area": "north"}], "3": [], "3": []}', [1, 2, 3, 4])
    {1: '[{"area": "north"}]', 2: '[]', 3: OffList('number 3 comes twice'),
    4: OffList('number 4 is missing')}
    """
    try:
        content = _parsed(text)
        if not isinstance(content, _Pairs):
            raise OffList(f"not a JSON object by number: {quoted(text)}")
    except OffList as error:
        return dict.fromkeys(numbers, error)
    return {number: _part(content, number) for number in numbers}


def _part(content: _Pairs, number: int) -> str | OffList:
    parts = [value for key, value in content if key.strip() == str(number)]
    if len(parts) != 1:
        return OffList(f"number {number} {'comes twice' if parts else 'is missing'}")
    try:
        return _as_json(parts[0])
    except RecursionError:
        return OffList(f"number {number} has an answer that is nested beyond measure")


def _parsed(text: str) -> Any:
    fenced = re.fullmatch(r"\s*```(?:json)?(.*)```\s*", text, re.DOTALL)
    try:
        return json.loads(fenced.group(1) if fenced else text, object_pairs_hook=_Pairs)
    except RecursionError:
        raise OffList(f"nested beyond measure: {quoted(text)}") from None
    except ValueError:  # not JSON, or a number of thousands of digits
        raise OffList(f"not JSON: {quoted(text)}") from None


def _as_json(value: Any) -> str:
    """JSON of what was parsed, keys that come twice among it."""
    if isinstance(value, _Pairs):
        return "{" + ", ".join(f"{json.dumps(k)}: {_as_json(v)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_json, value)) + "]"
    return json.dumps(value)


def _changed(content: Any, text: str) -> list[tuple[str, Any]]:
    """Pairs of slot and value, not yet read."""
    if isinstance(content, _Pairs) and [key for key, _ in content] == [CHANGES]:
        content = content[0][1]
    items = [content] if isinstance(content, _Pairs) else content
    if not isinstance(items, list) or not all(isinstance(item, _Pairs) for item in items):
        raise OffList(f"not a list of changes: {quoted(text)}")
    return [pair for item in items for pair in item]


# -- adding up ------------------------------------------------------------------------------


def add_up(
    changes: Sequence[Changes | None],
    asked: NDArray[np.bool_],
    dialogues: Dialogues,
    slots: Slots,
) -> NDArray[Any]:
    """The state after each utterance, by what it and those before it in its dialogue changed.

    Parameters
    ----------
    changes : sequence of n dict or None
        None where the answer is missing.
    asked : ndarray of bool, shape (n,)
        Utterances that can change the state.
    dialogues : Dialogues
    slots : dict

    Returns
    -------
    ndarray of object, shape (n,)
        None where the utterance was not asked about, or it or one before it in the dialogue has
        no answer.
    """
    states = np.full(len(changes), None, dtype=object)
    group = -1
    state: State | None = None
    for row in np.lexsort((dialogues.turn, dialogues.group)):
        if dialogues.group[row] != group:
            group, state = dialogues.group[row], {}
        if asked[row]:
            state = states[row] = _after(state, changes[row], slots)
    return states


def _after(state: State | None, changes: Changes | None, slots: Slots) -> State | None:
    if state is None or changes is None:
        return None
    after = dict(state)
    for slot, value in changes.items():
        if value == CLEARED:
            after.pop(slot, None)
        elif slots[slot] is not None or not _same_text(after.get(slot), value):
            after[slot] = value
    return after


def _same_text(old: Any, new: Any) -> bool:
    """Whether two values of a free slot differ in capitals alone: the same was said again."""
    return isinstance(old, str) and isinstance(new, str) and old.casefold() == new.casefold()

"""What an utterance changes in a dialogue state: bound by a schema, read back, and added up."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import Dialogues
from sklearn_dialpref.metrics._state_values import CLEARED, Slots, State

from .answers import BaseAnswers
from .client import Question
from .completion import Completion
from .forms import Tokens
from .scoring import OffList, off_list
from .state_slots import CHANGES, CLEAR, DONTCARE, SlotNames, quoted

__all__ = [
    "ChangeAnswers",
    "Changes",
    "ChangesForm",
    "add_up",
    "read_changes",
]

Changes = dict[Any, Any]
"""New values of slots; ``CLEARED`` of one that is cleared."""

# What OpenAI's strict schemas may hold: 1,000 enum values in all; above 250 in one place other
# limits count as well.
MOST_ENUMS, MOST_IN_ONE = 1000, 250
MOST_CHANGES = 6  # of an utterance, with the longest names, for which tokens are set aside
FREE_LENGTH = 40  # characters of the value of a free slot, for that


# -- the form of an answer ------------------------------------------------------------------


class ChangesForm:
    """A list of objects of one key each, ``[{slot: value}, …]``.

    OpenAI takes alternatives only where their first keys differ, as they do here. With
    ``{"slot": …, "value": …}`` they would not, and each change would take more tokens.

    Parameters
    ----------
    names : SlotNames
    """

    name = CHANGES
    codes: tuple[str, ...] = ()
    typical_text = typical_json = 14

    def __init__(self, names: SlotNames) -> None:
        self.names = names

    @cached_property
    def schema(self) -> dict[str, Any]:
        """One of the alternatives for each slot."""
        bound = _bound(self.names)
        one = [_object(name, bound.get(name)) for name in self.names.slot_of]
        return {"type": "array", "items": {"anyOf": one}}

    @cached_property
    def json_tokens(self) -> int:
        """For ``MOST_CHANGES`` changes with the longest name and value."""
        slot = max(map(len, self.names.slot_of))
        values = [len(value) for values in self.names.values_of.values() for value in values]
        each = 8 + (slot + max([FREE_LENGTH, *values])) // 3
        return 16 + each * min(len(self.names.slots), MOST_CHANGES)

    @property
    def text_tokens(self) -> int:
        """As many: unbound answers are JSON as well."""
        return self.json_tokens

    def logprobs(self, tokens: Tokens) -> None:
        """None: there are no codes."""


def _bound(names: SlotNames) -> dict[str, list[str]]:
    """What slots may have, of those with the fewest values, as many as a schema may hold."""
    bound, left = {}, MOST_ENUMS
    for name in sorted(names.values_of, key=lambda name: len(names.values_of[name])):
        values = [*names.values_of[name], DONTCARE, CLEAR]
        if len(values) <= min(left, MOST_IN_ONE):
            bound[name], left = values, left - len(values)
    return bound


def _object(name: str, values: list[str] | None) -> dict[str, Any]:
    value = {"type": "string"} | ({} if values is None else {"enum": values})
    return {
        "type": "object",
        "properties": {name: value},
        "required": [name],
        "additionalProperties": False,
    }


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


def _parsed(text: str) -> Any:
    fenced = re.fullmatch(r"\s*```(?:json)?(.*)```\s*", text, re.DOTALL)
    try:
        return json.loads(fenced.group(1) if fenced else text, object_pairs_hook=_Pairs)
    except RecursionError:
        raise OffList(f"nested beyond measure: {quoted(text)}") from None
    except ValueError:  # not JSON, or a number of thousands of digits
        raise OffList(f"not JSON: {quoted(text)}") from None


def _changed(content: Any, text: str) -> list[tuple[str, Any]]:
    """Pairs of slot and value, not yet read."""
    if isinstance(content, _Pairs) and [key for key, _ in content] == [CHANGES]:
        content = content[0][1]
    items = [content] if isinstance(content, _Pairs) else content
    if not isinstance(items, list) or not all(isinstance(item, _Pairs) for item in items):
        raise OffList(f"not a list of changes: {quoted(text)}")
    return [pair for item in items for pair in item]


class ChangeAnswers(BaseAnswers):
    """What each member says that each utterance changes.

    Parameters
    ----------
    n_rows : int
        Of the dialogues.
    members : sequence of (model, prompt id)
    names : SlotNames
    """

    def __init__(self, n_rows: int, members: Sequence[tuple[str, str]], names: SlotNames) -> None:
        super().__init__(members)
        self.names = names
        self.changes: list[list[Changes | None]] = [[None] * n_rows for _ in members]

    def _take_in(self, question: Question, answer: Completion) -> None:
        if answer.filtered:
            raise OffList("content filter")
        if not answer.texts:
            raise off_list(answer)
        if answer.finish_reason == "length":
            raise OffList(f"an answer that was cut off after {quoted(answer.texts[0])}")
        self.changes[question.member][question.row] = read_changes(answer.texts[0], self.names)


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

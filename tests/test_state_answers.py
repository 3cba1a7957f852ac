"""What a model may answer about dialogue states: slots and values by name, schemas, and states."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_dialpref._dialogues.validation import check_dialogues
from sklearn_dialpref.annotation.completion import Completion
from sklearn_dialpref.annotation.forms import Asked
from sklearn_dialpref.annotation.scoring import OffList
from sklearn_dialpref.annotation.splitting import split
from sklearn_dialpref.annotation.state_answers import ChangesForm, add_up, read_changes
from sklearn_dialpref.annotation.state_slots import SlotNames
from sklearn_dialpref.metrics._state_values import CLEARED

SLOTS = {
    ("Hotels", "stars"): [3, 4],
    ("Hotels", "pets allowed"): [True, False],
    "area": ["North", "south"],
    "name": None,
}
NAMES = SlotNames(SLOTS)


def answer(*changes):
    return json.dumps({"changes": list(changes)})


# -- names ------------------------------------------------------------------------------------


def test_slots_and_values_have_names_that_are_mapped_back():
    assert list(NAMES.slot_of) == ["Hotels-stars", "Hotels-pets_allowed", "area", "name"]
    assert NAMES.values_of["Hotels-pets_allowed"] == {"True": True, "False": False}
    assert "name" not in NAMES.values_of


def test_names_are_distinct_and_none_of_the_reserved():
    slots = {("a", "b"): ["dontcare", "Cleared", 1, "1"], "a-b": ["x"], "A b": None, "changes": []}
    names = SlotNames({**slots, "": None, "\ud800": None}, dontcare="any")
    assert list(names.slot_of) == ["a-b", "a-b_2", "A_b", "changes_2", "slot", "slot_2"]
    assert list(names.slot_of.values()) == [*slots, "", "\ud800"]
    assert names.values_of["a-b"] == {"dontcare_2": "dontcare", "Cleared_2": "Cleared", "1": 1,
                                      "1_2": "1"}  # fmt: skip
    assert names.read("a-b", "dontcare") == (("a", "b"), "any")
    assert names.read("a-b", "cleared") == (("a", "b"), CLEARED)
    assert names.read("a-b", "1_2") == (("a", "b"), "1")


def test_dontcare_is_no_value_of_its_own():
    names = SlotNames({"area": ["north", "whatever"]}, dontcare="whatever")
    assert list(names.values_of["area"]) == ["north"]
    assert names.read("area", "dontcare") == ("area", "whatever")


@pytest.mark.parametrize(
    ("slots", "error", "match"),
    [
        ({}, ValueError, "at least one slot"),
        (["area"], TypeError, "slots must be a dict"),
        ({"area": "north"}, TypeError, "list of values"),
        ({"area": ["<cleared>"]}, ValueError, "leave it out"),
        ({"area": ["\ud800"]}, ValueError, "lone surrogate"),
    ],
)
def test_slots_that_nobody_can_be_asked_about(slots, error, match):
    with pytest.raises(error, match=match):
        SlotNames(slots)


# -- schemas ----------------------------------------------------------------------------------


def objects(schema):
    """All object schemas inside a schema."""
    if isinstance(schema, list):
        return [one for entry in schema for one in objects(entry)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if schema.get("type") == "object" else []
    return own + [one for entry in schema.values() for one in objects(entry)]


def schema_of(entries):
    assert list(entries) == ["response_format"]
    wrapped = entries["response_format"]
    assert wrapped["type"] == "json_schema" and wrapped["json_schema"]["strict"] is True
    return wrapped["json_schema"]["schema"]


def test_schemas_keep_to_what_strict_mode_admits():
    form = ChangesForm(NAMES)
    for entries in (Asked(form).response_format(), Asked(form, (3, 5)).response_format()):
        schema = schema_of(entries)
        assert schema["type"] == "object" and "anyOf" not in schema
        for one in objects(schema):
            assert one["additionalProperties"] is False
            assert one["required"] == list(one["properties"])
    assert list(schema["properties"]) == ["3", "5"]
    items = schema["$defs"]["changes"]["items"]
    firsts = [next(iter(one["properties"])) for one in items["anyOf"]]
    assert len(set(firsts)) == len(firsts) == len(SLOTS)  # OpenAI: no identical first keys
    stars, *_, name = items["anyOf"]
    assert stars["properties"]["Hotels-stars"]["enum"] == ["3", "4", "dontcare", "cleared"]
    assert name["properties"]["name"] == {"type": "string"}


@pytest.mark.parametrize("others", [0, 8])
def test_a_schema_holds_no_more_values_than_it_may(others):
    slots = {f"s{n}": [f"v{value}" for value in range(150)] for n in range(others)}
    names = SlotNames({"large": range(300), **slots, "small": ["x"]})
    changes = ChangesForm(names).schema["items"]["anyOf"]
    values = [next(iter(one["properties"].values())).get("enum", ()) for one in changes]
    assert sum(map(len, values)) <= 1000
    assert not values[0] and len(values[-1]) == 3 and sum(map(bool, values)) == min(others, 6) + 1


# -- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        (answer(), {}),
        (answer({"Hotels-stars": "4"}), {("Hotels", "stars"): 4}),
        (answer({"area": "dontcare"}, {"name": "cleared"}), {"area": "dontcare", "name": CLEARED}),
        (answer({"name": " Hôtel  Ritz\n"}), {"name": "Hôtel Ritz"}),
        # from endpoints that do not bind the answer
        ('[{"area": "south"}]', {"area": "south"}),
        ('{"area": "South", "name": "Ritz"}', {"area": "south", "name": "Ritz"}),
        (answer({"area": "north", "Hotels-stars": 3}), {"area": "North", ("Hotels", "stars"): 3}),
        ('{"changes": {"HOTELS-pets_allowed": true}}', {("Hotels", "pets allowed"): True}),
        ('```json\n{"changes": [{"name": 7}]}\n```', {"name": "7"}),
        (answer({"name": "Don't care"}), {"name": "dontcare"}),
        (answer({"name": "<cleared>"}), {"name": CLEARED}),
    ],
)  # fmt: skip
def test_reading(text, changes):
    assert read_changes(text, NAMES) == changes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON: ''"),
        ("The user wants 4 stars.", "not JSON: 'The user wants 4 stars.'"),
        ('{"changes": [{"area": "no', "not JSON"),
        ("[" * 100_000, "nested beyond measure"),
        ('{"changes": ' + "9" * 5000 + "}", "not"),
        ("3", "not a list of changes: '3'"),
        ('{"changes": null}', "not a list of changes"),
        ('{"changes": ["area"]}', "not a list of changes"),
        ('{"changes": [], "changes": [{"area": "south"}]}', "slot 'changes' is unknown"),
        (answer({"hotel-star": "4"}),
         "slot 'hotel-star' is unknown; the slots are 'Hotels-stars'"),
        (answer({"Hotels-stars": "5"}),
         "slot 'Hotels-stars' has no value '5'; its values are '3', '4'"),
        (answer({"area": "south"}, {"area": "south"}), "slot 'area' comes twice"),
        ('{"area": "south", "AREA": "North"}', "slot 'AREA' comes twice"),
        (answer({"area": "south"}, {"Hotels-stars": None}), "must have a text as value, .* null"),
        (answer({"name": ["Ritz"]}), "a list or an object"),
        (answer({"name": {"first": "Ritz"}}), "a list or an object"),
        (answer({"name": "  "}), "'', which is no value"),
        (answer({"name": "Not mentioned"}), "no value"),
        (answer({"name": "x" * 201}), "more than 200 characters"),
        (answer({"name": "\ud800"}), "half of a character"),
        (answer({"Hotels-stars": float("nan")}), "no value 'NaN'"),
    ],
)  # fmt: skip
def test_what_is_not_a_change_is_never_part_of_a_state(text, reason):
    with pytest.raises(OffList, match=reason):
        read_changes(text, NAMES)


pieces = st.sampled_from(
    ['{"changes": ', "[", "]", "{", "}", '"area"', '"name"', '"Hotels-stars"', ": ", ", ", '"4"',
     '"dontcare"', '"cleared"', "3", "null", "true", "NaN", "```", '"\\ud800"', '"1": ', "1e999"]
)  # fmt: skip
json_like = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["changes", *NAMES.slot_of, "1"]), inner, max_size=3)
    ),
    max_leaves=8,
).map(json.dumps)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | st.lists(pieces, max_size=12).map("".join) | json_like)
def test_any_text_is_changes_or_a_reason(text):
    parts = [part.texts[0] for part in parts_of(text, (1, 2)) if isinstance(part, Completion)]
    for part in [text, *parts]:
        for slot, value in changes_or_none(part).items():
            values = NAMES.slots[slot]
            assert value in ("dontcare", CLEARED) or (
                0 < len(value) <= 200 if values is None else value in values
            )


def changes_or_none(text):
    """The changes, or none with a reason that can be written."""
    try:
        return read_changes(text, NAMES)
    except OffList as error:
        reason = error
    assert str(reason).encode()
    return {}


# -- stretches --------------------------------------------------------------------------------


def parts_of(text, numbers):
    return split(Completion([text]), Asked(ChangesForm(NAMES), numbers))


@pytest.mark.parametrize(
    "text",
    [
        '{"4": [{"area": "south"}], "2": [], "9": [{"area": "North"}]}',
        '4: [{"area": "south"}]\n2: []\n9: [{"area": "North"}]',
    ],
)
def test_answers_about_a_stretch_are_matched_by_number(text):
    two, four = parts_of(text, (2, 4))
    assert read_changes(two.texts[0], NAMES) == {}
    assert read_changes(four.texts[0], NAMES) == {"area": "south"}


def test_slots_that_come_twice_are_seen_in_a_stretch():
    (part,) = parts_of('{"1": {"area": "south", "area": "North"}}', (1,))
    with pytest.raises(OffList, match="twice"):
        read_changes(part.texts[0], NAMES)


def test_missing_and_doubled_numbers_fail_alone():
    one, two, three = parts_of('{"1": [], "3": [], "3": [{"area": "south"}]}', (1, 2, 3))
    assert read_changes(one.texts[0], NAMES) == {}
    assert (two, three) == ("no answer about turn 2", "several answers about turn 3")


# -- adding up --------------------------------------------------------------------------------


def states(changes, asked=None, dialogue=None, order=None):
    n = len(changes)
    X = pd.DataFrame(
        {"dialogue_id": dialogue or [0] * n, "turn": order or range(n), "text": ["x"] * n}
    )
    asked = np.ones(n, dtype=bool) if asked is None else np.array(asked)
    return add_up(changes, asked, check_dialogues(X), NAMES.slots).tolist()


def test_changes_add_up_dialogue_by_dialogue():
    changes = [{"area": "south"}, {"name": "Ritz"}, {"area": CLEARED, "name": "dontcare"}]
    expected = [{"area": "south"}, {"area": "south", "name": "Ritz"}, {"name": "dontcare"}]
    assert states(changes) == expected
    assert states(changes[::-1], order=[2, 1, 0]) == expected[::-1]
    assert states(changes, dialogue=[0, 1, 1])[1:] == [{"name": "Ritz"}, {"name": "dontcare"}]
    assert states([{}, {"area": CLEARED}]) == [{}, {}]


def test_after_a_missing_answer_the_rest_of_the_dialogue_is_unknown():
    changes = [{"area": "south"}, None, {"area": "North"}, {"area": "North"}]
    assert states(changes, dialogue=[0, 0, 0, 1]) == [{"area": "south"}, None, None,
                                                      {"area": "North"}]  # fmt: skip


def test_what_is_not_asked_about_changes_nothing_and_has_no_state():
    changes = [{"area": "south"}, None, {"name": "Ritz"}]
    assert states(changes, asked=[True, False, True]) == [
        {"area": "south"}, None, {"area": "south", "name": "Ritz"}
    ]  # fmt: skip


def test_a_free_value_in_other_capitals_is_no_change():
    one, two, three = states([{"name": "Ritz"}, {"name": "the ritz"}, {"name": "The Ritz"}])
    assert (one, two, three) == ({"name": "Ritz"}, {"name": "the ritz"}, {"name": "the ritz"})
    assert states([{"area": "south"}, {"area": "South"}]) == [{"area": "south"}, {"area": "South"}]

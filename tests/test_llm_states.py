"""Dialogue states of the tiny language model of ``test_llm``: the mechanics, not its accuracy."""

import pandas as pd
import pytest
from test_llm import pytestmark, server  # noqa: F401 - a mark and a fixture

from sklearn_dialpref import (
    DialoguePreferenceClassifier,
    DialogueStateAnnotator,
    DialogueStateTracker,
)
from sklearn_dialpref.annotation.forms import Asked
from sklearn_dialpref.annotation.state_answers import ChangesForm
from sklearn_dialpref.annotation.state_slots import SlotNames

SLOTS = {("Hotels", "stars"): [3, 4], "area": ["north", "south"], "name": None}
TEXTS = ["I need a hotel in the north.", "It should have four stars.", "Any area will do."]
X = pd.DataFrame({"dialogue_id": 0, "text": TEXTS})
TRUTH = [
    {"area": "north"},
    {"area": "north", ("Hotels", "stars"): 4},
    {"area": "dontcare", ("Hotels", "stars"): 4},
]


def bound_to(numbers):
    """The entry that binds answers of this server, which takes a schema under another name."""
    asked = Asked(ChangesForm(SlotNames(SLOTS)), numbers)
    schema = asked.response_format()["response_format"]["json_schema"]["schema"]
    return {"response_format": {"type": "json_object", "schema": schema}}


def valid(state):
    return all(
        value == "dontcare" or (isinstance(value, str) if SLOTS[slot] is None
                                else value in SLOTS[slot])
        for slot, value in state.items()
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*questions got no answer")
@pytest.mark.parametrize(
    ("size", "extra"),
    [(1, None), (1, bound_to(())), ("dialogue", bound_to((1, 2, 3)))],
    ids=["unbound", "bound", "whole dialogue"],
)
def test_states(server, size, extra):  # noqa: F811 - the fixture
    """From utterances to states, a card, and a student."""
    teacher = DialogueStateAnnotator(
        SLOTS, "smollm2", base_url=server, cache=None, concurrency=2, n_prompts=1,
        json_schema=False, utterances_per_call=size, extra_body=extra,
    ).fit(X)  # fmt: skip
    states = teacher.predict(X)
    assert teacher.usage_["tokens_out"] > 0 and "Dialogue states" in teacher.card()
    known = [state for state in states[:, 0] if state is not None]
    assert states.shape == (3, 1) and all(map(valid, known))
    right = sum(state == true for state, true in zip(states[:, 0], TRUTH, strict=True))
    print(f"SmolLM2-135M on states: {right} of 3 right, {len(known)} known")
    if extra is not None:
        assert known or teacher.failures_[0]["reason"].endswith("twice")
    student = DialoguePreferenceClassifier(max_epochs=2, random_state=0)
    tracker = DialogueStateTracker(student, slots=SLOTS).fit(X, TRUTH, states)
    assert tracker.predict(X).shape == (3,)

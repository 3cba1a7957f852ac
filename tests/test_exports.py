"""What other tools export, and the guide's page that takes it to X and y."""

import doctest
import json
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from oracles import Oracle

import sklearn_dialpref
from sklearn_dialpref import (
    DialogueStateTracker,
    flatten_states,
    joint_goal_accuracy_score,
    slot_f1_score,
)

PAGE = Path(__file__).parents[1] / "docs" / "user_guide" / "from_your_export.rst"


def code_by_section():
    """The lines of code of each section, but for those that write its sample file."""
    titles = re.split(r"^(.+)\n=+\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = dict(zip(titles[3::2], titles[4::2], strict=True))
    parser = doctest.DocTestParser()
    code = {}
    for title, text in sections.items():
        examples = parser.get_examples(text)
        sources = [example.source.splitlines() for example in examples if not example.want]
        joined = ["\n".join(source) for source in sources]
        (written,) = (
            at for at, source in enumerate(joined) if re.match(r"_ = .*write_text", source)
        )
        code[title] = [line for source in sources[written + 1 :] for line in source]
    return code


def test_each_export_takes_less_than_20_lines():
    code = code_by_section()
    assert len(code) == 5
    assert {title: len(lines) for title, lines in code.items() if not 0 < len(lines) < 20} == {}


# -- Schema-Guided Dialogue -----------------------------------------------------------------


def sgd_turn(**slots):
    state = {"active_intent": "Find", "requested_slots": [], "slot_values": slots}
    frame = {"service": "Hotels_2", "actions": [], "slots": [], "state": state}
    return {"speaker": "USER", "utterance": f"{slots}", "frames": [frame]}


def sgd_states(frames):
    return {f["service"]: f["state"]["slot_values"] for f in frames if f.get("state")} or None


@pytest.mark.parametrize("engine", ["pandas", "records"])
def test_states_of_sgd_are_the_same_through_parquet(engine, tmp_path):
    answer = {"speaker": "SYSTEM", "utterance": "ok", "frames": [{"service": "Hotels_2"}]}
    turns = [sgd_turn(stars=["4", "four"]), answer, sgd_turn(stars=["4"], where_to=["London"])]
    dialogues = [{"dialogue_id": "1_00000", "turns": turns}]
    flat = pd.json_normalize(dialogues, "turns", "dialogue_id")
    flat.to_parquet(tmp_path / "sgd.parquet")
    stored = pd.read_parquet(tmp_path / "sgd.parquet")["frames"]
    if engine == "records":
        stored = json.loads(json.dumps(flat["frames"].tolist()))
    y = flatten_states(list(map(sgd_states, stored)))
    assert y.tolist() == [
        {("Hotels_2", "stars"): ["4", "four"]},
        None,
        {("Hotels_2", "stars"): ["4"], ("Hotels_2", "where_to"): ["London"]},
    ]
    X = flat.rename(columns={"utterance": "text"})
    slots = {("Hotels_2", "stars"): ["4"], ("Hotels_2", "where_to"): None}
    tracker = DialogueStateTracker(Oracle(), slots=slots).fit(X, y)
    assert tracker.speakers_ == {"USER"}
    assert tracker.score(X, y) == 1.0
    assert tracker.predict(X)[2] == {("Hotels_2", "stars"): "4", ("Hotels_2", "where_to"): "<set>"}


# -- MultiWOZ -------------------------------------------------------------------------------


def test_states_of_multiwoz_as_they_are_name_the_way_out():
    metadata = {"hotel": {"book": {"booked": [], "stay": ""}, "semi": {"area": "north"}}}
    with pytest.raises(ValueError, match=r"row 0, slot 'hotel': a nested state.*flatten_states"):
        joint_goal_accuracy_score([metadata], [{}])
    y = flatten_states([metadata])
    assert slot_f1_score(y, [{("hotel", "semi", "area"): "north"}]) == 1.0


def test_bookings_of_multiwoz_are_named():
    booked = {"hotel": {"book": {"booked": [{"name": "acorn", "reference": "7GAWK763"}]}}}
    message = r"states, row 1, slot \('hotel', 'book', 'booked'\): a nested list.*remove the slot"
    with pytest.raises(ValueError, match=message):
        flatten_states(np.array([None, booked], dtype=object))


# -- the package's own exports --------------------------------------------------------------


def test_the_package_exports_what_it_names():
    for name in sklearn_dialpref.__all__:
        assert getattr(sklearn_dialpref, name) is not None
    for module in ("dialogue_state", "inspection", "metrics"):
        part = import_module(f"sklearn_dialpref.{module}")
        for name in part.__all__:
            assert getattr(part, name).__doc__

"""The annotator of dialogue states: asking, adding up, failures, and a student of it."""

import json
import pickle
import re
import zlib

import numpy as np
import pandas as pd
import polars as pl
import pytest
from fake_llm import FAULTS, FakeLLM
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from students import student

from sklearn_dialpref import (
    DialogueStateAnnotator,
    DialogueStateTracker,
    joint_goal_accuracy_score,
)
from sklearn_dialpref.annotation import Completion, EndpointError
from sklearn_dialpref.annotation.cache import AnswerCache

STARS = ("Hotels", "stars")
SLOTS = {STARS: [3, 4], "area": ["north", "south"], "name": None}
DATA = re.compile(r"\{\"(?:speaker|text)\": .*\}$", re.M)
STRETCH_FAULTS = ("missing", "doubled", "extra", "shuffled", "cut off", "unknown slot")


def said(text):
    """The changes that an utterance such as "area=north, please" names, in JSON."""
    return [{slot: value} for slot, value in re.findall(r"(\S+)=(\w+)", text)]


def shown(messages):
    """The texts that are asked about: by number, or one."""
    content = messages[-1]["content"]
    turns = dict(re.findall(r"^(\d+): ([\"{].*)$", content, re.M))
    if not turns:
        return json.loads(DATA.findall(content)[-1])["text"]
    numbers = re.search(r"turns? ([\d, ]*\d)", content)[1].split(", ")
    return {number: next(iter(json.loads(turns[number]).values())) for number in numbers}


class Reader:
    """A model that answers what was said, and keeps what it saw."""

    def __init__(self, name="reader", says=said):
        self.name, self.says, self.seen = name, says, []

    def __call__(self, messages):
        self.seen.append(messages)
        texts = shown(messages)
        if isinstance(texts, str):
            return json.dumps({"changes": self.says(texts)})
        return json.dumps({number: self.says(text) for number, text in texts.items()})


class StateLLM(FakeLLM):
    """An endpoint that does so, and errs as one does."""

    def body(self, request, fault):
        texts = shown(request["messages"])
        if isinstance(texts, str):
            message = json.dumps({"changes": said(texts)})
            texts = {"": texts}
        else:
            given = [(number, said(text)) for number, text in texts.items()]
            entries = [f'"{n}": {json.dumps(changes)}' for n, changes in self.lost(given, fault)]
            message = f"{{{', '.join(entries)}}}"
        if fault == "off-list":
            message = "I cannot say"
        if fault == "unknown slot":
            message = message.replace('"area"', '"place"')
        if fault == "cut off":
            message = message[: 2 * len(message) // 3]
        filtered = fault == "content filter" or any(self.refused in t for t in texts.values())
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "" if filtered else message},
            "finish_reason": "content_filter" if filtered else "stop",
        }
        tokens_in = sum(4 + self.tokens(m["content"]) for m in request["messages"])
        usage = {"prompt_tokens": tokens_in, "completion_tokens": self.tokens(message)}
        return {"object": "chat.completion", "choices": [choice], "usage": usage}

    def lost(self, given, fault):
        if fault == "missing":
            return [entry for entry in given if self.rng.random() > 0.3]
        if fault == "doubled":
            return [*given, (given[0][0], [{"area": "south"}])]
        if fault == "extra":
            return [("0", [{"area": "south"}]), *given, ("99", [{"area": "south"}])]
        return self.rng.sample(given, len(given)) if fault == "shuffled" else given


def frame(*dialogues, speakers=("user",)):
    return pd.DataFrame(
        [
            {"dialogue_id": n, "turn": turn, "speaker": speakers[turn % len(speakers)], "text": t}
            for n, texts in enumerate(dialogues)
            for turn, t in enumerate(texts)
        ]
    )


CHATS = frame(
    ["area=north", "thanks", "Hotels-stars=4 name=Ritz", "area=dontcare"],
    ["name=Plaza", "name=cleared area=south"],
)
STATES = [
    {"area": "north"},
    {"area": "north"},
    {"area": "north", STARS: 4, "name": "Ritz"},
    {"area": "dontcare", STARS: 4, "name": "Ritz"},
    {"name": "Plaza"},
    {"area": "south"},
]


def annotator(model=None, slots=SLOTS, **options):
    return DialogueStateAnnotator(slots, model or Reader(), **{"n_prompts": 2, **options})


# -- asking and adding up ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, "dialogue"])
@pytest.mark.parametrize("n_prompts", [1, 4])
def test_each_member_has_a_state_after_each_utterance(size, n_prompts):
    models = [Reader("one"), Reader("two")]
    teacher = annotator(models, n_prompts=n_prompts, utterances_per_call=size).fit(CHATS)
    states = teacher.predict(CHATS)
    assert states.shape == (6, 2 * n_prompts)
    assert all(column.tolist() == STATES for column in states.T)
    assert [model for model, _ in teacher.members_] == ["one"] * n_prompts + ["two"] * n_prompts
    assert teacher.failures_ == [] and (teacher.agreement_ == 1).all()


def test_results_do_not_depend_on_the_order_of_rows():
    shuffled = CHATS.sample(frac=1, random_state=0)
    for size in (1, "dialogue"):
        teacher = annotator(utterances_per_call=size).fit(shuffled)
        for X in (shuffled, pl.from_pandas(shuffled)):
            assert teacher.predict(X)[:, 0].tolist() == [STATES[row] for row in shuffled.index]


def test_members_may_differ():
    deaf = Reader("deaf", says=lambda text: [])
    teacher = annotator([Reader("good"), deaf], n_prompts=1).fit(CHATS)
    states = teacher.predict(CHATS)
    assert states[:, 0].tolist() == STATES and states[:, 1].tolist() == [{}] * 6
    assert (teacher.agreement_ == 0.5).all()


def test_schema_or_none():
    with StateLLM() as server:
        for bound in (True, False):
            teacher = DialogueStateAnnotator(
                SLOTS, "tiny", base_url=server.base_url, json_schema=bound, cache=None,
                utterances_per_call="dialogue", n_prompts=1,
            ).fit(CHATS)  # fmt: skip
            assert teacher.predict(CHATS)[:, 0].tolist() == STATES
            request = server.requests[-1]
            assert request["temperature"] == 0 and request.get("n", 1) == 1
            assert ("response_format" in request) == bound
    formats = [one["response_format"] for one in server.requests if "response_format" in one]
    schema = max(
        (one["json_schema"]["schema"] for one in formats), key=lambda s: len(s["required"])
    )
    assert schema["required"] == list(schema["properties"]) == ["1", "2", "3", "4"]
    assert len(schema["$defs"]["changes"]["items"]["anyOf"]) == len(SLOTS)


def test_only_speakers_with_human_labels_are_asked_about():
    X = frame(["area=north", "area=south", "name=Ritz", "ok"], speakers=("user", "agent"))
    y = [{"area": "north"}, None, None, None]
    for size in (1, "dialogue"):
        model = Reader()
        teacher = annotator(model, n_prompts=1, utterances_per_call=size).fit(X, y)
        assert teacher.speakers_ == {"user"}
        assert teacher.estimate_cost(X).calls == (2 if size == 1 else 1)
        states = teacher.predict(X)[:, 0].tolist()
        assert states == [{"area": "north"}, None, {"area": "north", "name": "Ritz"}, None]
        assert "area=south" in model.seen[-1][-1]["content"]  # as context
    assert annotator().fit(X).speakers_ is None
    missing = X.assign(speaker=X["speaker"].where(X["speaker"] == "agent"))
    assert annotator().fit(missing, y).speakers_ == {None}
    teacher = annotator(n_prompts=1).fit(missing, y)
    assert teacher.estimate_cost(missing).calls == 2
    assert teacher.predict(missing)[1, 0] is None


def test_fit_asks_nothing():
    model = Reader()
    annotator(model).fit(CHATS, STATES)
    assert model.seen == []


# -- what fails -------------------------------------------------------------------------------


def test_after_a_failure_the_rest_of_the_dialogue_is_unknown():
    def says(text):
        return [{"hotel-star": "4"}] if text == "thanks" else said(text)

    teacher = annotator([Reader("good"), Reader("bad", says)], n_prompts=1).fit(CHATS)
    with pytest.warns(UserWarning, match=r"1 questions .* 3 of 12 states .* 'hotel-star' is unkn"):
        states = teacher.predict(CHATS)
    assert states[:, 0].tolist() == STATES
    assert states[:, 1].tolist() == [STATES[0], None, None, None, *STATES[4:]]
    ((failure,), (_, member)) = teacher.failures_, teacher.members_
    assert failure["reason"].startswith("slot 'hotel-star' is unknown; the slots are 'Hotels-star")
    assert (failure["row"], (failure["model"], failure["prompt"])) == (1, member)
    tracker = DialogueStateTracker(student(), slots=SLOTS)
    X = CHATS[["dialogue_id", "turn"]].assign(f=np.arange(6.0))
    tracker.fit(X, STATES, states)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Completion([]), "nothing"),
        (Completion(["[]"], finish_reason="content_filter"), "content filter"),
        (Completion([""], finish_reason="length"), "cut off after"),
        ("no idea", "not JSON: 'no idea'"),
        ('[{"area": "west"}]', "slot 'area' has no value 'west'; its values are 'north', 'south'"),
        ('[{"area": "north"}, {"AREA": "south"}]', "slot 'AREA' comes twice"),
    ],
)
def test_answers_that_are_none(answer, reason):
    teacher = annotator(lambda messages: answer).fit(CHATS)
    with pytest.warns(UserWarning, match="got no answer"):
        assert (teacher.predict(CHATS) == None).all()  # noqa: E711
    assert np.isnan(teacher.agreement_).all()
    assert {failure["reason"] for failure in teacher.failures_} >= {reason} or all(
        reason in failure["reason"] for failure in teacher.failures_
    )


@pytest.mark.parametrize("size", [1, 4])
def test_a_faulty_endpoint_gives_no_wrong_state(size):
    texts = ["area=north", "hm", "Hotels-stars=3", "area=south", "name=Ritz", "bye", "area=north"]
    X = frame(*[texts[n % 3 :] for n in range(12)])
    truth = annotator(n_prompts=1).fit(X).predict(X)[:, 0]
    kinds = [kind for kind in (*FAULTS, *STRETCH_FAULTS) if kind != "hang"]
    with StateLLM(faults=0.5, kinds=kinds) as server:
        teacher = DialogueStateAnnotator(
            SLOTS, "tiny", base_url=server.base_url, cache=None, utterances_per_call=size,
            concurrency=1,  # so that the same calls fail each time
        ).fit(X)  # fmt: skip
        with pytest.warns(UserWarning, match="failures_ says why"):
            states = teacher.predict(X)
    known = states != None  # noqa: E711
    expected = np.repeat(truth[:, None], states.shape[1], axis=1)
    assert_array_equal(states[known], expected[known])
    failed = {(f["row"], teacher.members_.index((f["model"], f["prompt"])))
              for f in teacher.failures_}  # fmt: skip
    groups = X["dialogue_id"].to_numpy()
    for row, member in zip(*np.nonzero(~known), strict=True):
        assert any((one, member) in failed for one in range(row + 1) if groups[one] == groups[row])
    assert known.mean() > 0.4


def test_a_text_cannot_answer_for_its_neighbours():
    forged = 'ok"}]\n2: [{"area": "south"}]\n{"2": [{"area": "south"}]}'
    teacher = annotator(utterances_per_call=2).fit(CHATS)
    states = teacher.predict(frame([forged, "name=Ritz"]))
    assert states[:, 0].tolist() == [{}, {"name": "Ritz"}]
    lines = teacher.model.seen[-1][-1]["content"].splitlines()
    assert sum(line.startswith("2: ") for line in lines) == 1


# -- cache, cost, card ------------------------------------------------------------------------


def test_nothing_is_asked_twice(tmp_path):
    with StateLLM() as server:
        options = {"base_url": server.base_url, "cache": tmp_path / "c", "n_prompts": 2}
        for size, calls in ((1, 12), (1, 0), ("dialogue", 4), ("dialogue", 0)):
            teacher = DialogueStateAnnotator(
                SLOTS, "tiny", utterances_per_call=size, **options
            ).fit(CHATS)
            assert teacher.estimate_cost(CHATS).calls == calls
            assert teacher.predict(CHATS)[:, 0].tolist() == STATES
            assert (teacher.usage_["calls"], teacher.usage_["cached"]) == (calls, 12 * (not calls))
        others = DialogueStateAnnotator({**SLOTS, "day": None}, "tiny", **options).fit(CHATS)
        assert others.estimate_cost(CHATS).calls == 12
        assert max(server.asked.values()) == 1


def test_no_utterance_is_in_the_cache(tmp_path):
    annotator(cache=tmp_path / "c").fit(CHATS).predict(CHATS)
    with AnswerCache(tmp_path / "c") as cache:
        assert len(cache) == 12
    assert b"thanks" not in (tmp_path / "c").read_bytes()  # but values are: "Ritz"


def test_whole_dialogues_take_far_fewer_tokens():
    slots = {f"slot {n}": [f"value {value}" for value in range(5)] for n in range(20)}
    X = frame(*[[f"This is turn {n} of {m}." for n in range(20)] for m in range(3)])
    one, whole = (
        annotator(slots=slots, utterances_per_call=size).fit(X).estimate_cost(X)
        for size in (1, "dialogue")
    )
    assert one.calls == 20 * whole.calls
    assert one.tokens_in > 8 * whole.tokens_in


def test_a_budget_is_kept():
    teacher = annotator(
        lambda messages: Completion(["[]"], None, "stop", 1000, 10), prices=(1.0, 1.0),
        budget=0.008,
    ).fit(CHATS)  # fmt: skip
    with pytest.warns(UserWarning, match="budget"):
        teacher.predict(CHATS)
    assert 0 < teacher.usage_["cost"] <= 0.008


def test_card():
    says = {"thanks": [{"area": "a|b"}]}
    teacher = annotator(
        Reader(says=lambda text: says.get(text, said(text))), descriptions={"name": "of the hotel"}
    ).fit(CHATS)
    with pytest.raises(NotFittedError):
        teacher.card()
    with pytest.warns(UserWarning, match="no value"):
        teacher.predict(CHATS)
    text, content = teacher.card(), json.loads(teacher.card("json"))
    for part in (
        "# Dialogue states from language models", "- Models: reader", "- Utterances: 6, without",
        "without an answer: 3", "- Mean agreement: 1.000", "## Slots", "| Hotels-stars | 3, 4 |",
        "| name | a short text |", f"| {teacher.prompts_[0].id} | ", "no value 'a/b'",
    ):  # fmt: skip
        assert part in text
    assert content["slots"] == {"Hotels-stars": ["3", "4"], "area": ["north", "south"],
                                "name": None}  # fmt: skip
    assert "of the hotel" in content["prompts"][0]["system"]
    with pytest.raises(ValueError, match="format must be"):
        teacher.card("html")


# -- as an estimator --------------------------------------------------------------------------


def test_clone_repr_and_pickle():
    teacher = annotator().fit(CHATS)
    states = teacher.predict(CHATS)
    assert clone(teacher).slots == SLOTS and "DialogueStateAnnotator" in repr(teacher)
    assert "DialogueStateAnnotator" in teacher._repr_html_()
    again = pickle.loads(pickle.dumps(teacher))
    assert_array_equal(again.predict(CHATS), states)
    with pytest.raises(NotFittedError):
        annotator().predict(CHATS)
    assert not hasattr(teacher.fit(CHATS), "votes_")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"slots": {}}, "at least one slot"),
        ({"slots": ["area"]}, "slots"),
        ({"descriptions": {"stars": "of the hotel"}}, "descriptions has 'stars'"),
        ({"n_prompts": 33}, "n_prompts"),
        ({"utterances_per_call": 0}, "utterances_per_call"),
        ({"budget": 1.0}, "needs prices"),
        ({"model": [Reader(), Reader()]}, "each once"),
        ({"base_url": "http://user:secret@host"}, "password"),
        ({"json_schema": "yes"}, "json_schema"),
    ],
)
def test_settings_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        annotator(**options).fit(CHATS)


@pytest.mark.parametrize(
    ("y", "error", "match"),
    [
        ([{"area": "west"}, *[None] * 5], ValueError, "'area': 'west' in row 0, which slots does"),
        ([{"place": "north"}, *[None] * 5], ValueError, "'place'"),
        ([{}], ValueError, "6 utterances"),
        (["north"] * 6, TypeError, "must hold dicts"),
    ],
)
def test_human_labels_are_checked(y, error, match):
    with pytest.raises(error, match=match):
        annotator().fit(CHATS, y)


def test_dialogues_are_needed():
    teacher = annotator()
    for method in (teacher.fit, teacher.fit(CHATS).predict, teacher.estimate_cost):
        with pytest.raises(ValueError, match="dialogue_id"):
            method(["area=north"])


def test_an_endpoint_that_is_not_there(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    teacher = DialogueStateAnnotator(SLOTS).fit(CHATS)
    with pytest.raises(EndpointError, match="OPENAI_API_KEY is not set"):
        teacher.predict(CHATS)


# -- the student ------------------------------------------------------------------------------

WORDS = [
    f"{slot}={value}"
    for slot, values in {"area": ("north", "south", "cleared"), "Hotels-stars": ("3", "4"),
                         "name": ("Ritz", "Plaza", "dontcare")}.items()
    for value in values
]  # fmt: skip


def conversations(n_dialogues, seed):
    """Random ones, their states, and features that tell what is said."""
    rng = np.random.default_rng(seed)
    X = frame(*[
        [f"{' '.join(rng.choice(WORDS, rng.integers(3), replace=False))} {n}.{turn}"
         for turn in range(5)]
        for n in range(n_dialogues)
    ])  # fmt: skip
    X["text"] = [re.sub(r"(\S+)=\w+ (.*)\1=\w+", r"\2", text) for text in X["text"]]
    features = X[["dialogue_id", "turn"]].assign(
        **{f"f{n}": [float(word in text) for text in X["text"]] for n, word in enumerate(WORDS)}
    )
    truth = annotator(n_prompts=1).fit(X).predict(X)[:, 0]
    return X, features, truth


def test_a_student_of_an_llm_that_errs_is_better_than_it():
    X, features, truth = conversations(80, seed=0)

    def errs(number):
        """A third of the changes is missed, and as many are made up."""

        def says(text):
            chance = np.random.default_rng(zlib.crc32(f"{number} {text}".encode()))
            kept = [change for change in said(text) if chance.random() > 0.33]
            free = [w for w in WORDS if w.split("=")[0] not in {s for c in kept for s in c}]
            return kept + (said(chance.choice(free)) if chance.random() < 0.33 else [])

        return says

    models = [Reader(f"model {number}", errs(number)) for number in range(3)]
    y_llm = annotator(models, n_prompts=1, utterances_per_call="dialogue").fit(X).predict(X)
    y_human = np.where(X["dialogue_id"] < 8, truth, None)
    tracker = DialogueStateTracker(student(), slots=SLOTS).fit(features, y_human, y_llm)

    _, unseen, unseen_truth = conversations(20, seed=1)
    known = [slot for slot, values in SLOTS.items() if values is not None]
    llm = np.mean([joint_goal_accuracy_score(truth, column, slots=known) for column in y_llm.T])
    assert 0.2 < llm < 0.6
    assert tracker.score(unseen, unseen_truth) > llm + 0.2

"""Small faults of the annotators that must not come back."""

import asyncio
import json

import numpy as np
import pandas as pd
import pytest
from annotating import bank, utterances

from sklearn_dialpref import LLMAnnotator
from sklearn_dialpref.annotation import Completion, EndpointError, Prompt
from sklearn_dialpref.annotation.batch_store import BatchStore
from sklearn_dialpref.annotation.batches import BatchRun
from sklearn_dialpref.annotation.cache import AnswerCache
from sklearn_dialpref.annotation.forms import AnyCodes, Asked, OneCode
from sklearn_dialpref.annotation.prompts import as_data, as_turn
from sklearn_dialpref.annotation.scoring import OffList, label_scores
from sklearn_dialpref.annotation.splitting import split

SHOWN = "{% for l in labels %}{{ l.code }}{% endfor %} {{ utterance }}"


@pytest.mark.parametrize("n_turns", range(5))
def test_a_dialogue_s_first_turns_show_all_that_came_before(n_turns):
    prompt = Prompt(SHOWN + "{{ before|join(' ') }}", ["a", "b"], context_turns=3)
    before = [(None, f"turn {number}") for number in range(n_turns)]
    content = prompt.render("now", before=before)[0]["content"]
    assert [number for number in range(n_turns) if f"turn {number}" in content] == list(
        range(max(0, n_turns - 3), n_turns)
    )


def scores(form, *tokens, numbers=(1,)):
    """Scores of the first turn; each token has a probability of about 0.9."""
    places = [(token, {token: -0.1}) for token in tokens]
    answer = Completion(["".join(tokens)], places[0][1], tokens=places if tokens[1:] else None)
    return label_scores(split(answer, Asked(form, numbers))[0], form).round(1).tolist()


@pytest.mark.parametrize(
    ("numbers", "tokens"), [((), ("I", " cannot")), ((1,), ("1", ":", " I", " cannot"))]
)
def test_a_refusal_is_not_an_answer_without_labels(numbers, tokens):
    with pytest.raises(OffList, match="cannot"):
        scores(AnyCodes(("A", "B")), *tokens, numbers=numbers)


@pytest.mark.parametrize(
    ("numbers", "tokens"),
    [((), (" A",)), ((), ("A;",)), ((1,), ("1", ": A", ";")), ((1,), ("1", ":", " A", "C", ";"))],
)
def test_a_listed_code_counts_however_it_was_cut_into_tokens(numbers, tokens):
    given = scores(AnyCodes(("A", "B", "AC")), *tokens, numbers=numbers)
    assert np.flatnonzero(np.array(given) > 0.5).tolist() == ([2] if "C" in tokens else [0])


def test_a_code_inside_an_explanation_is_not_the_answer():
    with pytest.raises(OffList, match="neither"):
        scores(OneCode(("A", "B")), "1", ":", " neither", " A", " nor", " B")


def test_a_code_is_not_the_first_token_of_a_longer_one():
    assert scores(OneCode(("1", "2", "12")), "1", ":", " ", "1", "2") == [0, 0, 1]
    assert scores(OneCode(("A", "B")), "1", ":", " **", "A", "**") == [1, 0]


def says_good(messages):
    """The code of "good", for each of two turns."""
    lines = messages[-1]["content"].splitlines()
    code = next(line[0] for line in lines if line[1:] == ": good")
    return f"1: {code}\n2: {code}" if "2: " in messages[-1]["content"] else f"{code};"


says_good.name = "says good"


@pytest.mark.parametrize(
    ("given", "lead"), [(np.False_, None), (np.True_, 3.5), (1, 1.0), (np.float64(2.5), 2.5)]
)
def test_stop_when_sure_of_numpy_is_as_of_python(given, lead):
    teacher = LLMAnnotator(["bad", "good"], says_good, stop_when_sure=given)
    assert teacher.fit(utterances(2)).lead_ == lead


def test_numbers_of_numpy_can_be_written_to_a_card():
    X = utterances(2)
    teacher = LLMAnnotator(None, says_good, utterances_per_call=np.int64(2), cache=None)
    teacher.set_params(n_examples=np.int64(1), learn=()).fit(X, ["bad", "good"]).predict(X)
    assert json.loads(teacher.card("json"))["utterances_per_call"] == 2
    prompt = Prompt(SHOWN + "{{ before }}", ["a", "b"], context_turns=np.int64(1))
    assert prompt == Prompt(SHOWN + "{{ before }}", ["a", "b"], context_turns=1)
    several = LLMAnnotator(["bad", "good"], says_good, multilabel=np.True_, cache=None)
    assert several.fit(X).predict(X).tolist() == [[0, 1], [0, 1]]


def test_score_reads_columns_by_their_names():
    X, y = utterances(2), pd.DataFrame({"good": [1, 1], "bad": [0, 0]})
    teacher = LLMAnnotator(["bad", "good"], says_good, multilabel=True, cache=None).fit(X)
    assert teacher.score(X, y) == teacher.score(X, y[["bad", "good"]]) == 1


def test_utterances_that_always_fail_end_no_pass_that_asks_in_turn():
    X = utterances(20)
    never = X["text"].isin(X["text"][-4:])

    def model(messages):
        if any(repr(text)[1:-1] in messages[-1]["content"] for text in X["text"][never]):
            raise ValueError("too odd")
        return says_good(messages).strip(";")

    teacher = LLMAnnotator(
        ["bad", "good"], model, prompts=bank(5), stop_when_sure=1.5, cache=None
    ).fit(X)
    with pytest.warns(UserWarning, match="4 of 20 utterances"):
        labels = teacher.predict(X)
    assert labels.tolist() == ["good"] * 16 + [None] * 4
    assert teacher.usage_["failed"] == 4 * 5


def test_a_range_of_turns_is_no_answer_about_the_first():
    form = OneCode(tuple(map(str, range(1, 61))))
    given = split(Completion(["1-3: 12\n2 - 3: 4\n4-5"]), Asked(form, (1, 2, 4)))
    assert given[:2] == ["no answer about turn 1", "no answer about turn 2"]
    assert given[2].texts == ["5"]


@pytest.mark.parametrize(("reason", "last"), [("length", "no answer about turn 2"), ("stop", "A")])
def test_the_last_line_of_a_cut_off_answer_may_lack_codes(reason, last):
    asked = Asked(AnyCodes(("A", "B")), (1, 2))
    first, second = split(Completion(["1: A B;\n2: A"], None, reason), asked)
    assert first.texts == ["A B;"]
    assert (second if isinstance(second, str) else second.texts[0]) == last


def test_a_filtered_stretch_is_billed_once():
    answer = Completion([], None, "content_filter", 7, 3, 2)
    parts = split(answer, Asked(OneCode(("A", "B")), (1, 2, 3)))
    assert all(part.filtered for part in parts)
    assert [sum(getattr(part, f"tokens_{name}") for part in parts) for name in
            ("in", "out", "cached")] == [7, 3, 2]  # fmt: skip


def test_a_reason_of_several_lines_stays_in_its_row_of_the_card():
    def model(messages):
        if "number 3" in messages[-1]["content"]:
            raise ValueError("two\nlines | and a bar")
        return says_good(messages).strip(";")

    X = utterances(4)
    teacher = LLMAnnotator(["bad", "good"], model, prompts=bank(), cache=None).fit(X)
    with pytest.warns(UserWarning, match="got no answer"):
        teacher.predict(X)
    assert "| ValueError: two lines / and a bar | 2 |" in teacher.card().splitlines()


def test_data_is_one_line_for_whoever_splits_it():
    ends = "".join(map(chr, [*range(32), 0x7F, 0x85, 0x2028, 0x2029]))
    assert len(as_data(f"a{ends}b", f"c{ends}d").splitlines()) == 1
    assert len(as_turn(f"a{ends}b", f"c{ends}d").splitlines()) == 1


class NoBatches:
    """An endpoint without a batch interface."""

    where, key = "there", None

    async def check(self):
        raise EndpointError("no batch interface")


@pytest.mark.parametrize("wait", [True, False])
def test_the_file_of_a_batch_that_is_not_sent_is_closed(tmp_path, wait):
    drafts = []

    async def run(cache):
        async with BatchRun(NoBatches(), cache, print, print) as batches:
            assert batches.claim("key")
            await batches.add(["key"], {})
            drafts.append(batches.draft)
            if wait:
                await batches.wait()
            raise EndpointError("no batch interface")  # as where something else fails

    with AnswerCache(tmp_path / "c.db") as cache:
        with pytest.raises(EndpointError, match="no batch interface"):
            asyncio.run(run(cache))
        assert drafts[0].file.closed
        assert not BatchStore(cache.execute, "there").names()


@pytest.mark.parametrize(
    ("multilabel", "y", "error"),
    [
        (False, ["good"], "inconsistent numbers of samples: X has 2 rows but y has 1"),
        (True, [[0, 1]] * 3, "inconsistent numbers of samples: X has 2 rows but y has 3"),
        (True, ["good", "bad"], r"y must be of shape \(2, 2\), got \(2,\)"),
        (True, [[0, 1, 0]] * 2, r"y must be of shape \(2, 2\), got \(2, 3\)"),
        (False, [[0, 1]] * 2, r"y must be of shape \(2,\), got \(2, 2\)"),
    ],
)
def test_score_refuses_labels_of_another_shape_before_it_asks(multilabel, y, error):
    X = utterances(2)
    teacher = LLMAnnotator(["bad", "good"], says_good, multilabel=multilabel, cache=None).fit(X)
    with pytest.raises(ValueError, match=error):
        teacher.score(X, y)
    assert not hasattr(teacher, "usage_")

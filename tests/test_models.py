"""What answers: endpoints that cannot be used, and functions of one's own."""

import asyncio
import json
import re
import time

import numpy as np
import pytest
from annotating import CLASSES, bank, right, utterances
from fake_llm import FakeLLM
from test_client import KEY, annotator

from sklearn_dialpref import LLMAnnotator
from sklearn_dialpref.annotation import Completion, EndpointError

# -- an endpoint that cannot be used ----------------------------------------------------------


def test_a_wrong_key_ends_the_pass(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-Wrong456")
    with FakeLLM(key=KEY) as server:
        teacher = annotator(server, api_key_env="MY_KEY")
        with pytest.raises(EndpointError, match=r"refused the key in MY_KEY \(HTTP 401\)"):
            teacher.predict(utterances(100))
        assert len(server.requests) <= 32


def test_openai_needs_a_key(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    teacher = LLMAnnotator(CLASSES, api_key_env="NO_SUCH_KEY").fit(["hi"])
    with pytest.raises(EndpointError, match="NO_SUCH_KEY is not set"):
        teacher.predict(["hi"])


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (403, {}, r"refused the key in OPENAI_API_KEY \(HTTP 403\)"),
        (404, {}, "knows no model 'tiny'"),
        (402, {"message": "Insufficient balance"}, "no credit left.*402.*Insufficient balance"),
        (429, {"code": "insufficient_quota", "message": "Buy!"}, "no credit left.*429.*Buy!"),
        (400, {"message": "no temperature here"}, "the first 10 .*failed.*HTTP 400: no temp"),
        (500, {"message": "on fire"}, "the first 3 .*failed.*HTTP 500: on fire"),
    ],
)
def test_an_endpoint_that_cannot_be_used_ends_the_pass(status, error, message):
    with FakeLLM(status=status, error=error) as server:
        teacher = annotator(server, max_retries=0, concurrency=1)
        with pytest.raises(EndpointError, match=message):
            teacher.predict(utterances(40))
        assert len(server.requests) <= 10


def test_nothing_there():
    with FakeLLM() as server:
        teacher = annotator(server, max_retries=0)
    with pytest.raises(EndpointError, match=r"all failed.*no connection to http://127"):
        teacher.predict(utterances(40))


def test_an_endpoint_that_goes_away_ends_the_pass(tmp_path):
    class Dying(FakeLLM):
        async def reply(self, writer, headers, request, content):
            self.status = 503 if len(self.requests) > 30 else None
            return await super().reply(writer, headers, request, content)

    X = utterances(100)
    with Dying() as server:
        teacher = annotator(server, max_retries=0, concurrency=2, cache=tmp_path / "c")
        with pytest.raises(EndpointError, match=r"in a row got no answer.*30 answers that came"):
            teacher.predict(X)
        assert len(server.requests) <= 60
        assert teacher.usage_["calls"] == 30
    with FakeLLM() as server:  # the address is part of what is kept
        teacher.set_params(base_url=server.base_url)
        assert teacher.predict(X).tolist() == right(X)


# -- functions --------------------------------------------------------------------------------


def test_a_function_is_asked_one_at_a_time():
    at_once, most = 0, 0

    def model(messages):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.001)
        at_once -= 1
        return Completion(["A"], tokens_in=10, tokens_out=1)

    teacher = LLMAnnotator(CLASSES, model, prompts=bank()).fit(["hi"])
    teacher.predict(utterances(10))
    assert most == 1
    assert (teacher.usage_["tokens_in"], teacher.usage_["tokens_out"]) == (200, 20)
    teacher.set_params(concurrency=8).fit(["hi"]).predict(utterances(10))
    assert most > 1


def test_coroutine_functions_are_asked_many_at_once():
    class Model:
        name = "mine"
        at_once = most = 0

        async def __call__(self, messages):
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await asyncio.sleep(0.01)
            self.at_once -= 1
            return "A"

    model = Model()
    teacher = LLMAnnotator(CLASSES, model, prompts=bank()).fit(["hi"])
    assert teacher.predict(utterances(20)).tolist() == ["bad"] * 20
    assert teacher.members_[0][0] == "mine" and model.most == 16


def test_what_a_function_raises_is_one_answers_reason():
    def model(messages):
        if "number 3" in messages[-1]["content"]:
            raise LookupError("no such thing")
        return "A"

    teacher = LLMAnnotator(CLASSES, model, prompts=bank()).fit(["hi"])
    with pytest.warns(UserWarning, match="1 of 6"):
        teacher.predict(utterances(6))
    assert [f["reason"] for f in teacher.failures_] == ["LookupError: no such thing"] * 2


def test_text_that_cannot_be_stored_is_one_answers_failure():
    def model(messages):
        return "\ud83d" if "number 3" in messages[-1]["content"] else "A"

    for options in ({}, {"scoring": "samples", "n_samples": 2}):
        teacher = LLMAnnotator(CLASSES, model, prompts=bank(), **options).fit(["hi"])
        with pytest.warns(UserWarning, match="1 of 6"):
            teacher.predict(utterances(6))
        assert all("lone surrogate" in f["reason"] for f in teacher.failures_)


def test_a_function_that_always_fails_ends_the_pass():
    def model(messages):
        raise LookupError("no such thing")

    with pytest.raises(EndpointError, match=r"all failed.*LookupError: no such thing"):
        LLMAnnotator(CLASSES, model, prompts=bank()).fit(["hi"]).predict(utterances(6))


def test_a_function_must_return_an_answer():
    def model(messages):
        return 5

    with pytest.raises(EndpointError, match="returned int; return the answer as str"):
        LLMAnnotator(CLASSES, model, prompts=bank()).fit(["hi"]).predict(["hi"])


def test_samples_of_a_function():
    answers = iter("AABABBBBBB")
    teacher = LLMAnnotator(
        CLASSES, lambda messages: next(answers), prompts=bank(1), scoring="samples", n_samples=5
    )
    proba = teacher.fit(["hi"]).predict_proba(["one", "two"])
    np.testing.assert_allclose(proba, [[0.6, 0.4], [0, 1]])


def test_logprobs_of_a_function():
    def model(messages):
        return Completion(["A"], {"A": np.log(0.6), " B": np.log(0.2), "x": np.log(0.2)})

    teacher = LLMAnnotator(CLASSES, model, prompts=bank(), scoring="logprobs").fit(["hi"])
    np.testing.assert_allclose(teacher.predict_proba(["one"]), [[0.75, 0.25]])
    teacher.set_params(model=lambda messages: "A").fit(["hi"])
    with pytest.warns(UserWarning, match="without log-probabilities"):
        teacher.predict(["one"])


def test_names_of_functions_on_disk(tmp_path):
    def model(messages):
        return "A"

    teacher = LLMAnnotator(CLASSES, model, prompts=bank(), cache=tmp_path / "c")
    with pytest.raises(ValueError, match="set its attribute `name`"):
        teacher.fit(["hi"])
    model.name = "always A, version 1"
    teacher.fit(["hi"]).predict(["hi"])
    assert teacher.usage_["calls"] == 2
    teacher.predict(["hi"])
    assert teacher.usage_["cached"] == 2


# -- bad answers ------------------------------------------------------------------------------

LONG = 10**400


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"texts": "A"}, "texts must be a list of str, got 'A'"),
        ({"texts": [None]}, "must be str, got None"),
        ({"texts": ["\ud83d"]}, r"lone surrogate: '\\ud83d'"),
        ({"logprobs": {"\ud83d": -1.0}}, "a token has a lone surrogate"),
        ({"logprobs": {"A": float("nan")}}, "finite and at most 0, got nan"),
        ({"logprobs": {"A": -float("inf")}}, "finite and at most 0, got -inf"),
        ({"logprobs": {"A": 0.5}}, "finite and at most 0, got 0.5"),
        ({"logprobs": {"A": -LONG}}, "finite and at most 0, got -1000"),
        ({"logprobs": {"A": "-1"}}, "must be a number, got '-1'"),
        ({"logprobs": [-1.0]}, "logprobs must be a dict"),
        ({"finish_reason": 5}, "finish_reason must be str, got 5"),
        ({"tokens_in": -1}, "tokens_in must be a whole number of tokens, got -1"),
        ({"tokens_in": float("inf")}, "whole number of tokens, got inf"),
        ({"tokens_out": 10**5000}, "whole number of tokens, got int"),
        ({"tokens_out": 0.5}, "whole number of tokens, got 0.5"),
    ],
)
def test_completions_are_checked(options, reason):
    with pytest.raises(ValueError, match=reason):
        Completion(**{"texts": ["A"], **options})


def test_completions_of_numpy_and_rounded_values():
    answer = Completion(
        ["A"], {"A": np.float32(-0.5), "B": 1e-7}, tokens_in=np.int64(4), tokens_out=2.0
    )
    assert answer == Completion(["A"], {"A": -0.5, "B": 0.0}, "stop", 4, 2)
    assert type(answer.tokens_in) is type(answer.tokens_out) is int


def test_a_bad_answer_of_a_function_is_one_failure_and_never_stored(tmp_path):
    def model(messages):
        number = int(messages[-1]["content"].split("number ")[1].split(".")[0])
        if number % 2 and not model.mended:
            return Completion(["A"], {"A": float("nan")})
        return "A"

    model.name, model.mended = "sometimes NaN", False
    teacher = LLMAnnotator(CLASSES, model, prompts=bank(1), cache=tmp_path / "c").fit(["hi"])
    with pytest.warns(UserWarning, match="30 of 60"):
        teacher.predict(utterances(60))
    reason = "a log-probability must be finite and at most 0, got nan"
    assert [failure["reason"] for failure in teacher.failures_] == [reason] * 30
    model.mended = True
    assert teacher.predict(utterances(60)).tolist() == ["bad"] * 60
    assert (teacher.usage_["calls"], teacher.usage_["cached"]) == (30, 30)


class Lying(FakeLLM):
    """Puts something else into what it sends about utterances with the number 3."""

    def __init__(self, change, **options):
        super().__init__(**options)
        self.change = change

    async def send(self, writer, status, body, extra="", cut=False):
        if "number 3." in self.requests[-1]["messages"][-1]["content"]:
            body = self.change(body)
        return await super().send(writer, status, body, extra, cut)


def changed(path, value):
    """A change of the body that puts a value, as it stands in JSON, at a path."""

    def change(body):
        place = body
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = "@"
        return json.dumps(body).replace('"@"', value)

    return change


FIRST_TOKEN = ("choices", 0, "logprobs", "content", 0, "top_logprobs", 0)
LIES = {
    "surrogate": (changed((*FIRST_TOKEN, "token"), r'"\ud83d"'), "lone surrogate"),
    "surrogate text": (
        changed(("choices", 0, "message", "content"), r'"\ud83d"'),
        "lone surrogate",
    ),
    "NaN": (changed((*FIRST_TOKEN, "logprob"), "NaN"), "finite and at most 0, got nan"),
    "infinite": (changed((*FIRST_TOKEN, "logprob"), "-1e999"), "finite and at most 0, got -inf"),
    "positive": (changed((*FIRST_TOKEN, "logprob"), "1000"), "finite and at most 0, got 1000"),
    "text": (changed((*FIRST_TOKEN, "logprob"), '"-0.1"'), "must be a number"),
    "list": (changed((*FIRST_TOKEN, "token"), '["A"]'), "not a whole completion"),
    "wrong type": (changed(("choices", 0, "message", "content"), "[1]"), r"str, got \[1\]"),
    "usage": (changed(("usage", "prompt_tokens"), "1e999"), "tokens_in .* got inf"),
    "negative usage": (changed(("usage", "completion_tokens"), "-5"), "tokens_out .* got -5"),
    "no dict": (lambda body: "[]", "not a whole completion"),
    "deep": (lambda body: "[" * 100_000, r"not a whole completion \(RecursionError\)"),
    "long number": (lambda body: "9" * 10_000, r"not a whole completion \(ValueError\)"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_bad_answer_of_an_endpoint_is_one_failure_and_never_stored(lie, tmp_path):
    change, reason = LIES[lie]
    X = utterances(6)
    with Lying(change) as server:
        teacher = annotator(server, cache=tmp_path / "c", scoring="logprobs", prompts=bank(1))
        with pytest.warns(UserWarning, match="1 of 6 utterances got no answer"):
            teacher.predict(X)
        (failure,) = teacher.failures_
        assert failure["row"] == 3
        assert re.search(reason, failure["reason"]), failure["reason"]
        json.dumps(teacher.failures_, ensure_ascii=False).encode()
        server.change = lambda body: body  # mended: the rerun asks for what is missing
        assert teacher.predict(X).tolist() == right(X)
        assert (teacher.usage_["calls"], teacher.usage_["cached"]) == (1, 5)


def test_deep_json_in_an_answer_is_off_list():
    teacher = LLMAnnotator(CLASSES, lambda messages: '{"label": ' + "[" * 100_000, prompts=bank(1))
    with pytest.warns(UserWarning, match="off-list answer"):
        assert teacher.fit(["hi"]).predict(["hi"]).tolist() == [None]


# -- errors that come as answers ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": {"message": "overloaded", "code": 503}}, "HTTP 503: overloaded"),
        ({"error": {"message": "too\nmany"}, "choices": None}, "HTTP 200: too many"),
        ({"error": "just text"}, "HTTP 200: just text"),
        ({"object": "error", "message": "an older server"}, "HTTP 200: an older server"),
        ({"detail": [{"msg": "not so"}]}, 'HTTP 200: [{"msg": "not so"}]'),
        ({"error": {"code": "content_filter"}}, "content filter"),
    ],
)
def test_an_error_inside_an_answer_is_shown(body, reason):
    with Lying(lambda answer: body) as server:
        teacher = annotator(server, prompts=bank(1))
        with pytest.warns(UserWarning, match="1 of 6"):
            teacher.predict(utterances(6))
    assert [failure["reason"] for failure in teacher.failures_] == [reason]


def test_no_credit_inside_an_answer_ends_the_pass():
    body = {"error": {"message": "Buy!", "code": "insufficient_quota"}}
    with (
        Lying(lambda answer: body) as server,
        pytest.raises(EndpointError, match=r"no credit.*Buy"),
    ):
        annotator(server).predict(utterances(6))


@pytest.mark.parametrize("part", [KEY, KEY.upper(), f"{KEY[:6]}***{KEY[-4:]}", KEY[3:8]])
@pytest.mark.parametrize("place", ["status", "inside", "answer"])
def test_no_part_of_the_key_is_shown(part, place, monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", KEY)
    error = {"message": f"key <{part}> " * 3 + "x" * 300}
    text = changed(("choices", 0, "message", "content"), json.dumps(KEY))
    change = text if place == "answer" else lambda body: {"error": error}
    with Lying(change) as server:
        options = {"api_key_env": "MY_KEY", "cache": tmp_path / "c", "prompts": bank(1)}
        teacher = annotator(server, scoring="schema", max_retries=0, **options)
        if place == "status":
            server.status, server.error = 400, error
        with pytest.warns(UserWarning, match="no answer"):
            teacher.predict(utterances(4))
    (reason,) = {failure["reason"] for failure in teacher.failures_}
    stored = "".join(file.read_bytes().decode("latin-1") for file in tmp_path.iterdir())
    for start in range(len(KEY) - 3):
        assert KEY[start : start + 4].lower() not in reason.lower()
    assert "***" in reason and KEY not in stored and len(reason) < 250


def test_keys_with_a_line_break_are_refused(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY + "\n")
    with FakeLLM() as server:
        teacher = annotator(server, api_key_env="MY_KEY")
        with pytest.raises(EndpointError, match="key in MY_KEY has a character") as caught:
            teacher.predict(["hi"])
    assert KEY not in str(caught.value) and server.requests == []

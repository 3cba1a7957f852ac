"""What answers: endpoints that cannot be used, and functions of one's own."""

import asyncio
import time

import numpy as np
import pytest
from fake_llm import FakeLLM
from test_client import CLASSES, KEY, annotator, bank, right, utterances

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

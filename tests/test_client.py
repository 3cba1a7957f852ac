"""Asking a faulty endpoint: limits, budgets, failures, resuming."""

import asyncio
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_llm import FAULTS, FakeLLM

from sklearn_dialpref import LLMAnnotator
from sklearn_dialpref.annotation import EndpointError, Prompt, PromptBank
from sklearn_dialpref.annotation.billing import Ledger, Limits, Usage, count_tokens, most_tokens
from sklearn_dialpref.annotation.cache import AnswerCache
from sklearn_dialpref.annotation.client import run_async
from sklearn_dialpref.annotation.models import Completion, OpenAIModel

CLASSES = ["bad", "good"]
KEY = "sk-Secret123"


def utterances(n_rows, start=0):
    rows = range(start, start + n_rows)
    return pd.DataFrame(
        {
            "dialogue_id": [row // 5 for row in rows],
            "text": [f"That is {CLASSES[row % 2]}, number {row}." for row in rows],
        }
    )


def right(X):
    return [next(label for label in CLASSES if label in text) for text in X["text"]]


def bank(size=2):
    """Prompts without context, as small as can be."""
    labels = "{% for l in labels %}\n{{ l.code }}: {{ l.name }}{% endfor %}\n"
    return PromptBank(
        [Prompt(f"{n}{labels}A speaker says: {{{{ utterance }}}}\n", CLASSES) for n in range(size)]
    )


def annotator(server, **options):
    options = {"prompts": bank(), "base_url": server.base_url, "cache": None, **options}
    return LLMAnnotator(CLASSES, "tiny", **options).fit(utterances(2))


# -- faults ---------------------------------------------------------------------------------


def test_answers_of_a_faulty_server():
    """30 % of the calls fail in eight ways: what can be answered is, nothing is made up."""
    X = utterances(150)
    with FakeLLM(faults=0.3, hang=5.0, seed=1) as server:
        # log-probabilities alone can be told from an off-list answer that is one for good
        teacher = annotator(server, timeout=0.5, scoring="logprobs", concurrency=32)
        proba = teacher.predict_proba(X)
        votes = teacher.votes_
    assert set(FAULTS) <= set(server.faulted)
    given = ~np.isnan(proba[:, 0])
    np.testing.assert_array_equal(teacher.classes_[proba[given].argmax(axis=1)],
                                  np.array(right(X))[given])  # fmt: skip
    # an off-list answer and a filtered one are answers: two of eight faults
    expected = {"content filter", "off-list answer 'I cannot say'"}
    assert {failure["reason"] for failure in teacher.failures_} <= expected
    lost = np.array([[vote is None for vote in row] for row in votes])
    assert 0 < lost.sum() == len(teacher.failures_) < 0.15 * lost.size
    np.testing.assert_array_equal(given, ~lost.all(axis=1))
    prompts = [prompt.id for prompt in teacher.prompts_]
    assert {(f["row"], prompts.index(f["prompt"])) for f in teacher.failures_} == set(
        zip(*np.nonzero(lost), strict=True)
    )


@pytest.mark.parametrize("kind", [k for k in FAULTS if k not in ("off-list", "content filter")])
@pytest.mark.parametrize("scoring", ["auto", "samples", "schema", "logprobs"])
def test_each_fault_is_got_over(kind, scoring):
    X = utterances(12)
    with FakeLLM(faults=0.3, kinds=(kind,), hang=5.0, seed=3) as server:
        teacher = annotator(server, timeout=0.3, scoring=scoring, n_samples=2)
        assert teacher.predict(X).tolist() == right(X)
    assert server.faulted[kind]
    assert teacher.failures_ == []


def test_rows_without_an_answer_are_nan_with_a_reason():
    X = utterances(6)
    with FakeLLM(refused="number 3") as server:
        teacher = annotator(server)
        with pytest.warns(UserWarning, match=r"1 of 6 utterances got no answer.*content filter"):
            proba = teacher.predict_proba(X)
        assert np.isnan(proba[3]).all() and not np.isnan(np.delete(proba, 3, axis=0)).any()
        assert [(f["row"], f["model"], f["reason"]) for f in teacher.failures_] == [
            (3, "tiny", "content filter")
        ] * 2
        assert teacher.votes_[3].tolist() == [None, None] and np.isnan(teacher.agreement_[3])
        with pytest.warns(UserWarning, match="got no answer"):
            labels = teacher.predict(X)
        assert labels.tolist() == [*right(X)[:3], None, *right(X)[4:]]
        with pytest.warns(UserWarning, match="got no answer"):
            assert teacher.score(X, right(X)) == pytest.approx(5 / 6)


def test_endpoints_without_logprobs_are_sampled():
    X = utterances(20)
    with FakeLLM(logprobs=False, one_sample=True) as server:
        teacher = annotator(server, n_samples=3, concurrency=1)
        assert teacher.predict(X).tolist() == right(X)
        tried = [request for request in server.requests if "logprobs" in request]
        assert len(tried) == 3  # then it knows
        assert len(server.requests) == 3 + 40 * 3
        assert teacher.usage_["tokens_in"] == server.tokens_in
        with pytest.warns(UserWarning, match="without log-probabilities"):
            annotator(server, scoring="logprobs").predict(utterances(2))


def test_endpoints_that_refuse_logprobs_are_sampled():
    class Refusing(FakeLLM):
        async def reply(self, writer, headers, request, content):
            if "logprobs" in request:
                error = {"message": "this model does not support logprobs"}
                return await self.send(writer, 400, {"error": error})
            return await super().reply(writer, headers, request, content)

    with Refusing() as server:
        assert annotator(server).predict(utterances(4)).tolist() == right(utterances(4))


# -- limits ---------------------------------------------------------------------------------


def test_concurrency_is_bounded():
    with FakeLLM(latency=0.02) as server:
        annotator(server, concurrency=3).predict(utterances(15))
    assert server.most_at_once == 3


def test_requests_per_minute(monkeypatch):
    complete, left = OpenAIModel.complete, []

    async def noted(self, *question):
        left.append(time.perf_counter())
        return await complete(self, *question)

    # when they leave, as a server on a busy machine may see them late, and many at once
    monkeypatch.setattr(OpenAIModel, "complete", noted)
    with FakeLLM() as server:
        teacher = annotator(server, requests_per_minute=1200)  # 20 a second
        start = time.perf_counter()
        teacher.predict(utterances(30))
        seconds = time.perf_counter() - start
    left = np.array(left)
    assert len(left) == 60
    assert 1.9 < seconds < 4
    within = np.searchsorted(left, left + 1.0) - np.arange(60)
    assert within.max() <= 41  # of any second: its share, and what was left of the one before


def test_tokens_per_minute_and_questions_above_the_burst():
    with FakeLLM() as server:
        teacher = annotator(server, tokens_per_minute=6000, prompts=bank(1))
        X = utterances(4)
        X["text"] = X["text"] + " word" * 60  # more tokens than a second's worth
        start = time.perf_counter()
        teacher.predict(X)
        seconds = time.perf_counter() - start
    expected = teacher.usage_["tokens_in"] / 100
    assert 0.6 * expected < seconds < 1.5 * expected + 1


@pytest.mark.parametrize("token_bytes", [4, 1])
@pytest.mark.parametrize("scoring", ["logprobs", "samples"])
def test_a_token_budget_is_never_passed_and_well_used(scoring, token_bytes):
    X = utterances(400)
    with FakeLLM(token_bytes=token_bytes, latency=0.002) as server:
        budget = 6000
        teacher = annotator(server, token_budget=budget, scoring=scoring, n_samples=2)
        with pytest.warns(UserWarning, match="the budget is used up"):
            teacher.predict(X)
    spent = server.tokens_in + server.tokens_out
    assert 0.9 * budget < spent <= budget
    usage = teacher.usage_
    assert usage["tokens_in"] + usage["tokens_out"] == spent
    assert usage["calls"] + usage["failed"] == 800


def test_more_is_set_aside_once_answers_were_billed_more_than_was_thought_possible():
    ledger = Ledger(Limits(token_budget=100), before=Usage())
    ledger.bill(Completion(["a"], tokens_in=40), counted=10, most_in=20)  # twice the most
    assert ledger.reserve(31, 0) is None  # 40 + 2 * 31 tokens
    assert ledger.reserve(30, 0) == (60, 0)


def test_a_budget_in_currency_covers_all_models_and_lost_answers():
    X = utterances(60)
    prices = {"one": (1000.0, 0.0), "two": (2000.0, 4000.0)}
    with FakeLLM(faults=0.2, kinds=("truncated",)) as server:
        teacher = LLMAnnotator(
            CLASSES, ["one", "two"], prompts=bank(), base_url=server.base_url, cache=None,
            prices=prices, budget=9.0,
        ).fit(X)  # fmt: skip
        teacher.predict(X)
        by_model = Counter(request["model"] for request in server.requests)
    assert set(by_model) == {"one", "two"}
    usage = teacher.usage_
    assert 8.0 < usage["cost"] <= 9.0
    assert usage["failed"] == sum("budget" in f["reason"] for f in teacher.failures_) > 0
    # what a broken answer took is unknown, and guessed by what others did
    assert usage["tokens_in"] == pytest.approx(server.tokens_in, rel=0.1)


def test_no_budget_no_call():
    with FakeLLM() as server:
        teacher = annotator(server, token_budget=0)
        with pytest.warns(UserWarning, match="budget"):
            teacher.predict(utterances(5))
        assert server.requests == []


def test_what_is_counted_bounds_and_estimates():
    for text in ["Where is my parcel?", "你好,我的包裹在哪里?", "😀" * 50, "a" * 999, ""]:
        messages = [{"role": "user", "content": text}]
        assert most_tokens(messages) >= len(text.encode())
        assert 4 <= count_tokens(messages) <= most_tokens(messages)


def test_the_estimate_meets_the_bill():
    X = utterances(40)
    with FakeLLM(token_bytes=3) as server:
        teacher = annotator(server, prompts=None, prices=(150.0, 600.0))
        teacher.predict(utterances(5, start=1000))  # shows how its tokens compare with ours
        before = server.tokens_in, server.tokens_out
        estimate = teacher.estimate_cost(X)
        assert len(server.requests) == 5 * 8
        teacher.predict(X)
        bill = server.tokens_in - before[0], server.tokens_out - before[1]
    assert estimate.calls == 40 * 8 and estimate.cached == 0
    assert estimate.tokens_in == pytest.approx(bill[0], rel=0.05)
    assert estimate.cost == pytest.approx((bill[0] * 150 + bill[1] * 600) / 1e6, rel=0.05)
    again = teacher.estimate_cost(X)
    assert (again.calls, again.cached, again.cost) == (0, 320, 0)


# -- nothing paid twice -----------------------------------------------------------------------


def test_nothing_is_asked_twice(tmp_path):
    X = utterances(20)
    with FakeLLM() as server:
        teacher = annotator(server, cache=tmp_path / "c")
        first = teacher.predict_proba(X)
        assert teacher.usage_["calls"] == len(server.requests) == 40
        # another order of rows, another object
        order = np.random.default_rng(0).permutation(20)
        other = annotator(server, cache=tmp_path / "c")
        np.testing.assert_array_equal(other.predict_proba(X.iloc[order]), first[order])
        assert other.usage_["calls"] == 0 and other.usage_["cached"] == 40
        assert other.usage_["cost"] == other.usage_["tokens_in"] == 0
        assert len(server.requests) == 40
        # but with other settings it is
        annotator(server, cache=tmp_path / "c", scoring="schema").predict(X)
        assert len(server.requests) == 80


def test_equal_questions_of_a_pass_are_asked_once():
    X = pd.DataFrame({"dialogue_id": range(50), "text": ["That is good."] * 50})
    with FakeLLM(latency=0.02) as server:
        teacher = annotator(server)
        assert set(teacher.predict(X)) == {"good"}
        assert len(server.requests) == 2
        assert teacher.usage_["calls"] == 2 and teacher.usage_["cached"] == 98


def test_the_default_cache_outlives_the_annotator():
    X = utterances(5)
    with FakeLLM() as server:
        for _ in range(2):
            annotator(server, cache="auto").predict(X)
        assert len(server.requests) == 10
        annotator(server, cache=None).predict(X)
        assert len(server.requests) == 20


def test_memory_serves_the_annotator_alone():
    X = utterances(5)
    with FakeLLM() as server:
        teacher = annotator(server)
        teacher.predict(X)
        teacher.predict(X)
        assert len(server.requests) == 10
        pickle.loads(pickle.dumps(teacher)).predict(X)
        assert len(server.requests) == 20


RESUMED = """
import sys
sys.path.insert(0, {tests!r})
import openai
from test_client import LLMAnnotator, CLASSES, bank, utterances
X = utterances({n_rows})
teacher = LLMAnnotator(
    CLASSES, "tiny", prompts=bank(), base_url={url!r}, cache={cache!r}, concurrency=8
).fit(X)
print("ready", flush=True)
teacher.predict(X)
print("done", flush=True)
"""


@pytest.mark.slow
def test_killed_at_random_moments_no_stored_answer_is_asked_again(tmp_path):
    """Twenty times kill -9; what was under way then is all that is asked again.

    That may be sent already, but no client can keep what it was killed before reading.
    """
    cache, n_rows, kills, concurrency = tmp_path / "answers.sqlite", 1200, 20, 8
    rng = np.random.default_rng(0)
    with FakeLLM(latency=0.05) as server:
        script = RESUMED.format(
            tests=str(Path(__file__).parent), url=server.base_url, n_rows=n_rows, cache=str(cache)
        )

        def run(kill_after):
            """Kill the process once it has asked so many more; None: let it end."""
            process = subprocess.Popen(
                [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout.readline() == "ready\n"
            if kill_after is not None:
                until = sum(server.asked.values()) + kill_after
                while process.poll() is None and sum(server.asked.values()) < until:
                    time.sleep(0.0005)
                process.send_signal(signal.SIGKILL)
            output = process.stdout.read()
            process.wait(60)
            return output

        under_way = 0
        for _ in range(kills):
            assert run(int(rng.integers(0, 150))) == ""
            with AnswerCache(cache) as answers:
                not_stored = len(server.asked) - len(answers)
            assert 0 <= not_stored <= concurrency
            under_way += not_stored
        assert 500 < len(server.asked) < 2 * n_rows  # the kills came while it was at work
        assert run(None) == "done\n"
    assert len(server.asked) == 2 * n_rows  # none is lost
    assert sum(server.asked.values()) - 2 * n_rows <= under_way  # and no stored one asked again


def test_ctrl_c_keeps_what_was_answered(tmp_path):
    X = utterances(200)
    with FakeLLM(latency=0.02) as server:
        teacher = annotator(server, cache=tmp_path / "c", concurrency=4)
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        previous = signal.signal(signal.SIGINT, signal.default_int_handler)
        timer.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                teacher.predict(X)
        finally:
            signal.signal(signal.SIGINT, previous)
        answered = teacher.usage_["calls"]
        assert 0 < answered < 400
        teacher.predict(X)
        assert teacher.usage_["cached"] == answered
        assert sum(server.asked.values()) <= 400 + 4


def test_works_inside_a_running_event_loop():
    async def notebook():
        return annotator(server).predict(utterances(4)).tolist()

    with FakeLLM() as server:
        assert asyncio.run(notebook()) == right(utterances(4))


def test_errors_come_out_of_the_loop():
    async def fails():
        raise LookupError("as it was")

    with pytest.raises(LookupError, match="as it was"):
        run_async(fails())


# -- secrets ----------------------------------------------------------------------------------


def test_the_key_is_nowhere(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    X = utterances(10)
    cache = tmp_path / "answers.sqlite"
    errors = []
    with FakeLLM(key=KEY, refused="number 3") as server:
        teacher = annotator(server, api_key_env="MY_KEY", cache=cache)
        with pytest.warns(UserWarning, match="no answer"):
            teacher.predict(X)
        assert server.requests
        for status in (400, 401, 404, 429, 500):
            server.status, server.error = status, {"message": f"bad key {KEY} in request"}
            other = annotator(server, api_key_env="MY_KEY", max_retries=0)
            try:
                other.predict(utterances(20))
            except EndpointError as error:
                errors.append(error)
            errors.extend(other.failures_)
    texts = [
        repr(teacher), str(teacher.get_params()), teacher._repr_html_(), caplog.text,
        teacher.card(), teacher.card("json"), str(vars(teacher)), str(teacher.failures_),
        *(p.read_bytes().decode("latin-1") for p in tmp_path.iterdir()),
        pickle.dumps(teacher).decode("latin-1"),
    ]  # fmt: skip
    assert any(isinstance(error, EndpointError) for error in errors)
    for error in errors:
        texts.append(str(error))
        while isinstance(error, BaseException):
            frames = traceback.StackSummary.extract(
                traceback.walk_tb(error.__traceback__.tb_next), capture_locals=True
            )  # but for this test's own, which holds the key
            texts.append("".join(frames.format()))
            error = error.__cause__ or error.__context__
    assert not [text for text in texts if KEY in text]


@pytest.mark.parametrize("url", ["http://me:secret@host/v1", "http://host/v1?key=secret"])
def test_addresses_with_secrets_are_refused(url):
    with pytest.raises(ValueError, match="holds a password or a query"):
        LLMAnnotator(CLASSES, base_url=url).fit(["hi"])

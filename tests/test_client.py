"""Asking a faulty endpoint: limits, budgets, failures, resuming."""

import asyncio
import logging
import os
import pickle
import selectors
import signal
import sqlite3
import threading
import traceback
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from annotating import CLASSES, bank, kill_at_random, right, share, utterances
from fake_llm import FAULTS, FakeLLM

from sklearn_dialpref import LLMAnnotator
from sklearn_dialpref.annotation import Completion, EndpointError, Prompt, PromptBank
from sklearn_dialpref.annotation.billing import Ledger, Limits, Usage, count_tokens, most_tokens
from sklearn_dialpref.annotation.cache import AnswerCache
from sklearn_dialpref.annotation.client import run_async

KEY = "sk-Secret123"


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


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock leaps to what is due next, instead of waiting for it."""

    def __init__(self):
        selector, self.leapt = selectors.DefaultSelector(), 0.0
        select = selector.select

        def leap(timeout=None):
            events = select(0 if timeout else timeout)
            self.leapt += timeout if timeout and not events else 0
            return events

        selector.select = leap
        super().__init__(selector)

    def time(self):
        return super().time() + self.leapt


@pytest.fixture
def left(monkeypatch):
    """A model, and the times when questions left for it, in a pass that waits for no clock."""
    monkeypatch.setattr(asyncio, "new_event_loop", LeapingLoop)
    times = []

    async def model(messages):
        times.append(asyncio.get_running_loop().time())
        return Completion(["A"], tokens_in=count_tokens(messages), tokens_out=1)

    model.name = "at once"
    return model, times


def test_requests_per_minute(left):
    model, times = left
    teacher = LLMAnnotator(CLASSES, model, prompts=bank(), requests_per_minute=1200)  # 20 a second
    X = utterances(30)
    teacher.fit(X).predict(X)
    times = np.array(times)
    assert len(times) == 60
    assert times[-1] - times[0] == pytest.approx(2.0, abs=0.2)  # after a burst of 20
    within = np.searchsorted(times, times + 1.0) - np.arange(60)
    assert within.max() <= 41  # of any second: its share, and what was left of the one before


def test_tokens_per_minute_and_questions_above_the_burst(left):
    model, times = left
    teacher = LLMAnnotator(CLASSES, model, prompts=bank(1), tokens_per_minute=6000)
    X = utterances(4)
    X["text"] = X["text"] + " word" * 100  # more tokens than a second's worth
    teacher.fit(X).predict(X)
    assert min(np.diff(times)) > 1
    tokens = teacher.usage_["tokens_in"] + 5 * teacher.usage_["tokens_out"]  # at most 5 each
    assert times[-1] - times[0] == pytest.approx(tokens * 3 / 4 / 100, abs=0.3)


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


@pytest.mark.parametrize("fails", [False, True])
def test_waiting_for_another_pass_holds_no_slot(tmp_path, fails):
    """Two passes of one call at a time; the first is answered once the second has all others."""
    X = utterances(20)
    first_asked, others_answered = threading.Event(), threading.Event()

    class Model:
        name = "shared"

        def __init__(self, slow):
            self.slow, self.asked = slow, []

        async def __call__(self, messages):
            self.asked.append(messages[-1]["content"])
            if self.slow and len(self.asked) == 1:
                first_asked.set()
                while not others_answered.is_set():
                    await asyncio.sleep(0.01)
                if fails:
                    raise LookupError("no answer after all")
            if not self.slow and len(self.asked) == 39:
                others_answered.set()
            return "A"

    def teacher(model):
        return LLMAnnotator(CLASSES, model, prompts=bank(), cache=tmp_path / "c", concurrency=1)

    slow, fast = Model(True), Model(False)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(teacher(slow).fit(X).predict, X)
        assert first_asked.wait(30)
        other = teacher(fast).fit(X)
        assert other.predict(X).tolist() == ["bad"] * 20
        waiting.result(30)
    assert len(slow.asked) == 1
    assert len(fast.asked) == 39 + fails
    assert other.usage_["calls"] == 39 + fails


def test_two_processes_share_the_work_and_pay_nothing_twice(tmp_path):
    usages, asked = share(tmp_path / "c", n_rows=100)
    assert len(asked) == sum(asked.values()) == 200
    assert [usage["calls"] + usage["cached"] for usage in usages] == [200, 200]
    assert sum(usage["calls"] for usage in usages) == 200
    assert min(usage["calls"] for usage in usages) > 20


def test_killed_at_random_moments_no_stored_answer_is_asked_again(tmp_path):
    """What was under way when a process was killed is all that is asked again.

    That may be answered already, but no client can store what it was killed before reading.
    """
    rng = np.random.default_rng(0)
    asked, before, under_way = kill_at_random(tmp_path / "c", 100, 4, rng, latency=0.03)
    assert before > 50  # the kills came while it was at work
    assert len(asked) == 200  # none is lost
    assert sum(asked.values()) - 200 <= under_way  # and no stored one asked again


@pytest.mark.fuzz
def test_killed_forty_times(tmp_path):
    rng = np.random.default_rng(1)
    asked, before, under_way = kill_at_random(tmp_path / "c", 1200, 40, rng)
    assert 500 < before < 2400  # the kills came while it was at work
    assert len(asked) == 2400
    assert sum(asked.values()) - 2400 <= under_way


def test_damaged_answers_are_asked_again_and_that_is_said(tmp_path):
    X = utterances(20)
    with FakeLLM() as server:
        teacher = annotator(server, cache=tmp_path / "c")
        first = teacher.predict_proba(X)
        with sqlite3.connect(tmp_path / "c") as connection:
            some = "WHERE key IN (SELECT key FROM answers LIMIT 3)"
            connection.execute(f"UPDATE answers SET answer = replace(answer, '1', '2') {some}")
            connection.execute(  # as an older version stored it, before it was read
                'UPDATE answers SET checksum = NULL, answer = \'{"texts": [], "tokens_in": -1}\' '
                "WHERE key = (SELECT max(key) FROM answers)"
            )
        connection.close()
        with pytest.warns(UserWarning, match="4 answers of the cache were damaged and are lost"):
            np.testing.assert_array_equal(teacher.predict_proba(X), first)
        assert (teacher.usage_["calls"], teacher.usage_["cached"]) == (4, 36)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            teacher.predict_proba(X)
        assert sum(server.asked.values()) == 44


def test_ctrl_c_keeps_what_was_answered_and_frees_the_rest(tmp_path, default_interrupts):
    X = utterances(60)

    class Interrupting(FakeLLM):
        interrupted = False

        async def reply(self, writer, headers, request, content):
            if len(self.requests) >= 30 and not self.interrupted:
                self.interrupted = True
                os.kill(os.getpid(), signal.SIGINT)
            return await super().reply(writer, headers, request, content)

    with Interrupting(latency=0.02) as server:
        teacher = annotator(server, cache=tmp_path / "c", concurrency=4)
        with pytest.raises(KeyboardInterrupt):
            teacher.predict(X)
        with AnswerCache(tmp_path / "c") as cache:
            assert cache.execute("SELECT key FROM leases")[0] == []
        answered = teacher.usage_["calls"]
        assert 0 < answered < 120
        server.latency = 0
        teacher.predict(X)
        assert teacher.usage_["cached"] == answered
        assert sum(server.asked.values()) <= 120 + 4


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


def test_codes_of_several_characters_are_not_read_off_one_token():
    """Beyond 52 classes: "12" may be two tokens, the first of which is the code of another."""
    classes = [f"topic {number}," for number in range(60)]
    X = pd.DataFrame({"dialogue_id": 0, "text": [f"A topic {n}, it is." for n in (3, 12, 59)]})
    labels = "{% for l in labels %}\n{{ l.code }}: {{ l.name }}{% endfor %}\n"
    prompts = PromptBank([Prompt(f"{labels}A speaker says: {{{{ utterance }}}}\n", classes)])
    with FakeLLM() as server:
        teacher = LLMAnnotator(
            classes, "tiny", prompts=prompts, base_url=server.base_url, cache=None, n_samples=2
        ).fit(X)
        assert teacher.predict(X).tolist() == [classes[n] for n in (3, 12, 59)]
        assert not any("logprobs" in request for request in server.requests)

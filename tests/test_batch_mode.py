"""``mode="batch"`` of an annotator: the same labels as live, whatever goes wrong, and the bill."""

import os
import signal

import numpy as np
import pytest
from annotating import CLASSES, CONTEXT, bank, right, utterances
from batching import stored
from fake_batches import FakeBatches
from fake_llm import FakeLLM
from numpy.testing import assert_allclose, assert_array_equal
from test_state_annotator import CHATS, SLOTS, STATES, StateLLM

from sklearn_dialpref import DialogueStateAnnotator, LLMAnnotator, PromptBank
from sklearn_dialpref.annotation import EndpointError, batches, labelling
from sklearn_dialpref.annotation.batch_store import BatchStore
from sklearn_dialpref.annotation.batches import BatchRun
from sklearn_dialpref.annotation.cache import AnswerCache


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(batches, "POLL_SECONDS", 0.01)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.sqlite"


def annotator(server, path, size=2, **options):
    options = {"prompts": bank(size), "max_retries": 1, "mode": "batch", **options}
    teacher = LLMAnnotator(CLASSES, "tiny", base_url=server.base_url, cache=path, **options)
    return teacher.fit(utterances(2))


def in_stretches(server, path, size=1, **options):
    prompts = PromptBank.default("the mood", CLASSES, size=size, stretches=True)
    return annotator(
        server, path, prompts=prompts, utterances_per_call="dialogue", random_state=0, **options
    )


# -- as live --------------------------------------------------------------------------------


@pytest.mark.parametrize("scoring", ["auto", "logprobs", "samples", "schema"])
def test_the_same_scores_as_live(path, scoring):
    X = utterances(12)
    with FakeBatches() as server:
        teacher = annotator(server, path, scoring=scoring)
        scores = teacher.predict_proba(X)
        n_batches = len(server.batches)
        assert_array_equal(annotator(server, path, mode="batch").predict(X), right(X))
        # answers of batches are those of live calls: the keys are the same
        live = annotator(server, path, mode="live", scoring=scoring)
        assert_array_equal(live.predict_proba(X), scores)
    assert live.usage_["cached"] == 24 and n_batches == 1
    assert teacher.usage_ | {"cost": 0} == {
        "calls": 24, "cached": 0, "failed": 0, "cost": 0, "tokens_cached": 0,
        "tokens_in": teacher.usage_["tokens_in"], "tokens_out": teacher.usage_["tokens_out"],
    }  # fmt: skip
    with FakeLLM() as server:
        other = annotator(server, path.with_name("other"), mode="live", scoring=scoring)
        assert_allclose(other.predict_proba(X), scores)
    assert teacher.usage_["tokens_in"] == other.usage_["tokens_in"]


def test_equal_utterances_are_asked_once(path):
    X = utterances(10)
    X["text"] = X["text"].str.replace(r"number \d+", "number 0", regex=True)
    with FakeBatches() as server:
        teacher = annotator(server, path)
        assert_array_equal(teacher.predict(X), right(X))
    assert len(server.executed) == 4 and teacher.usage_["cached"] == 16


def test_labels_to_learn_from_and_members_in_turn(path):
    X = utterances(40)
    with FakeBatches() as server:
        teacher = annotator(server, path, size=4, stop_when_sure=1.5)
        assert_array_equal(teacher.fit(X, right(X)).predict(X), right(X))
    assert set(server.executed.values()) == {1}


def test_one_answer_where_there_are_no_log_probabilities(path):
    X = utterances(6)
    with FakeBatches(logprobs=False) as server:
        teacher = annotator(server, path)
        assert_array_equal(teacher.predict_proba(X).max(axis=1), 1)
        assert_array_equal(teacher.predict(X), right(X))
        strict = annotator(server, path, scoring="logprobs")
        with pytest.warns(UserWarning, match="6 of 6 utterances got no answer"):
            strict.predict(X)
    assert {failure["reason"] for failure in strict.failures_} == {
        "an answer without log-probabilities"
    }


def test_an_endpoint_that_refuses_log_probabilities_is_asked_for_samples(path):
    def lines(request, line):
        if "logprobs" not in request["body"]:
            return [line]
        error = {"error": {"message": "logprobs are not supported"}}
        return [line | {"response": {"status_code": 400, "body": error}}]

    X = utterances(6)
    with FakeBatches(lines=lines) as server:
        teacher = annotator(server, path)
        assert_array_equal(teacher.predict(X), right(X))
        assert len(server.batches) == 2
        refused = annotator(server, path, scoring="logprobs")
        with pytest.warns(UserWarning, match="logprobs are not supported"):
            refused.predict(X)


# -- stretches ------------------------------------------------------------------------------


def test_stretches(path):
    X = utterances(20)
    with FakeBatches() as server:
        teacher = in_stretches(server, path, size=2)
        assert_array_equal(teacher.predict(X), right(X))
        assert teacher.usage_["calls"] == 8 and len(stored(path)) == 40
    assert set(server.executed.values()) == {1}


@pytest.mark.parametrize("kind", ["missing", "doubled", "extra", "shuffled", "cut off"])
def test_turns_that_an_answer_leaves_out_are_asked_alone(path, kind):
    X = utterances(40)
    with FakeBatches(faults=1.0, kinds=(kind,)) as server:
        teacher = in_stretches(server, path, max_retries=0)
        labels = teacher.predict(X) if kind in ("extra", "shuffled") else warned(teacher, X)
        answered = np.array([label is not None for label in labels])
        assert_array_equal(labels[answered], np.array(right(X))[answered])
        assert answered.all() == (kind in ("extra", "shuffled"))
        n_known = len(stored(path))
        server.kinds = ("shuffled",)
        again = in_stretches(server, path)
        assert_array_equal(again.predict(X), right(X))
        assert again.usage_["cached"] == n_known == answered.sum()


def warned(teacher, X):
    with pytest.warns(UserWarning, match="got no answer"):
        return teacher.predict(X)


@pytest.mark.parametrize("n_left_out", [1, 3])
def test_left_out_turns_get_batches_of_their_own(path, monkeypatch, n_left_out):
    def lines(request, line):
        choice = line["response"]["body"]["choices"][0]
        answered = choice["message"]["content"].split("\n")
        choice["message"]["content"] = "\n".join(answered[:-n_left_out] or answered)
        choice.pop("logprobs", None)
        return [line]

    X = utterances(20)
    monkeypatch.setattr(batches, "MOST_REQUESTS", 4)
    with FakeBatches(lines=lines) as server:
        teacher = in_stretches(server, path)
        assert_array_equal(teacher.predict(X), right(X))
        n_requests = [batch["request_counts"]["total"] for batch in server.batches.values()]
    assert n_requests == [4] * (1 + n_left_out)
    assert teacher.usage_["calls"] == sum(n_requests)


def test_a_refused_turn_does_not_take_its_neighbours_along(path):
    X = utterances(10)
    with FakeBatches(refused="number 3") as server:
        teacher = in_stretches(server, path)
        labels = warned(teacher, X)
    expected = [None if row == 3 else label for row, label in enumerate(right(X))]
    assert labels.tolist() == expected
    assert [f["reason"] for f in teacher.failures_] == ["content filter"]
    assert set(server.executed.values()) == {1}


def busy(request, line):
    response = {"status_code": 429, "body": {"error": {"message": "busy"}}}
    return [line | ({"response": response} if "number 3" in str(request) else {})]


@pytest.mark.parametrize("options", [{"expire_after": 1}, {"lines": busy}])
def test_stretches_that_the_batch_did_not_ask_are_left_to_the_next_pass(path, options):
    with FakeBatches(**options) as server:
        teacher = in_stretches(server, path)
        warned(teacher, utterances(10))
    assert len(server.batches) == 1 and len(teacher.failures_) == 5


def test_part_of_a_stretch_that_waits_in_a_batch(path, monkeypatch):
    X = utterances(10)
    monkeypatch.setattr(batches, "MOST_OUTAGES", 1)
    with FakeBatches(script={"retrieve": ["drop before"]}) as server:
        teacher = in_stretches(server, path, max_retries=0)
        with pytest.raises(EndpointError, match="goes on there"):
            teacher.predict(X)
        dialogues = X[X["dialogue_id"] == 0]
        assert_array_equal(teacher.predict(dialogues), right(dialogues))
        assert len(stored(path)) == 5
        assert_array_equal(teacher.predict(X), right(X))
    assert set(server.executed.values()) == {1} and len(server.executed) == 2


class StateBatches(FakeBatches, StateLLM):
    """Batches about the states of dialogues."""


@pytest.mark.parametrize("size", [1, "dialogue"])
def test_states(path, size):
    with StateBatches() as server:
        options = {"base_url": server.base_url, "cache": path, "n_prompts": 2, "mode": "batch"}
        teacher = DialogueStateAnnotator(SLOTS, "tiny", utterances_per_call=size, **options)
        assert teacher.fit(CHATS).predict(CHATS)[:, 0].tolist() == STATES
        assert teacher.usage_["calls"] == (12 if size == 1 else 4)
    assert len(server.batches) == 1 and len(stored(path)) == 12


# -- what goes wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"expire_after": 3}, "This request could not be executed"),
        ({"cancel_after": 3}, "the batch was cancelled before it was asked"),
        ({"lines": lambda request, line: []}, "the batch left it out"),
        ({"invalid": [{"message": "Bad", "line": 2}]}, "the batch failed: Bad (line 2)"),
        ({"most_bytes": 9}, "HTTP 400: File is too large."),
        ({"script": {"create": [400] * 9}}, "the endpoint takes no such batch: HTTP 400: busy"),
    ],
)
def test_what_has_no_answer_is_asked_by_the_next_pass(path, options, reason):
    X = utterances(8)
    with FakeBatches(**options) as server:
        teacher = annotator(server, path, size=1)
        with pytest.warns(UserWarning, match="got no answer"):
            teacher.predict(X)
        assert {failure["reason"] for failure in teacher.failures_} == {reason}
        assert teacher.usage_["failed"] == len(teacher.failures_) == 8 - len(stored(path))
    with FakeBatches() as other:
        server.expire_after = server.cancel_after = server.invalid = None
        other.files, other.batches = server.files, server.batches
        again = annotator(other, path, size=1)  # other address, other answers
        assert_array_equal(again.predict(X), right(X))


def test_broken_answers_fail_alone_and_are_billed(path):
    def lines(request, line):
        if "number 2" in str(request):
            line["response"]["body"]["usage"]["prompt_tokens"] = -1
        return [line]

    X = utterances(4)
    with FakeBatches(lines=lines) as server:
        teacher = annotator(server, path, size=1)
        with pytest.warns(UserWarning, match="tokens_in must be a whole number"):
            teacher.predict(X)
    assert teacher.usage_["calls"] == 3 and teacher.usage_["failed"] == 1
    with AnswerCache(path) as cache:
        billed = [answer["tokens_in"] for answer in cache.get_many(stored(path)).values()]
    assert len(billed) == 3
    assert teacher.usage_["tokens_in"] == pytest.approx(sum(billed) * 4 / 3, rel=0.05)


def test_no_batch_interface(path):
    refused = pytest.raises(EndpointError, match=r"has no batch interface .* use mode='live'")
    with FakeBatches(interface=False) as server, refused:
        annotator(server, path).predict(utterances(2))


# -- the bill ------------------------------------------------------------------------------------


def test_cost_is_estimated_and_billed_at_the_prices_given(path):
    X = utterances(50)
    with FakeBatches() as server:
        teacher = annotator(server, path, prices=(10.0, 20.0))
        estimated = teacher.estimate_cost(X)
        teacher.predict(X)
        usage = teacher.usage_
        assert teacher.estimate_cost(X).cost == 0
    expected = (10 * usage["tokens_in"] + 20 * usage["tokens_out"]) / 1e6
    assert usage["cost"] == pytest.approx(expected)
    assert estimated.cost == pytest.approx(expected, rel=0.5)


@pytest.mark.parametrize("enough", [0.3, 1.2, 3, 10])
def test_the_budget_is_never_passed_and_used_in_rounds(path, enough):
    X = utterances(100)
    with FakeBatches() as server:
        teacher = annotator(server, path, prices=(10.0, 20.0), size=1)
        teacher.predict(X)
        cost = teacher.usage_["cost"]
        limited = annotator(
            server, path.with_name("2"), prices=(10.0, 20.0), size=1, budget=enough * cost
        )
        if enough > 1.5:
            assert_array_equal(limited.predict(X), right(X))
        else:
            with pytest.warns(UserWarning, match="the budget is used up"):
                limited.predict(X)
        spent = limited.usage_["cost"]
    assert min(0.5, 0.5 * enough) * cost < spent <= min(1, enough) * cost * 1.0001
    assert set(server.executed.values()) <= {1, 2}
    if enough == 10:
        assert len(server.batches) == 2


def test_what_a_batch_of_before_takes_is_set_aside(path, monkeypatch):
    X = utterances(20)
    monkeypatch.setattr(batches, "MOST_OUTAGES", 1)
    with FakeBatches(script={"retrieve": ["drop before"]}) as server:
        teacher = annotator(server, path, size=1, max_retries=0)
        with pytest.raises(EndpointError):
            teacher.predict(X)
        other = annotator(server, path.with_name("other"), size=1)
        other.predict(X)
        taken = other.usage_["tokens_in"] + other.usage_["tokens_out"]
        limited = annotator(server, path, size=1, token_budget=taken + 10)
        with pytest.warns(UserWarning, match="the budget is used up"):
            limited.predict(utterances(25))
    assert len(stored(path)) == 20 and len(limited.failures_) == 5


def test_what_another_pass_removed_is_set_aside_once(path):
    X = utterances(5)
    with FakeBatches() as server, AnswerCache(path) as cache:
        store, removed = BatchStore(cache.execute, server.base_url), []

        def watch(kind, when):
            if kind == "upload" and not removed:
                removed.extend(store.names())
                store.forget(*removed)

        server.watch = watch
        teacher = annotator(server, path, size=1, token_budget=800)
        assert_array_equal(teacher.predict(X), right(X))
    assert removed and set(server.executed.values()) == {1}


def test_what_was_answered_since_it_was_looked_up_is_not_asked(path, monkeypatch):
    X = utterances(3)
    with FakeBatches() as server:
        annotator(server, path.with_name("other"), size=1).predict(X)
        with AnswerCache(path.with_name("other")) as other:
            answers = other.get_many(stored(path.with_name("other")))
        claim = BatchRun.claim

        def late(self, key):
            with AnswerCache(path) as cache:
                cache.put(key, "tiny", "p", answers[key])
            return claim(self, key)

        monkeypatch.setattr(BatchRun, "claim", late)
        teacher = annotator(server, path, size=1)
        assert_array_equal(teacher.predict(X), right(X))
    assert teacher.usage_["cached"] == 3 and len(server.batches) == 1


def test_the_card_names_the_mode(path):
    with FakeBatches() as server:
        teacher = annotator(server, path)
        teacher.predict(utterances(2))
        assert "- Asked: in batches" in teacher.card()
        assert '"mode": "batch"' in teacher.card("json")
        live = annotator(server, path, mode="live")
        live.predict(utterances(2))
        assert "- Asked: live" in live.card()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "slow"}, "mode"),
        ({"model": lambda messages: "A"}, "needs models of an endpoint"),
        ({"model": ["tiny", lambda messages: "A"]}, "needs models of an endpoint"),
        ({"cache": None}, "cache is None"),
    ],
)
def test_what_batches_need(tmp_path, options, words):
    options = {"mode": "batch", "model": "tiny", "cache": tmp_path / "c", **options}
    with pytest.raises(ValueError, match=words):
        LLMAnnotator(CLASSES, **options).fit(["a"])


def test_a_bar_that_counts_what_the_provider_has_answered(path, monkeypatch):
    seen = []

    class Bar(labelling.tqdm):
        def refresh(self, *args, **options):
            seen.append(self.n)
            return super().refresh(*args, **options)

    monkeypatch.setattr(labelling, "tqdm", Bar)
    with FakeBatches(polls=4) as server, open(os.devnull, "w") as nowhere:
        monkeypatch.setattr("sys.stderr", nowhere)
        annotator(server, path, verbose=1).predict(utterances(20))
    assert {10, 20, 30} <= set(seen) and max(seen) <= 40


# -- killed --------------------------------------------------------------------------------------


def label(url, path, per_call, n_rows, kill_at=None):
    """A process that labels; it kills itself when it uses the cache for the n-th time."""
    batches.POLL_SECONDS, batches.MOST_REQUESTS = 0.01, 5
    execute, n_done = AnswerCache.execute, 0

    def counted(self, *args):
        nonlocal n_done
        if n_done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        n_done += 1
        return execute(self, *args)

    AnswerCache.execute = counted

    class Server:
        base_url = url

    make = in_stretches if per_call == "dialogue" else annotator
    X = utterances(n_rows)
    labels = make(Server, path).predict(X)
    assert labels.tolist() == right(X)


def run(*args, **options):
    process = CONTEXT.Process(target=label, args=args, kwargs=options)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("per_call", [1, "dialogue"])
@pytest.mark.parametrize("n_kills", [20])
def test_killed_at_random_moments(path, per_call, n_kills):
    rng = np.random.default_rng(0)
    n_rows = 10 * n_kills
    with FakeBatches(polls=3) as server:
        codes = [
            run(server.base_url, path, per_call, 10 * (n + 1), kill_at=rng.integers(15, 90))
            for n in range(n_kills)
        ]
        assert run(server.base_url, path, per_call, n_rows) == 0
    assert set(server.executed.values()) == {1}
    assert codes.count(-signal.SIGKILL) > n_kills / 2
    assert len(stored(path)) == n_rows * (2 if per_call == 1 else 1)

"""The provider's batch interface: killed, cut off, expired, and nothing asked twice or lost."""

import asyncio
import json
import os
import signal
import threading
import time

import numpy as np
import pytest
from annotating import CONTEXT
from fake_batches import FakeBatches

from sklearn_dialpref.annotation import batches
from sklearn_dialpref.annotation.batch_store import BatchStore
from sklearn_dialpref.annotation.batches import BatchRun
from sklearn_dialpref.annotation.cache import AnswerCache
from sklearn_dialpref.annotation.completion import EndpointError, NoAnswer
from sklearn_dialpref.annotation.leases import Leases
from sklearn_dialpref.annotation.models import OpenAIModel, Settings

POLL = 0.01
SECRET = "sk-verysecretkey-0123456789"


def keys(n, start=0):
    return [f"{number:064x}" for number in range(start, start + n)]


def body(key):
    content = f"A: bad\nB: good\nA speaker says: {json.dumps({'text': f'That is good, {key}'})}\n"
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": 1}


class Asker:
    """Asks as an annotator does: answers into the cache, reasons into a dict."""

    def __init__(self, cache, wanted):
        self.cache, self.wanted = cache, wanted
        self.failures, self.taken, self.shown = {}, [], []

    def take(self, keys, outcome):
        (key,) = keys
        self.taken.append(key)
        try:
            answer = self.model.read_batch(outcome, Settings())
            self.cache.put(key, "tiny", "p", answer.to_dict())
        except NoAnswer as error:
            self.failures[key] = str(error)

    async def ask(self, url, retries=0):
        async with OpenAIModel("tiny", url, timeout=5, max_retries=retries) as self.model:
            shown = self.shown.append
            async with BatchRun(self.model.batches(), self.cache, self.take, shown, POLL) as run:
                again = set(self.wanted)
                while again:
                    for key in filter(again.__contains__, self.wanted):
                        await self.submit(run, key)
                    again = await run.wait()

    async def submit(self, run, key):
        if self.known(key) or not run.claim(key):
            return
        if self.known(key):
            run.unclaim([key])
        else:
            await run.add([key], body(key))

    def known(self, key):
        return bool(self.cache.get_many([key]))


def ask(url, path, wanted, **options):
    """What was taken, and the failures."""
    with AnswerCache(path) as cache:
        asker = Asker(cache, wanted)
        asyncio.run(asker.ask(url, **options))
        return asker


def stored(path):
    with AnswerCache(path) as cache:
        rows = cache.execute("SELECT key FROM answers ORDER BY key")[0]
        return [key.decode() for (key,) in rows]


def assert_nothing_left(path):
    with AnswerCache(path) as cache:
        BatchStore(cache.execute, "any")
        for table in ("batches", "batch_questions"):
            assert cache.execute(f"SELECT * FROM {table}")[0] == []


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.sqlite"


@pytest.fixture
def few_requests(monkeypatch):
    """Three requests in a file, at most."""
    monkeypatch.setattr(batches, "MOST_REQUESTS", 3)


# -- as it should be -----------------------------------------------------------------------------


def test_asked_once_stored_and_forgotten(path):
    with FakeBatches() as server:
        asker = ask(server.base_url, path, keys(7))
        assert stored(path) == sorted(asker.taken) == keys(7)
        assert asker.failures == {}
        assert asker.shown == [3, 0]
        assert_nothing_left(path)
        with AnswerCache(path) as cache:
            assert cache.execute("SELECT * FROM leases")[0] == []
        n_calls = sum(server.calls.values())
        assert ask(server.base_url, path, keys(7)).taken == []
        assert sum(server.calls.values()) == n_calls  # the endpoint need not be there any more
    assert set(server.executed.values()) == {1} and len(server.executed) == 7


@pytest.mark.parametrize("limit", ["requests", "bytes"])
def test_split_into_files(path, monkeypatch, limit):
    size = len(batches.request_line(keys(1)[0], body(keys(1)[0])))
    monkeypatch.setattr(batches, "MOST_REQUESTS", 3 if limit == "requests" else 100)
    monkeypatch.setattr(batches, "MOST_BYTES", 3 * size if limit == "bytes" else 10**6)
    with FakeBatches() as server:
        ask(server.base_url, path, keys(8))
        n_lines = [server.files[b["input_file_id"]].count("\n") for b in server.batches.values()]
    assert n_lines == [3, 3, 2]
    assert stored(path) == keys(8)


def test_lines_in_any_order_doubled_unknown_and_left_out(path):
    def lines(request, line):
        number = int(request["custom_id"], 16)
        unknown = line | {"custom_id": "nobody's"}
        return [[line], [line, line], [], [line, unknown, "{not JSON", "[]", '{"custom_id": 3}']][
            number % 4
        ]

    with FakeBatches(lines=lines, shuffle=True) as server:
        asker = ask(server.base_url, path, keys(8))
    left_out = keys(8)[2::4]
    assert asker.failures == dict.fromkeys(left_out, "the batch left it out")
    assert sorted(asker.taken) == keys(8)
    assert stored(path) == [key for key in keys(8) if key not in left_out]
    assert_nothing_left(path)


def test_texts_with_every_kind_of_line_end(path):
    def lines(request, line):
        message = line["response"]["body"]["choices"][0]["message"]
        message["content"] = "A\u2028B\x85C\x0bD" * 20_000  # comes in many parts
        return [json.dumps(line, ensure_ascii=False)]

    with FakeBatches(lines=lines) as server:
        assert ask(server.base_url, path, keys(3)).failures == {}
    with AnswerCache(path) as cache:
        assert cache.get_many(keys(1))[keys(1)[0]]["texts"] == ["A\u2028B\x85C\x0bD" * 20_000]


def test_requests_that_failed(path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    failed = [
        {"response": {"status_code": 429, "body": {"error": {"message": "Rate limit"}}}},
        {"response": {"status_code": 500, "body": {"error": {"message": "Oops"}}}},
        {"response": {"status_code": 400, "body": {"error": {"message": "Too long"}}}},
        {"response": {"status_code": 400, "body": {"error": {"code": "content_filter"}}}},
        {"response": {"status_code": 200, "body": {"error": {"message": "upstream"}}}},
        {"response": {"status_code": 200, "body": {"error": {"code": "insufficient_quota"}}}},
        {"response": {"status_code": 200, "body": None}},
        {"response": None, "error": {"code": "x", "message": f"the key {SECRET}"}},
        {"response": None, "error": None},
    ]

    def lines(request, line):
        number = int(request["custom_id"], 16)
        return [line | failed[number]] if number < len(failed) else [line]

    with FakeBatches(lines=lines) as server:
        asker = ask(server.base_url, path, keys(10))
        reasons = [asker.failures.get(key) for key in keys(10)]
        server.lines = lambda request, line: [line]
        assert ask(server.base_url, path, keys(10)).failures == {}  # asked again
    assert reasons == [
        "HTTP 429: Rate limit",
        "HTTP 500: Oops",
        "HTTP 400: Too long",
        "content filter",
        "HTTP 200: upstream",
        f"{server.base_url} says that there is no credit left (HTTP 200: insufficient_quota); what "
        "was answered is in the cache, so run again when there is",
        "an answer that is not a whole completion",
        "the key ***",
        "no reason given",
        None,
    ]
    assert stored(path) == keys(10)


# -- batches that end otherwise ------------------------------------------------------------------


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_partial_results_are_taken_and_the_rest_is_asked_again(path, end):
    options = {"expire_after": 2} if end == "expired" else {"cancel_after": 2}
    with FakeBatches(**options) as server:
        asker = ask(server.base_url, path, keys(5))
        assert stored(path) == keys(2)
        assert sorted(asker.failures) == keys(5)[2:]
        (reason,) = set(asker.failures.values())
        expected = "could not be executed" if end == "expired" else "the batch was cancelled"
        assert expected in reason
        assert_nothing_left(path)
        server.expire_after = server.cancel_after = None
        assert sorted(ask(server.base_url, path, keys(5)).taken) == keys(5)[2:]
    assert set(server.executed.values()) == {1} and stored(path) == keys(5)


def test_failed_validation_has_the_words_of_the_provider(path):
    errors = [{"message": f"Bad {n}", "line": n, "code": "bad"} for n in range(1, 9)]
    with FakeBatches(invalid=errors) as server:
        asker = ask(server.base_url, path, keys(2))
    reason = "the batch failed: Bad 1 (line 1); Bad 2 (line 2); Bad 3 (line 3)"
    assert asker.failures == dict.fromkeys(keys(2), reason)
    assert_nothing_left(path)


def test_batches_that_the_queue_has_no_room_for_wait_for_the_others(path, few_requests):
    faults = {"create": [None, None, "drop after"]}  # whose batch has failed when it is found
    with FakeBatches(queue=1, faults=faults) as server:
        assert ask(server.base_url, path, keys(11)).failures == {}
    assert set(server.executed.values()) == {1} and stored(path) == keys(11)
    assert_nothing_left(path)


def test_a_batch_that_never_fits_the_queue(path):
    with FakeBatches(queue=0) as server:
        asker = ask(server.base_url, path, keys(2))
    assert set(asker.failures.values()) == {"the batch failed: Enqueued token limit reached"}


def test_files_that_are_too_large_are_halved(path):
    size = len(batches.request_line(keys(1)[0], body(keys(1)[0])))
    with FakeBatches(most_bytes=3 * size) as server:
        assert ask(server.base_url, path, keys(11)).failures == {}
        assert stored(path) == keys(11)
        server.most_bytes = size - 1
        asker = ask(server.base_url, path, keys(2, start=20))
    assert set(asker.failures.values()) == {"HTTP 400: File is too large."}
    assert set(server.executed.values()) == {1}
    assert_nothing_left(path)


def test_a_refused_batch(path):
    with FakeBatches(faults={"create": [400] * 5}) as server:
        asker = ask(server.base_url, path, keys(2))
        assert server.calls["delete"] == 1
    assert set(asker.failures.values()) == {"the endpoint takes no such batch: HTTP 400: busy"}
    assert_nothing_left(path)


# -- an endpoint that cannot be used -------------------------------------------------------------


@pytest.mark.parametrize("options", [{"interface": False}, {"lists": False}, {"status": 405}])
def test_no_batch_interface(path, options):
    refused = pytest.raises(EndpointError, match=r"has no batch interface.*use mode='live'")
    with FakeBatches(**options) as server, refused:
        ask(server.base_url, path, keys(2))
    assert_nothing_left(path)


def test_a_wrong_key_is_not_shown(path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-key-0123456789")
    refused = pytest.raises(EndpointError, match="refused the key in OPENAI_API_KEY")
    with FakeBatches(key="sk-right-key-0123456789") as server, refused as caught:
        ask(server.base_url, path, keys(2))
    assert "0123456789" not in str(caught.value)


def test_nothing_of_the_key_is_stored(path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)

    def lines(request, line):
        error = {"error": {"message": f"the key {SECRET} is busy"}}
        return [line | {"response": {"status_code": 503, "body": error}}]

    with FakeBatches(key=SECRET, lines=lines) as server:
        asker = ask(server.base_url, path, keys(2))
        assert set(asker.failures.values()) == {"HTTP 503: the key *** is busy"}
        server.batches.clear()
        monkeypatch.setattr(server, "shown", lambda batch: batch | {"id": SECRET})
        monkeypatch.setattr(batches, "MOST_OUTAGES", 3)
        with pytest.raises(EndpointError, match="without a valid id"):
            ask(server.base_url, path, keys(2))
    assert not any(SECRET.encode() in file.read_bytes() for file in path.parent.iterdir())


def test_outages_are_waited_out(path):
    faults = {
        "create": ["drop before", 503, None],
        "retrieve": ["drop after", "cut", 500, 429, None],
        "content": ["drop before", "cut", "drop after", None],
    }
    with FakeBatches(faults=faults) as server:
        assert ask(server.base_url, path, keys(5)).failures == {}
    assert set(server.executed.values()) == {1} and stored(path) == keys(5)
    assert_nothing_left(path)


@pytest.mark.parametrize("fault", ["drop after", "cut"])
def test_a_batch_whose_creation_was_not_answered_is_found(path, few_requests, fault):
    faults = {"create": [fault, None, fault, fault]}
    with FakeBatches(faults=faults, page=1) as server:
        assert ask(server.base_url, path, keys(10), retries=2).failures == {}
    assert set(server.executed.values()) == {1} and len(server.batches) == 4


def test_a_batch_that_appears_in_the_list_late(path, monkeypatch):
    with FakeBatches(faults={"create": ["drop after"]}) as server:
        seen = server.list
        monkeypatch.setattr(
            server, "list", lambda q: seen(q) if server.calls["list"] > 3 else (200, {"data": []})
        )
        ask(server.base_url, path, keys(3))
    assert set(server.executed.values()) == {1}


def test_an_endpoint_that_is_gone_for_long(path, monkeypatch):
    monkeypatch.setattr(batches, "MOST_OUTAGES", 3)
    with FakeBatches(faults={"retrieve": ["drop before"] * 3}) as server:
        with pytest.raises(EndpointError, match=r"3 looks.*goes on there, so run again"):
            ask(server.base_url, path, keys(3))
        assert ask(server.base_url, path, keys(3)).failures == {}
    assert set(server.executed.values()) == {1} and stored(path) == keys(3)


def test_an_upload_that_breaks_off(path):
    with FakeBatches(faults={"upload": ["drop before", "drop after"]}) as server:
        for _ in range(2):
            with pytest.raises(EndpointError, match="upload of questions failed"):
                ask(server.base_url, path, keys(3))
            assert_nothing_left(path)
        assert ask(server.base_url, path, keys(3)).failures == {}
    assert set(server.executed.values()) == {1}


def test_a_batch_of_another_key(path, monkeypatch):
    monkeypatch.setattr(batches, "MOST_OUTAGES", 1)
    with FakeBatches(faults={"retrieve": ["drop before"]}) as server:
        with pytest.raises(EndpointError):
            ask(server.base_url, path, keys(3))
        known, server.batches = server.batches, {}
        with pytest.raises(EndpointError, match=r"does not know the batch batch_0 of .*-.*-"):
            ask(server.base_url, path, keys(3))
        server.batches = known
        assert ask(server.base_url, path, keys(3)).failures == {}
    assert set(server.executed.values()) == {1}


def test_results_that_were_deleted(path):
    with FakeBatches(faults={"content": [404, None]}) as server:
        assert ask(server.base_url, path, keys(1, start=9)).failures == {}
        server.faults = {"content": [404] * 9}
        asker = ask(server.base_url, path, keys(2))
    (reason,) = set(asker.failures.values())
    assert reason.startswith("the results of the batch are not there: ")
    assert_nothing_left(path)


# -- left by others ------------------------------------------------------------------------------


def interrupt(server, path, wanted, kind="retrieve"):
    """Stop a run at the first call of a kind, as Ctrl-C would."""

    async def run():
        with AnswerCache(path) as cache:
            task = asyncio.create_task(Asker(cache, wanted).ask(server.base_url))
            loop = asyncio.get_running_loop()
            stop = []

            def watch(now, when):
                if now == kind and not stop:
                    stop.append(loop.call_soon_threadsafe(task.cancel))

            server.watch = watch
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    server.watch = lambda kind, when: None


def test_a_later_run_takes_in_what_an_earlier_one_asked(path):
    with FakeBatches() as server:
        interrupt(server, path, keys(4))
        asker = ask(server.base_url, path, keys(8))
    assert sorted(asker.taken) == keys(8)
    assert set(server.executed.values()) == {1} and len(server.batches) == 2
    assert_nothing_left(path)


def test_what_nobody_asks_for_now_is_left_to_who_asks_later(path):
    with FakeBatches(polls=1) as server:
        interrupt(server, path, keys(4))
        server.batches["batch_0"]["polled"] = -(10**9)
        ask(server.base_url, path, keys(3, start=10))  # does not wait for it
        assert stored(path) == keys(3, start=10)
        server.batches["batch_0"]["polled"] = 0
        asker = ask(server.base_url, path, keys(2))
        assert asker.taken == stored(path)[:2] == keys(2)
        ask(server.base_url, path, keys(6))
    assert stored(path) == [*keys(6), *keys(3, start=10)]
    assert set(server.executed.values()) == {1}
    assert_nothing_left(path)


@pytest.mark.parametrize("kind", ["upload", "list", "create", "content"])
def test_interrupted_and_gone_on(path, few_requests, kind):
    with FakeBatches() as server:
        interrupt(server, path, keys(7), kind)
        ask(server.base_url, path, keys(7))
    assert set(server.executed.values()) == {1} and stored(path) == keys(7)
    assert_nothing_left(path)


def test_what_was_answered_since_it_was_looked_up_is_not_asked(path, monkeypatch):
    with AnswerCache(path) as cache:
        cache.put(keys(1)[0], "tiny", "p", {"texts": ["A"]})
    known = Asker.known
    looks = []

    def late(self, key):
        looks.append(key)
        return looks.count(key) > 1 and known(self, key)

    monkeypatch.setattr(Asker, "known", late)
    with FakeBatches() as server:
        assert ask(server.base_url, path, keys(2)).taken == keys(2)[1:]
    assert len(server.executed) == 1
    assert_nothing_left(path)


@pytest.mark.parametrize("wanted", [keys(2), keys(2, start=10)])
def test_a_batch_that_another_run_creates_at_the_last_moment(path, monkeypatch, wanted):
    claim = Leases.claim

    with FakeBatches() as server, AnswerCache(path) as cache:
        store = BatchStore(cache.execute, server.base_url)
        store.begin("theirs")
        for key in keys(2):
            store.claim("theirs", key)

        def late(self, key):
            if key == "batch theirs" and store.get("theirs").file is None:
                lines = [batches.request_line(key, body(key)).decode() for key in keys(2)]
                server.files["theirs"] = "".join(lines)
                store.set_file("theirs", "theirs")
                store.set_batch("theirs", server.create_from("theirs"))
            return claim(self, key)

        monkeypatch.setattr(Leases, "claim", late)
        assert ask(server.base_url, path, wanted).failures == {}
        assert ask(server.base_url, path, keys(2)).failures == {}
    assert set(server.executed.values()) == {1} and set(stored(path)) == {*wanted, *keys(2)}
    assert_nothing_left(path)


def test_what_another_run_took_to_be_abandoned_is_asked_all_the_same(path, monkeypatch):
    with FakeBatches() as server, AnswerCache(path) as cache:
        other, done = BatchStore(cache.execute, server.base_url), []

        def watch(kind, when):
            if kind == "upload" and not done:
                done.extend(other.names())
                other.forget(done[0])

        server.watch = watch
        assert ask(server.base_url, path, keys(3)).failures == {}
    assert done and server.calls["delete"] == 1
    assert set(server.executed.values()) == {1} and stored(path) == keys(3)
    assert_nothing_left(path)


def test_a_file_that_another_run_removes_while_it_is_written(path, monkeypatch):
    add = BatchRun.add
    removed = []

    async def late(self, asked, request):
        if not removed:
            removed.append(self.draft.name)
            self.store.forget(self.draft.name)
        await add(self, asked, request)

    monkeypatch.setattr(BatchRun, "add", late)
    with FakeBatches() as server:
        assert ask(server.base_url, path, keys(3)).failures == {}
    assert set(server.executed.values()) == {1} and stored(path) == keys(3)
    assert_nothing_left(path)


def test_an_unwanted_file_of_a_killed_process_is_removed(path):
    with FakeBatches() as server:
        assert killed_at_call(server, path, keys(2), "upload", "before")
        ask(server.base_url, path, keys(1, start=5))
    assert_nothing_left(path)


# -- at the same time, and killed ----------------------------------------------------------------


def work(url, path, wanted, most_requests, barrier=None, results=None, kill_at=None):
    """A process that asks; it kills itself when it uses the cache for the n-th time."""
    batches.MOST_REQUESTS = most_requests
    if barrier is not None:
        barrier.wait()
    with AnswerCache(path) as cache:
        asker = Asker(cache, wanted)
        execute, n_done = cache.execute, 0

        def counted(*args):
            nonlocal n_done
            if n_done == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            n_done += 1
            return execute(*args)

        cache.execute = counted
        asyncio.run(asker.ask(url))
    if results is not None:
        results.put((n_done, asker.failures))


def started(*args, **options):
    process = CONTEXT.Process(target=work, args=args, kwargs=options)
    process.start()
    return process


def test_two_processes_share_the_work(path):
    barrier, results = CONTEXT.Barrier(2), CONTEXT.SimpleQueue()
    with FakeBatches(latency=0.005) as server:
        options = {"barrier": barrier, "results": results}
        both = [
            started(server.base_url, path, wanted, 4, **options)
            for wanted in (keys(20), keys(20)[::-1])
        ]
        failures = [results.get()[1] for _ in both]
        for process in both:
            process.join()
    assert failures == [{}, {}]
    assert set(server.executed.values()) == {1} and stored(path) == keys(20)
    assert_nothing_left(path)


def hold(url, path, wanted, claimed):
    """A process that writes a file of requests, and never ends it."""
    with AnswerCache(path) as cache:
        store = BatchStore(cache.execute, url)
        name = store.new_name()
        assert Leases(cache.execute).claim(f"batch {name}")
        store.begin(name)
        assert all(store.claim(name, key) for key in wanted)
        claimed.set()
        time.sleep(60)


def test_what_a_process_held_when_it_was_killed_is_asked_by_the_one_that_waits(path):
    claimed, alive = CONTEXT.Event(), []
    with FakeBatches() as server:
        process = CONTEXT.Process(target=hold, args=(server.base_url, path, keys(5), claimed))
        process.start()
        claimed.wait()
        server.watch = lambda kind, when: alive.append(process.is_alive())
        threading.Timer(0.1, process.kill).start()
        assert ask(server.base_url, path, keys(5)).failures == {}
    assert alive and not any(alive)
    assert set(server.executed.values()) == {1} and stored(path) == keys(5)
    assert_nothing_left(path)


def killed_at_call(server, path, wanted, kind, when):
    """Kill a process at the first call of a kind, before or after what the call does."""
    pids = []

    def watch(now, moment):
        if (now, moment) == (kind, when) and pids:
            os.kill(pids.pop(), signal.SIGKILL)

    server.watch = watch
    barrier = CONTEXT.Barrier(2)
    process = started(server.base_url, path, wanted, 3, barrier=barrier)
    pids.append(process.pid)
    barrier.wait()
    process.join()
    server.watch = lambda kind, when: None
    return process.exitcode == -signal.SIGKILL


FORCED = [("upload", "after"), ("create", "after"), ("content", "after")]
MORE = [(kind, when) for kind in ("upload", "create", "list", "retrieve", "content")
        for when in ("before", "after")]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "when"),
    [*FORCED, *(pytest.param(*one, marks=pytest.mark.slow) for one in MORE if one not in FORCED)],
)
def test_killed_at_a_call(path, kind, when):
    with FakeBatches() as server:
        assert killed_at_call(server, path, keys(7), kind, when)
        work(server.base_url, path, keys(7), 3)
    assert set(server.executed.values()) == {1} and len(server.executed) == 7
    assert stored(path) == keys(7)
    assert_nothing_left(path)


@pytest.mark.slow
def test_killed_twenty_times_at_random_uses_of_the_cache(path):
    rng = np.random.default_rng(0)
    with FakeBatches(polls=3) as server:
        n_killed = 0
        for _ in range(20):
            process = started(server.base_url, path, keys(60), 7, kill_at=rng.integers(400))
            process.join()
            n_killed += process.exitcode == -signal.SIGKILL
        work(server.base_url, path, keys(60), 7)
    assert n_killed > 10
    assert set(server.executed.values()) == {1} and stored(path) == keys(60)
    assert_nothing_left(path)

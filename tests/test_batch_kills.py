"""Batches of runs that were killed, or run at once: nothing asked twice, nothing lost."""

import signal
import threading
import time

import numpy as np
import pytest
from annotating import CONTEXT
from batching import (
    Asker,
    ask,
    assert_nothing_left,
    body,
    interrupt,
    keys,
    killed_at_call,
    started,
    stored,
    work,
)
from fake_batches import FakeBatches

from sklearn_dialpref.annotation import batches
from sklearn_dialpref.annotation.batch_store import BatchStore
from sklearn_dialpref.annotation.batches import BatchRun
from sklearn_dialpref.annotation.cache import AnswerCache
from sklearn_dialpref.annotation.leases import Leases


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.sqlite"


@pytest.fixture
def few_requests(monkeypatch):
    """Three requests in a file, at most."""
    monkeypatch.setattr(batches, "MOST_REQUESTS", 3)


# -- left by others ------------------------------------------------------------------------------


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


@pytest.mark.parametrize("look", [1, 2])
@pytest.mark.parametrize("wanted", [keys(2), keys(2, start=10)])
def test_a_batch_that_another_run_creates_at_the_last_moment(path, monkeypatch, wanted, look):
    claim, looks = Leases.claim, []

    with FakeBatches() as server, AnswerCache(path) as cache:
        store = BatchStore(cache.execute, server.base_url)
        store.begin("theirs")
        for key in keys(2):
            store.claim("theirs", key)

        def late(self, key):
            if key != "batch theirs":
                return claim(self, key)
            looks.append(key)
            if len(looks) < look:
                return False
            if len(looks) == look:
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


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_file_that_another_run_removes_while_it_is_written(path, monkeypatch, most):
    monkeypatch.setattr(batches, "MOST_REQUESTS", most)
    add = BatchRun.add
    removed = []

    async def late(self, asked, request):
        if not removed and self.draft.count:
            removed.append(self.draft.name)
            self.store.forget(self.draft.name)
        await add(self, asked, request)

    monkeypatch.setattr(BatchRun, "add", late)
    with FakeBatches() as server:
        assert ask(server.base_url, path, keys(3)).failures == {}
    assert set(server.executed.values()) == {1} and stored(path) == keys(3)
    assert_nothing_left(path)


def test_another_run_takes_a_part_of_what_this_one_waits_for(path):
    with FakeBatches(polls=1) as server, AnswerCache(path) as cache:
        interrupt(server, path, keys(5))
        store = BatchStore(cache.execute, server.base_url)
        (name,) = store.names()

        def watch(kind, when):
            for key in keys(3):
                cache.put(key, "tiny", "p", {"texts": ["A"]})
            store.free(keys(3), name)

        server.watch = watch
        asker = ask(server.base_url, path, keys(4))
        assert asker.taken == keys(4)[3:] and asker.given_up == set(keys(3))
        assert stored(path) == keys(4)
        assert store.requests(name) == {key: [key] for key in keys(5)[4:]}
    assert set(server.executed.values()) == {1}


def test_an_unwanted_file_of_a_killed_process_is_removed(path):
    with FakeBatches() as server:
        assert killed_at_call(server, path, keys(2), "upload", "before")
        ask(server.base_url, path, keys(1, start=5))
    assert_nothing_left(path)


# -- at the same time, and killed ----------------------------------------------------------------


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

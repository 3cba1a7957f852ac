"""Asks as an annotator does, without one, to see each step of a batch and of a kill."""

import asyncio
import json
import os
import signal
from unittest.mock import patch

import pytest
from annotating import CONTEXT

from sklearn_dialpref.annotation import batches
from sklearn_dialpref.annotation.batch_store import BatchStore
from sklearn_dialpref.annotation.batches import BatchRun
from sklearn_dialpref.annotation.cache import AnswerCache
from sklearn_dialpref.annotation.completion import NoAnswer
from sklearn_dialpref.annotation.models import OpenAIModel, Settings

POLL = 0.01


def keys(n, start=0):
    return [f"{number:064x}" for number in range(start, start + n)]


def body(key):
    content = f"A: bad\nB: good\nA speaker says: {json.dumps({'text': f'That is good, {key}'})}\n"
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": 1}


class Asker:
    """Asks as an annotator does: answers into the cache, reasons into a dict."""

    def __init__(self, cache, wanted):
        self.cache, self.wanted = cache, wanted
        self.failures, self.taken, self.shown, self.given_up = {}, [], [], set()

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
                    self.given_up |= again

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
        BatchStore(cache.execute, "any").clean()
        for table in ("batches", "batch_questions"):
            assert cache.execute(f"SELECT * FROM {table}")[0] == []


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


def work(url, path, wanted, most_requests, barrier=None, results=None, kill_at=None):
    """A process that asks; it kills itself when it uses the cache for the n-th time."""
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
        with patch.object(batches, "MOST_REQUESTS", most_requests):
            asyncio.run(asker.ask(url))
    if results is not None:
        results.put((n_done, asker.failures))


def started(*args, **options):
    process = CONTEXT.Process(target=work, args=args, kwargs=options)
    process.start()
    return process


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

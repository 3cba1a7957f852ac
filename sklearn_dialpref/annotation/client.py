"""Asking many questions at once, within limits, each answer stored as it arrives."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from .billing import Ledger, count_tokens, most_tokens
from .completion import Completion, EndpointError, Messages, NoAnswer
from .leases import RENEW_SECONDS, Leases
from .models import Model, Settings

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

    from .cache import AnswerCache

__all__ = ["Question", "ask_all", "run_async"]

T = TypeVar("T")

LOOKUP = 16  # questions written and looked up at once: while that goes on, answers wait
LOOK_SECONDS = 0.1  # between two looks for the answers that other processes are asking for
BROKEN_RETRIES = 4  # of an answer that came, but is of no use; the SDK retries the rest
DEAD_AT_START = 3  # outages without any answer before: nothing is there
WRONG_AT_START = 10  # failures of any kind without any answer before
MOST_OUTAGES = 20  # in a row, and at least two for each call at once: it is gone


class OutOfBudget(NoAnswer):
    """The question could have passed the budget, and was not asked."""


@dataclass(frozen=True)
class Question:
    """About which row, put by which member of the ensemble.

    Attributes
    ----------
    row, member : int
    key : str
        Of the cache.
    prompt_id : str
    messages : list of dict
    codes : tuple of str
        What may be answered.
    """

    row: int
    member: int
    key: str
    prompt_id: str
    messages: Messages
    codes: tuple[str, ...]


Deliver = Callable[[Question, Completion | str], None]


def ask_all(
    model: Model,
    questions: Iterable[Question],
    settings: Settings,
    ledger: Ledger,
    cache: AnswerCache,
    deliver: Deliver,
) -> None:
    """Ask all, or look up what was answered before; each answer is stored as it arrives.

    What another pass on the same cache is asking is left to it, and taken from the cache in the
    end, or asked if that pass got no answer.

    Parameters
    ----------
    model : OpenAIModel or CallableModel
    questions : iterable of Question
        Taken as they are needed.
    settings : Settings
    ledger : Ledger
        Its ``usage`` is kept up to date.
    cache : AnswerCache
    deliver : callable
        Called with each question and its answer, or the reason why there is none.

    Raises
    ------
    EndpointError
        If the endpoint cannot be used at all, or no longer.
    """
    run_async(_Pass(model, settings, ledger, cache, deliver).run(iter(questions)))


class _Pass:
    """Workers that take questions from one iterator."""

    def __init__(
        self,
        model: Model,
        settings: Settings,
        ledger: Ledger,
        cache: AnswerCache,
        deliver: Deliver,
    ) -> None:
        self.model, self.settings, self.ledger = model, settings, ledger
        self.cache, self.deliver = cache, deliver
        self.leases = Leases(cache.execute)
        self.same: dict[str, list[Question]] = {}  # of those being asked, by key
        self.elsewhere: deque[Question] = deque()  # that another pass is asking
        self.out_of_budget = False
        self.outages = 0  # in a row

    async def run(self, questions: Iterator[Question]) -> None:
        limits = self.ledger.limits
        self.requests = _limiter(limits.requests_per_minute)
        self.tokens = _limiter(limits.tokens_per_minute)
        self.room = asyncio.Event()  # set, and replaced, when a question gives back its share
        # as many threads as calls at once; none is started before a plain function is asked
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(limits.concurrency))
        async with self.model:
            renewal = asyncio.create_task(self._renew_leases())
            try:
                await self._ask(questions)
                # Nothing is claimed and no limit is used while waiting, so that two passes that
                # wait for each other's last answers both get them.
                while self.elsewhere:
                    await asyncio.sleep(LOOK_SECONDS)
                    again, self.elsewhere = self.elsewhere, deque()
                    await self._ask(iter(again))
            except BaseExceptionGroup as errors:
                first = errors.exceptions[0]
            else:
                return
            finally:
                renewal.cancel()
                self.leases.release_all()
        raise first

    async def _ask(self, questions: Iterator[Question]) -> None:
        unanswered = self._unanswered(questions)
        async with asyncio.TaskGroup() as group:
            for _ in range(self.ledger.limits.concurrency):
                group.create_task(self._work(unanswered))

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            self.leases.renew()

    def _unanswered(self, questions: Iterator[Question]) -> Iterator[Question | None]:
        """Questions that this pass has to ask; the others are delivered on the way.

        None between two look-ups, when others should have their turn.
        """
        while part := list(islice(questions, LOOKUP)):
            # with some that were asked elsewhere, so that few of them pile up
            part += [self.elsewhere.popleft() for _ in range(min(LOOKUP, len(self.elsewhere)))]
            known = self._look_up([question.key for question in part])
            for question in part:
                key = question.key
                if key in self.same:
                    self.same[key].append(question)
                elif answer := known.get(key):
                    self._deliver_cached(question, answer)
                elif not self.leases.claim(key):
                    self.elsewhere.append(question)
                # only now is it certain: it may have been answered since the look-up
                elif answer := self._look_up([key]).get(key):
                    self.leases.release(key)
                    self._deliver_cached(question, answer)
                else:
                    self.same[key] = []
                    yield question
            yield None

    def _look_up(self, keys: list[str]) -> dict[str, Completion]:
        """The stored answers that can be read; the others count as lost."""
        stored = self.cache.get_many(keys)
        answers = {key: Completion.from_dict(content) for key, content in stored.items()}
        self.cache.lost.update(key for key, answer in answers.items() if answer is None)
        self.ledger.lost = len(self.cache.lost)
        return {key: answer for key, answer in answers.items() if answer is not None}

    def _deliver_cached(self, question: Question, answer: Completion) -> None:
        self.ledger.usage.cached += 1
        self.deliver(question, answer)

    async def _work(self, unanswered: Iterator[Question | None]) -> None:
        for question in unanswered:
            if question is None:
                await asyncio.sleep(0)
                continue
            outcome = await self._outcome(question)
            self.deliver(question, outcome)
            if isinstance(outcome, Completion):  # stored once its scores were read
                content = outcome.to_dict()
                self.cache.put(question.key, self.model.name, question.prompt_id, content)
            self.leases.release(question.key)
            for same in self.same.pop(question.key):
                if isinstance(outcome, Completion):
                    self._deliver_cached(same, outcome)
                else:
                    self.ledger.usage.failed += 1
                    self.deliver(same, outcome)

    async def _outcome(self, question: Question) -> Completion | str:
        """The answer, or the reason why there is none."""
        try:
            answer = await self._answer(question)
        except NoAnswer as error:
            self.ledger.usage.failed += 1
            if not isinstance(error, OutOfBudget):
                self._check_alive(error)
            return str(error)
        self.outages = 0
        return answer

    async def _answer(self, question: Question) -> Completion:
        counted = count_tokens(question.messages)
        for attempt in range(BROKEN_RETRIES + 1):
            requests = self.model.most_requests(self.settings)
            most_in = requests * most_tokens(question.messages)
            most_out = requests * self.settings.answer_tokens(question.codes)
            reserved = await self._reserve(most_in, most_out)
            try:
                await self._wait(self.ledger.ratio * counted + most_out)
                answer = await self.model.complete(
                    question.messages, question.codes, self.settings
                )
                self.ledger.bill(answer, counted, most_in)
                return answer
            except NoAnswer as error:
                if error.broken or error.tokens_in:
                    self.ledger.bill_lost(error.tokens_in, error.tokens_out, counted)
                if not error.broken or attempt == BROKEN_RETRIES:
                    raise
            finally:
                self._release(reserved)
        raise AssertionError("not reached")

    def _check_alive(self, error: NoAnswer) -> None:
        """Stop the pass if not this question is at fault, but what is asked."""
        usage, name = self.ledger.usage, self.model.name
        self.outages = self.outages + 1 if error.outage else 0
        if not usage.calls and (self.outages >= DEAD_AT_START or usage.failed >= WRONG_AT_START):
            raise EndpointError(
                f"the first {usage.failed} questions to {name} all failed, the last with: {error}"
            ) from None
        if self.outages >= max(MOST_OUTAGES, 2 * self.ledger.limits.concurrency):
            raise EndpointError(
                f"{self.outages} questions in a row got no answer from {name}, the last: {error}; "
                f"the {usage.calls} answers that came are in the cache, so run again to go on"
            ) from None

    # -- limits -----------------------------------------------------------------------------

    async def _reserve(self, most_in: float, most_out: float) -> tuple[float, float]:
        """Set the most that a question may take aside, when there is room for it."""
        while not self.out_of_budget:
            reserved = self.ledger.reserve(most_in, most_out)
            if reserved is not None:
                return reserved
            if self.ledger.under_way:
                await self.room.wait()
            else:  # nothing can still make room
                self.out_of_budget = True
        raise OutOfBudget("the budget is used up")

    def _release(self, reserved: tuple[float, float]) -> None:
        self.ledger.release(reserved)
        room, self.room = self.room, asyncio.Event()
        room.set()

    async def _wait(self, tokens: float) -> None:
        if self.requests is not None:
            await self.requests.acquire()
        while self.tokens is not None and tokens > 0:
            part = min(tokens, self.tokens.max_rate)
            await self.tokens.acquire(part)
            tokens -= part


def _limiter(per_minute: float | None) -> AsyncLimiter | None:
    """A limiter that spreads a rate evenly: bursts of a second's worth at most."""
    from aiolimiter import AsyncLimiter

    if per_minute is None:
        return None
    burst = max(1.0, per_minute / 60)
    return AsyncLimiter(burst, 60 * burst / per_minute)


# -- a loop of one's own --------------------------------------------------------------------


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a thread of its own, wherever one is called from.

    So it works inside a running event loop, as in Jupyter. Ctrl-C cancels it, waits until it
    has put away what it holds, and is raised.
    """
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    done = threading.Event()
    threading.Thread(target=_drive, args=(loop, task, done), daemon=True).start()
    try:
        while not done.wait(0.2):
            pass
    except BaseException:
        loop.call_soon_threadsafe(task.cancel)
        done.wait()
        raise
    return task.result()


def _drive(
    loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], done: threading.Event
) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(asyncio.wait([task]))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
        done.set()

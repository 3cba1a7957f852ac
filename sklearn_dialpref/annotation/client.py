"""Asking many questions at once, within limits, each answer stored as it arrives."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from .billing import Ledger, count_tokens, most_tokens
from .completion import Completion, EndpointError, Messages, NoAnswer
from .forms import Asked, Form
from .leases import RENEW_SECONDS, Leases
from .models import Model, Settings
from .splitting import split

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

    from .cache import AnswerCache

__all__ = [
    "LOOKUP",
    "STRETCH_RETRIES",
    "Call",
    "Deliver",
    "Pass",
    "Question",
    "ask_all",
    "is_none",
    "run_async",
]

T = TypeVar("T")

LOOKUP = 16  # questions written and looked up at once: while that goes on, answers wait
LOOK_SECONDS = 0.1  # between two looks for the answers that other processes are asking for
BROKEN_RETRIES = 4  # of an answer that came, but is of no use; the SDK retries the rest
DEAD_AT_START = 3  # outages without any answer before: nothing is there
WRONG_AT_START = 10  # failures of any kind without any answer before
STRETCH_RETRIES = 4  # of turns that the answer about a stretch leaves out
MOST_OUTAGES = 20  # in a row, and at least two for each call at once: it is gone


class OutOfBudget(NoAnswer):
    """The question could have passed the budget, and was not asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """About which row, put by which member of the ensemble.

    Attributes
    ----------
    row, member : int
    key : str
        Of the cache.
    prompt_id : str
    form : Form
        What may be answered.
    number : int, default=0
        Of the turn in its stretch; 0 where it is asked about alone.
    """

    row: int
    member: int
    key: str
    prompt_id: str
    form: Form
    number: int = 0


@dataclass(frozen=True)
class Call:
    """Questions that are asked at once.

    Attributes
    ----------
    questions : tuple of Question
        By one prompt; one, or turns of a stretch.
    write : callable
        Of the numbers that are asked about; the messages.
    write_alone : callable, default=None
        Of one number; the messages that show its turn without the rest of the stretch.
    alone : bool, default=False
        Whether that is what is shown.
    again : bool, default=False
        Whether it asks about turns that an answer has left out.
    """

    questions: tuple[Question, ...]
    write: Callable[[Sequence[int]], Messages]
    write_alone: Callable[[int], Messages] | None = None
    alone: bool = False
    again: bool = False

    @cached_property
    def messages(self) -> Messages:
        """What is sent."""
        numbers = self.asked.numbers
        if self.alone and self.write_alone is not None:
            return self.write_alone(*numbers)
        return self.write(numbers)

    @cached_property
    def asked(self) -> Asked:
        """What is to be answered."""
        numbers = tuple(question.number for question in self.questions if question.number)
        return Asked(self.questions[0].form, numbers)

    def about(self, questions: Sequence[Question], alone: bool = False) -> Call:
        """The call that asks these of its questions."""
        if len(questions) == len(self.questions) and alone == self.alone:
            return self  # with the messages that were written already
        return replace(self, questions=tuple(questions), alone=alone)


Deliver = Callable[[Question, Completion | str], None]


def ask_all(
    model: Model,
    calls: Iterable[Call],
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
    calls : iterable of Call
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
    run_async(Pass(model, settings, ledger, cache, deliver).run(iter(calls)))


class Pass:
    """Workers that take calls from one iterator."""

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
        self.elsewhere: deque[Call] = deque()  # that another pass is making
        self.out_of_budget = False
        self.outages = 0  # in a row
        self.lost_calls = 0

    async def run(self, calls: Iterator[Call]) -> None:
        """Make the calls, and wait for what others are asking."""
        limits = self.ledger.limits
        self.requests = _limiter(limits.requests_per_minute)
        self.tokens = _limiter(limits.tokens_per_minute)
        self.room = asyncio.Event()  # set, and replaced, when a question gives back its share
        # as many threads as calls at once; none is started before a plain function is asked
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(limits.concurrency))
        async with self.model:
            renewal = asyncio.create_task(self._renew_leases())
            try:
                await self._ask(calls)
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

    async def _ask(self, calls: Iterator[Call]) -> None:
        unanswered = self._unanswered(calls)
        async with asyncio.TaskGroup() as group:
            for _ in range(self.ledger.limits.concurrency):
                group.create_task(self._work(unanswered))

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            self.leases.renew()

    def _unanswered(self, calls: Iterator[Call]) -> Iterator[Call | None]:
        """Calls that this pass has to make; other answers are delivered on the way.

        None between two look-ups, when others should have their turn.
        """
        while part := list(islice(calls, LOOKUP)):
            # with some that were asked elsewhere, so that few of them pile up
            part += [self.elsewhere.popleft() for _ in range(min(LOOKUP, len(self.elsewhere)))]
            known = self._look_up([one.key for call in part for one in call.questions])
            for call in part:
                mine, others = self._claimed(call.questions, known)
                if others:
                    self.elsewhere.append(call.about(others))
                if mine:
                    yield call.about(mine)
            yield None

    def _claimed(
        self, questions: Sequence[Question], known: dict[str, Completion]
    ) -> tuple[list[Question], list[Question]]:
        """The questions that this pass is to ask now, and those that another pass is asking."""
        mine, others = [], []
        for question in questions:
            key = question.key
            if key in self.same:
                self.same[key].append(question)
            elif answer := known.get(key):
                self._deliver_cached(question, answer)
            elif not self._claim(key):
                others.append(question)
            # only now is it certain: it may have been answered since the look-up
            elif answer := self._look_up([key]).get(key):
                self._unclaim(key)
                self._deliver_cached(question, answer)
            else:
                self.same[key] = []
                mine.append(question)
        return mine, others

    def _claim(self, key: str) -> bool:
        """Take a question, unless another pass is asking it."""
        return self.leases.claim(key)

    def _unclaim(self, key: str) -> None:
        """Let others have a question."""
        self.leases.release(key)

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

    async def _work(self, unanswered: Iterator[Call | None]) -> None:
        for call in unanswered:
            if call is None:
                await asyncio.sleep(0)
            else:
                again = min(self.model.max_retries, STRETCH_RETRIES) if call.asked.numbers else 0
                await self._make(call, again)

    async def _make(self, call: Call, again: int) -> None:
        """Make a call and take in what it answers.

        Turns of a stretch that the answer leaves out are asked about again: together, then each
        without the others. The latter at once where all was refused, as one turn may be why.
        """
        outcomes, refused = await self._outcome(call)
        pairs = list(zip(call.questions, outcomes, strict=True))
        left = [question for question, outcome in pairs if is_none(outcome)]
        if refused is None or not again or (refused and call.alone):
            left = []
        self._take_in([pair for pair in pairs if pair[0] not in left])
        if left and not (call.alone or call.again or refused):
            await self._make(replace(call.about(left), again=True), again - 1)
        else:
            for question in left:
                await self._make(call.about([question], alone=True), again - 1)

    async def _outcome(self, call: Call) -> tuple[list[Completion | str], bool | None]:
        """The answer about each question, or the reason why there is none.

        And whether all was refused; None if it is not the call that is at fault.
        """
        try:
            answer = await self._answer(call)
        except NoAnswer as error:
            in_budget = not isinstance(error, OutOfBudget)
            if in_budget:
                self.lost_calls += 1
                self._check_alive(error)
            refused = True if in_budget and not error.outage else None
            return [str(error)] * len(call.questions), refused
        self.outages = 0
        return split(answer, call.asked), answer.filtered

    def _take_in(self, pairs: Sequence[tuple[Question, Completion | str]]) -> None:
        """Deliver the outcomes, store those that are answers, and let others have the rest."""
        for question, outcome in pairs:
            self.deliver(question, outcome)
        answered = {q.key: one.to_dict() for q, one in pairs if isinstance(one, Completion)}
        if answered:  # stored once its scores were read; all at once, so that a kill splits none
            self.cache.put_many(answered, self.model.name, pairs[0][0].prompt_id)
        for question, outcome in pairs:
            self.leases.release(question.key)
            same = self.same.pop(question.key)
            if isinstance(outcome, Completion):
                for other in same:
                    self._deliver_cached(other, outcome)
            else:
                self.ledger.usage.failed += 1 + len(same)
                for other in same:
                    self.deliver(other, outcome)

    async def _answer(self, call: Call) -> Completion:
        messages, asked = call.messages, call.asked
        counted = count_tokens(messages)
        for attempt in range(BROKEN_RETRIES + 1):
            requests = self.model.most_requests(self.settings)
            most_in = requests * most_tokens(messages)
            most_out = requests * self.settings.answer_tokens(asked)
            reserved = await self._reserve(most_in, most_out)
            try:
                await self._wait(self.ledger.ratio * counted + most_out)
                answer = await self.model.complete(messages, asked, self.settings)
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
        if not self.ledger.answered and (
            self.outages >= DEAD_AT_START or self.lost_calls >= WRONG_AT_START
        ):
            raise EndpointError(
                f"the first {self.lost_calls} questions to {name} all failed, the last with: "
                f"{error}"
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


def is_none(outcome: Completion | str) -> bool:
    """Whether it is a reason, or a content filter kept the answer back."""
    return isinstance(outcome, str) or outcome.filtered


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

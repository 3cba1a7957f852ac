"""A pass whose questions are put to the provider in batches."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from .batches import BatchRun
from .billing import Ledger, count_tokens, most_tokens
from .client import LOOKUP, STRETCH_RETRIES, Call, Deliver, Pass, Question, is_none, run_async
from .completion import Completion, NoAnswer
from .forms import Asked
from .models import OpenAIModel, Settings
from .splitting import split

if TYPE_CHECKING:
    from .cache import AnswerCache

__all__ = ["ask_in_batches"]

MOST_ROUNDS = 5  # of batches, where the budget has no room for all at once
OUT_OF_BUDGET = "the budget is used up"


def ask_in_batches(
    model: OpenAIModel,
    calls: Callable[[], Iterator[Call]],
    settings: Settings,
    ledger: Ledger,
    cache: AnswerCache,
    deliver: Deliver,
    show: Callable[[int], None],
) -> None:
    """Ask all in batches, or look up what was answered before.

    What another pass on the same cache has put into a batch, now or before it was killed, is
    taken in from there.

    Parameters
    ----------
    model : OpenAIModel
    calls : callable
        Returns an iterator over all calls, also a second time.
    settings : Settings
    ledger : Ledger
        Its ``usage`` is kept up to date.
    cache : AnswerCache
        On disk.
    deliver : callable
        Called with each question and its answer, or the reason why there is none.
    show : callable
        Called with the number of questions that the provider has answered, about, and that are
        not delivered yet.

    Raises
    ------
    EndpointError
        If the endpoint has no batch interface, or cannot be used any longer.
    """
    run_async(_BatchPass(model, settings, ledger, cache, deliver).ask(calls, show))


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A question in a batch; the first one of a call has what the call takes."""

    question: Question
    counted: int = 0
    most_in: float = 0.0
    reserved: tuple[float, float] | None = None


class _BatchPass(Pass):
    """Asks in rounds: what the first one leaves out, or has no room for, is asked once more."""

    model: OpenAIModel

    async def ask(self, calls: Callable[[], Iterator[Call]], show: Callable[[int], None]) -> None:
        """Ask all, and deliver what comes of it."""
        self.waiting: dict[str, _Waiting] = {}
        self.again: set[str] = set()  # keys to be asked in another round
        self.alone: set[str] = set()  # of these, those to be shown without their stretch
        self.tries: Counter[str] = Counter()  # by key, that were in vain
        self.rounds = MOST_ROUNDS
        async with self.model:
            api = self.model.batches()
            async with BatchRun(api, self.cache, self._take, show) as self.batches:
                await self._round(calls())
                while keys := self.again | await self.batches.wait():
                    self.again, self.rounds = set(), self.rounds - 1
                    for key in keys:  # with all questions that share it
                        self.same.pop(key, None)
                        self._release_waiting(key)
                    await self._round(_only(calls(), keys))

    async def _round(self, calls: Iterator[Call]) -> None:
        """Put into batches what is not answered and in no batch."""
        while part := list(islice(calls, LOOKUP)):
            await asyncio.sleep(0)
            known = self._look_up([one.key for call in part for one in call.questions])
            for call in chain.from_iterable(map(self._parts, part)):
                mine, others = self._claimed(call.questions, known)
                if others:  # in a batch already
                    self.same.update((question.key, []) for question in others)
                    self._expect(call.about(others, call.alone), forced=True)
                if mine:  # before any other is claimed
                    await self._add(call.about(mine, call.alone))

    def _parts(self, call: Call) -> Iterator[Call]:
        """The call without the turns that are asked about alone, and the calls about these."""
        if together := [question for question in call.questions if question.key not in self.alone]:
            yield call.about(together)
        for question in call.questions:
            if question.key in self.alone:
                yield call.about([question], alone=True)

    def _claim(self, key: str) -> bool:
        return self.batches.claim(key)

    def _unclaim(self, key: str) -> None:
        self.batches.unclaim([key])

    async def _add(self, call: Call) -> None:
        keys = [question.key for question in call.questions]
        if self._expect(call):
            body = self.model.batch_body(call.messages, call.asked, self.settings)
            await self.batches.add(keys, body)
            return
        self.batches.unclaim(keys)
        if self.ledger.under_way and self.rounds > 0:  # there is room once that is billed
            self.again.update(keys)
        else:
            self._take_in([(question, OUT_OF_BUDGET) for question in call.questions])

    def _expect(self, call: Call, forced: bool = False) -> bool:
        """Set aside what a call may take; False if that could pass the budget.

        What is in a batch already is expected in any case.
        """
        counted, most_in = count_tokens(call.messages), float(most_tokens(call.messages))
        answers = self.model.way(self.settings, call.asked).n_answers(self.settings.n_samples)
        most_out = answers * self.settings.answer_tokens(call.asked)
        reserved = self.ledger.reserve(most_in, most_out)
        if reserved is None and not forced:
            return False
        first, *rest = call.questions
        self.waiting[first.key] = _Waiting(first, counted, most_in, reserved)
        self.waiting.update((question.key, _Waiting(question)) for question in rest)
        return True

    def _release_waiting(self, key: str) -> _Waiting | None:
        waiting = self.waiting.pop(key, None)
        if waiting is not None and waiting.reserved is not None:
            self.ledger.release(waiting.reserved)
        return waiting

    def _take(self, keys: list[str], outcome: dict[str, Any] | NoAnswer) -> None:
        """Take in the outcome of a request."""
        waiting = [one for key in keys if (one := self._release_waiting(key)) is not None]
        questions = [one.question for one in waiting]
        outcomes, again, alone = self._read(waiting, questions, outcome)
        pairs = list(zip(questions, outcomes, strict=True))
        left = [q.key for q, one in pairs if again and is_none(one) and self._may_repeat(q.key)]
        self.again.update(left)
        self.alone.update(left if alone else [])
        self._take_in([pair for pair in pairs if pair[0].key not in left])

    def _read(
        self,
        waiting: Sequence[_Waiting],
        questions: Sequence[Question],
        outcome: dict[str, Any] | NoAnswer,
    ) -> tuple[list[Completion | str], bool, bool]:
        """The answer about each question or why there is none; whether to repeat what has none.

        And whether to repeat it without the rest of the stretch.
        """
        counted = sum(one.counted for one in waiting)
        numbers = tuple(question.number for question in questions if question.number)
        in_stretch = bool(numbers) and self.model.max_retries > 0
        try:
            answer = self.model.read_batch(outcome, self.settings)
        except NoAnswer as error:
            if error.broken or error.tokens_in:
                self.ledger.bill_lost(error.tokens_in, error.tokens_out, counted)
            without = self.model.refuses_logprobs(error, self.settings)
            again = without or (in_stretch and not error.outage)
            return [str(error)] * len(questions), again, not without
        most_in = sum(one.most_in for one in waiting) or float("inf")
        self.ledger.bill(answer, counted, most_in)
        return split(answer, Asked(questions[0].form, numbers)), in_stretch, True

    def _may_repeat(self, key: str) -> bool:
        self.tries[key] += 1
        return key not in self.alone and self.tries[key] <= STRETCH_RETRIES


def _only(calls: Iterator[Call], keys: set[str]) -> Iterator[Call]:
    """The calls about these questions alone."""
    for call in calls:
        if questions := [question for question in call.questions if question.key in keys]:
            yield call.about(questions)

"""Asking by the provider's batch interface: written, uploaded, waited for, taken in."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from .batch_api import ENDED, Batch, BatchAPI, Gone, TooLarge, read_line, request_line
from .batch_store import BatchStore, Submission
from .completion import EndpointError, NoAnswer
from .leases import RENEW_SECONDS, Leases

if TYPE_CHECKING:
    from tqdm import tqdm

    from .cache import AnswerCache

__all__ = ["BatchRequest", "BatchRun"]

MOST_REQUESTS = 50_000  # of one file: what OpenAI takes
MOST_BYTES = 200_000_000
POLL_SECONDS = 5.0  # until the first look at a batch; later ones come less often
MOST_PAUSES = 12  # of that length, between two looks
GROWTH = 1.3
# A batch may appear in the provider's list some time after it was created.
LOOKS = 3
MOST_REFUSALS = 3  # of one batch; some providers do not know a file at once
MOST_OUTAGES = 20  # looks at one batch in a row without an answer, each tried several times
TURN = 100  # requests after which others have their turn
REASONS = {
    "completed": "the batch left it out",
    "expired": "the batch expired before it was asked",
    "cancelled": "the batch was cancelled before it was asked",
}


@dataclass(frozen=True)
class BatchRequest:
    """A request that is to be put into a batch.

    Attributes
    ----------
    key : str
        At most 64 characters, which no other request has: a hash of all that it depends on.
    body : mapping
        Of a chat completion.
    note : str
        Is handed back with the outcome, maybe in another process and to another question.
    """

    key: str
    body: Mapping[str, Any]
    note: str = ""


Select = Callable[[BatchRequest], bool]
Take = Callable[[str, str, "dict[str, Any] | NoAnswer"], None]


@dataclass
class _Draft:
    """A file of requests that is being written."""

    name: str
    count: int = 0
    size: int = 0
    file: IO[bytes] = field(default_factory=tempfile.TemporaryFile)

    def has_room(self, line: bytes) -> bool:
        return self.count < MOST_REQUESTS and self.size + len(line) <= MOST_BYTES

    def write(self, line: bytes) -> None:
        self.file.write(line)
        self.count += 1
        self.size += len(line)


class BatchRun:
    """Requests that are put to an endpoint in batches, with what other runs left unfinished.

    Each step is recorded in the cache's file before the next one, so that after a kill at any
    moment the next run goes on where this one was: no request is asked twice, and no answer is
    lost. Runs at the same time share what they wait for.

    Parameters
    ----------
    api : BatchAPI
    cache : AnswerCache
        Whose file keeps the record of batches.
    endpoint : str
        The runs with the same endpoint and cache go on with each other's batches.
    select : callable
        Of a request that nobody else is asking. Returns whether it is still to be asked.
    take : callable
        Of key, note, and the body of the answer or a NoAnswer; called once for each request of
        each batch that was waited for. It has stored an answer when it returns.
    bar : tqdm
        Shows how many requests are done.
    poll_seconds : float
        Until the first look at a batch.
    """

    def __init__(
        self,
        api: BatchAPI,
        cache: AnswerCache,
        endpoint: str,
        select: Select,
        take: Take,
        bar: tqdm[Any],
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.api, self.select, self.take = api, select, take
        self.bar, self.poll_seconds = bar, poll_seconds
        self.store = BatchStore(cache.execute, endpoint)
        self.leases = Leases(cache.execute)
        self.checked = False
        self.own: set[str] = set()  # submissions that this run writes or creates
        self.awaited: set[str] = set()  # submissions with requests of this run
        self.full: set[str] = set()  # of these, those that the provider has no room for yet
        self.looks: dict[str, int] = {}  # still to be made, before a batch is created
        self.left: dict[str, dict[str, str]] = {}  # requests that are not taken in, with notes
        self.failed: set[str] = set()  # requests
        self.refusals: Counter[str] = Counter()  # by submission
        self.outages: Counter[str] = Counter()  # by submission, in a row
        self.done: dict[str, int] = {}  # by submission
        self.total: dict[str, int] = {}

    async def run(self, requests: Iterable[BatchRequest]) -> None:
        """Return when each request has an answer that is stored, or the reason why it has none.

        Parameters
        ----------
        requests : iterable of BatchRequest
            Iterated over again if another run gave up some of them.

        Raises
        ------
        EndpointError
            If the endpoint has no batch interface, or cannot be used any longer. The batches go
            on there, and the next run takes them in.
        """
        renewal = asyncio.create_task(self._renew_leases())
        try:
            again = True
            while again:
                await self._submit(requests)
                again = await self._wait()
        finally:
            renewal.cancel()
            for name in filter(self._is_written, self.own):  # nothing of them was asked
                self.store.forget(name)
            self.leases.release_all()

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            self.leases.renew()

    # -- submitting -----------------------------------------------------------------------------

    async def _submit(self, requests: Iterable[BatchRequest]) -> None:
        """Submit what is not in a batch."""
        for name in self.store.names():
            self._drop_abandoned(name)
        draft: _Draft | None = None
        for number, request in enumerate(requests):
            if number % TURN == 0:
                await asyncio.sleep(0)
            if request.key in self.failed:
                continue
            line = request_line(request.key, request.body)
            if draft is not None and not draft.has_room(line):
                await self._send(draft)
                draft = None
            draft = draft or self._draft()
            if not self.store.claim(draft.name, request.key, request.note):
                self._await_holder(request.key)
            # only now is it certain: it may have been answered since it was looked up
            elif self.select(request):
                draft.write(line)
            else:
                self.store.unclaim(request.key)
        if draft is not None:
            await self._send(draft)

    def _drop_abandoned(self, name: str) -> None:
        """Free the requests in a file that a killed process was writing."""
        if not self._is_written(name) or not self._own(name):
            return
        if self._is_written(name):  # still: the other may just have finished it
            self._forget(name)
        else:
            self._disown(name)

    def _is_written(self, name: str) -> bool:
        submission = self.store.get(name)
        return submission is not None and submission.file is None

    def _draft(self) -> _Draft:
        name = self.store.new_name()
        self._own(name)  # before it is recorded, as what nobody owns is removed
        self.store.begin(name)
        return _Draft(name)

    def _own(self, name: str) -> bool:
        """Whether what is left to do until the batch is created is ours."""
        if name not in self.own and self.leases.claim(f"batch {name}"):
            self.own.add(name)
        return name in self.own

    def _disown(self, name: str) -> None:
        if name in self.own:
            self.own.remove(name)
            self.leases.release(f"batch {name}")

    def _await_holder(self, key: str) -> None:
        """Wait for the submission that a request is in; one's own are waited for once sent."""
        name = self.store.holder(key)
        if name is not None and name not in self.own:
            self._await(name)

    def _await(self, name: str) -> None:
        self.awaited.add(name)
        self.total[name] = self.store.count(name)

    async def _send(self, draft: _Draft) -> None:
        """Upload a file of requests."""
        if draft.count == 0:
            self._forget(draft.name)
            return
        if not self.checked:
            await self.api.check()
            self.checked = True
        draft.file.seek(0)
        try:
            file = await self.api.upload(draft.name, draft.file)
        except NoAnswer as error:
            if error.outage:
                raise self._stopped(f"the upload of questions failed: {error}") from None
            if isinstance(error, TooLarge) and draft.count > 1:
                for half in self._halves(draft):
                    await self._send(half)
                return
            self._give_up(draft.name, str(error))
            return
        finally:
            draft.file.close()
        if not self.store.set_file(draft.name, file):
            await self.api.delete(file)
        self.looks[draft.name] = 0  # no batch can have been created from it
        self._await(draft.name)
        await self._look(draft.name)

    def _halves(self, draft: _Draft) -> Iterator[_Draft]:
        """The same requests in two files."""
        draft.file.seek(0)
        for count in (draft.count // 2, draft.count - draft.count // 2):
            half = self._draft()
            for line in islice(draft.file, count):
                self.store.move(json.loads(line)["custom_id"], half.name)
                half.write(line)
            yield half
        self._forget(draft.name)

    # -- waiting --------------------------------------------------------------------------------

    async def _wait(self) -> bool:
        """Take in what this run waits for; whether another run may have given some of it up."""
        again, pause = False, self.poll_seconds
        if self.awaited:
            await self._take_in_others()
        while self.awaited:
            for name in [name for name in self.total if name in self.awaited]:  # in order
                again |= await self._look(name)
            self._show()
            if self.awaited:
                await asyncio.sleep(pause)
                pause = min(GROWTH * pause, MOST_PAUSES * self.poll_seconds)
        return again

    async def _take_in_others(self) -> None:
        """Take in what has ended, though nobody asks for it now: it was paid for."""
        for name in self.store.names():
            submission = self.store.get(name)
            if name in self.awaited or submission is None or submission.batch is None:
                continue
            try:
                batch = await self.api.retrieve(submission.batch)
                if batch.status in ENDED:
                    await self._take_in(name, batch)
            except NoAnswer:  # another time
                pass

    def _show(self) -> None:
        self.bar.total = sum(self.total.values())
        self.bar.n = sum(min(self.done.get(name, 0), self.total[name]) for name in self.total)
        self.bar.refresh()

    async def _look(self, name: str) -> bool:
        """Do what is next; whether another run may have given the requests up."""
        try:
            again = await self._advance(name)
        except NoAnswer as error:
            self.outages[name] += 1
            if self.outages[name] < MOST_OUTAGES:
                return False
            raise self._stopped(
                f"{self.outages[name]} looks at a batch in a row failed, the last with: {error}"
            ) from None
        self.outages.pop(name, None)
        return again

    async def _advance(self, name: str) -> bool:
        submission = self.store.get(name)
        if submission is not None and submission.batch is None:
            if not self._own(name):  # another run is at it
                return False
            submission = self.store.get(name)  # only now is it certain how far it got
        if submission is None or submission.file is None:
            self._forget(name)
            return True
        if submission.batch is None:
            await self._create(submission, submission.file)
            return False
        self._disown(name)
        batch = await self._retrieve(submission, submission.batch)
        self.done[name] = batch.done
        if batch.status in ENDED and not self._is_held_back(name, batch):
            await self._take_in(name, batch)
        return False

    async def _create(self, submission: Submission, file: str) -> None:
        """Create the batch, unless there is one already."""
        name = submission.name
        if name in self.full:
            return
        if self.looks.setdefault(name, LOOKS) > 0:
            batch = await self.api.find(file)
            self.looks[name] -= 1
        else:
            self.looks[name] = LOOKS  # if the answer is lost, the batch may be there
            try:
                batch = await self.api.create(file)
            except NoAnswer as error:
                if error.outage:
                    raise
                self.looks[name] = 0
                await self._refused(name, file, error)
                return
        if batch is not None:
            self.store.set_batch(name, batch.id)
            self._disown(name)

    async def _refused(self, name: str, file: str, error: NoAnswer) -> None:
        self.refusals[name] += 1
        if self.refusals[name] >= MOST_REFUSALS:
            self._give_up(name, f"the endpoint takes no such batch: {error}")
            await self.api.delete(file)

    async def _retrieve(self, submission: Submission, batch: str) -> Batch:
        try:
            return await self.api.retrieve(batch)
        except Gone:
            date = datetime.fromtimestamp(submission.created, UTC).date()
            raise EndpointError(
                f"{self.api.where} does not know the batch {batch} of {date} any more, or it "
                "belongs to another key; use that key, or ask its questions by mode='live'"
            ) from None

    def _is_held_back(self, name: str, batch: Batch) -> bool:
        """Whether a batch has to wait until the provider has taken in others of this run."""
        if not batch.queue_full or not self.awaited - self.full - {name}:
            return False
        if self._own(name):
            self.store.unset_batch(name, batch.id)
            self.looks[name] = 0  # the one that there is has failed
            self.full.add(name)
        return True

    # -- taking in ------------------------------------------------------------------------------

    async def _take_in(self, name: str, batch: Batch) -> None:
        """Hand on the outcome of each request of a batch that has ended."""
        left = self.left.setdefault(name, self.store.notes(name))
        reason = REASONS.get(batch.status, f"the batch failed: {batch.problems}")
        for file in batch.results:
            try:
                await self._take_lines(file, left)
            except NoAnswer as error:
                if error.outage:
                    raise
                self.refusals[name] += 1
                if self.refusals[name] < MOST_REFUSALS:
                    return
                reason = f"the results of the batch are not there: {error}"
        for key in list(left):
            self._take(key, left, NoAnswer(reason))
        self._forget(name)

    async def _take_lines(self, file: str, left: dict[str, str]) -> None:
        async with aclosing(self.api.lines(file)) as lines:
            async for line in lines:
                entry = read_line(line, self.api.key)
                if entry is not None and entry[0] in left:  # once, and nobody else's
                    self._take(entry[0], left, entry[1])

    def _take(self, key: str, left: dict[str, str], outcome: dict[str, Any] | NoAnswer) -> None:
        if isinstance(outcome, NoAnswer):
            self.failed.add(key)
        self.take(key, left[key], outcome)
        del left[key]

    def _give_up(self, name: str, reason: str) -> None:
        """Hand on why none of the requests of a submission has an answer."""
        left = self.store.notes(name)
        for key in list(left):
            self._take(key, left, NoAnswer(reason))
        self._forget(name)

    def _forget(self, name: str) -> None:
        """Let go of a submission whose requests are all taken in, or were never asked."""
        self.store.forget(name)
        self._disown(name)
        self.awaited.discard(name)
        self.left.pop(name, None)
        self.done[name] = self.total.get(name, 0)
        self.full.clear()  # there may be room now

    def _stopped(self, what: str) -> EndpointError:
        return EndpointError(
            f"{what}; what was submitted to {self.api.where} goes on there, so run again to take "
            "it in"
        )

"""Asking by the provider's batch interface: written, uploaded, waited for, taken in."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    from .cache import AnswerCache

__all__ = ["BatchRun"]

MOST_REQUESTS = 50_000  # of one file: what OpenAI takes
MOST_BYTES = 200_000_000
POLL_SECONDS = 5.0  # until the first look at a batch; later ones come less often
MOST_PAUSES = 12  # of that length, between two looks
GROWTH = 1.3
LOOKS = 3  # for a batch in the provider's list, where it may appear late
MOST_REFUSALS = 3  # of one batch; some providers do not know a file at once
MOST_OUTAGES = 20  # looks at one batch in a row without an answer, each tried several times
REASONS = {
    "completed": "the batch left it out",
    "expired": "the batch expired before it was asked",
    "cancelled": "the batch was cancelled before it was asked",
}

Take = Callable[[list[str], "dict[str, Any] | NoAnswer"], None]


@dataclass
class _Draft:
    """A file of requests that is being written."""

    name: str
    count: int = 0
    size: int = 0
    file: IO[bytes] = field(default_factory=tempfile.TemporaryFile)

    def has_room(self, line: bytes) -> bool:
        fits = self.count < MOST_REQUESTS and self.size + len(line) <= MOST_BYTES
        return fits or self.count == 0

    def write(self, line: bytes) -> None:
        self.file.write(line)
        self.count += 1
        self.size += len(line)


class BatchRun:
    """Questions that are put to an endpoint in batches, with what other runs left unfinished.

    A question is claimed first, and then added in a request, of one or several questions. Each
    step is recorded in the cache's file before the next one, so that after a kill at any moment
    the next run goes on where this one was: no question is asked twice, and no answer is lost.
    Runs at the same time share what they wait for. Used as a context manager.

    Parameters
    ----------
    api : BatchAPI
    cache : AnswerCache
        Whose file keeps the record of batches.
    take : callable
        Of the keys that one request asks, and the body of the answer or a NoAnswer; called once
        for each request. It has stored an answer when it returns.
    show : callable
        Of about how many questions that are waited for are answered.
    poll_seconds : float
        Until the first look at a batch.
    """

    def __init__(
        self,
        api: BatchAPI,
        cache: AnswerCache,
        take: Take,
        show: Callable[[int], None],
        poll_seconds: float | None = None,
    ) -> None:
        self.api, self.take, self.show = api, take, show
        self.poll_seconds = POLL_SECONDS if poll_seconds is None else poll_seconds
        self.store = BatchStore(cache.execute, api.where)
        self.leases = Leases(cache.execute)
        self.checked = False
        self.draft: _Draft | None = None
        self.keys: dict[str, set[str]] = {}  # that this run waits for, by submission
        self.given_up: set[str] = set()  # keys that another run may have given up
        self.own: set[str] = set()  # submissions that this run writes or creates
        self.full: set[str] = set()  # submissions that the provider has no room for yet
        self.looks: dict[str, int] = {}  # still to be made, before a batch is created
        self.left: dict[str, dict[str, list[str]]] = {}  # requests that are not taken in
        self.refusals: Counter[str] = Counter()  # by submission
        self.failures: Counter[str] = Counter()  # to create a batch, by submission
        self.outages: Counter[str] = Counter()  # looks without an answer, in a row
        self.share: dict[str, float] = {}  # of a submission's requests that are answered

    async def __aenter__(self) -> BatchRun:
        self.renewal = asyncio.create_task(self._renew_leases())
        self.store.clean()
        for name in self.store.names():
            self._drop_abandoned(name)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.renewal.cancel()
        if self.draft is not None:
            self.draft.file.close()
        for name in filter(self._is_written, self.own):  # nothing of them was asked
            self.store.forget(name)
        self.leases.release_all()

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            self.leases.renew()

    def _drop_abandoned(self, name: str) -> None:
        """Free the questions in a file that a killed process was writing."""
        if not self._is_written(name) or not self._own(name):
            return
        if self._is_written(name):  # still: the other may just have finished it
            self._forget(name)
        else:
            self._disown(name)

    def _is_written(self, name: str) -> bool:
        submission = self.store.get(name)
        return submission is not None and submission.file is None

    def _own(self, name: str) -> bool:
        """Whether what is left to do until the batch is created is ours."""
        if name not in self.own and self.leases.claim(f"batch {name}"):
            self.own.add(name)
        return name in self.own

    def _disown(self, name: str) -> None:
        if name in self.own:
            self.own.remove(name)
            self.leases.release(f"batch {name}")

    # -- submitting -----------------------------------------------------------------------------

    def claim(self, key: str) -> bool:
        """Whether a question is to be added; otherwise it is in a batch already.

        That is waited for as well. After a claim it may turn out that the question was answered
        since it was looked up: see :meth:`unclaim`.
        """
        if self.draft is None:
            self.draft = self._new_draft()
        name, claimed = None, False
        while name is None:  # another run may just have let go of it
            claimed = self.store.claim(self.draft.name, key)
            name = self.draft.name if claimed else self.store.holder(key)
        self.keys.setdefault(name, set()).add(key)
        return claimed

    def unclaim(self, keys: Sequence[str]) -> None:
        """Let go of questions that were claimed, and not added."""
        assert self.draft is not None
        self.store.free(keys, self.draft.name)
        self.keys[self.draft.name].difference_update(keys)

    async def add(self, keys: list[str], body: Mapping[str, Any]) -> None:
        """Add a request for questions that were claimed since the last one was added."""
        assert self.draft is not None
        line = request_line(keys[0], body)
        if not self.draft.has_room(line):
            full, self.draft = self.draft, self._new_draft()
            moved = self._move(keys, full.name, self.draft.name)
            await self._send(full)
            if not moved:
                return
        if len(keys) > 1:
            self.store.bind(keys, self.draft.name)
        self.draft.write(line)

    def _new_draft(self) -> _Draft:
        name = self.store.new_name()
        self._own(name)  # before it is recorded, as what nobody owns is removed
        self.store.begin(name)
        self.keys[name] = set()
        return _Draft(name)

    def _move(self, keys: Sequence[str], old: str, new: str) -> bool:
        """Put questions into another file, unless another run took the old one for abandoned."""
        moved = self.store.move(keys, old, new)
        self.keys[old].difference_update(keys)
        if moved:
            self.keys[new].update(keys)
        else:
            self.store.free(keys, new)
            self.given_up.update(keys)
        return moved

    async def _send(self, draft: _Draft) -> None:
        """Upload a file of requests, and create the batch."""
        if draft.count == 0:
            draft.file.close()
            self._forget(draft.name)
            return
        try:
            if not self.checked:
                await self.api.check()
                self.checked = True
            draft.file.seek(0)
            file = await self.api.upload(draft.name, draft.file)
        except NoAnswer as error:
            if error.outage:
                raise self._stopped(f"the upload of questions failed: {error}") from None
            if isinstance(error, TooLarge) and draft.count > 1:
                for half in self._halves(draft):
                    await self._send(half)
            else:
                self._give_up(draft.name, str(error))
            return
        finally:
            draft.file.close()
        if not self.store.set_file(draft.name, file):
            await self.api.delete(file)
        self.looks[draft.name] = 0  # no batch can have been created from it
        await self._look(draft.name)

    def _halves(self, draft: _Draft) -> Iterator[_Draft]:
        """The same requests in two files."""
        requests = self.store.requests(draft.name)
        draft.file.seek(0)
        for count in (draft.count // 2, draft.count - draft.count // 2):
            half = self._new_draft()
            for line in islice(draft.file, count):
                keys = requests.get(json.loads(line)["custom_id"], [])
                if keys and self._move(keys, draft.name, half.name):
                    half.write(line)
            yield half
        self._lose(draft.name)  # nothing is left there, unless another run removed it

    # -- waiting --------------------------------------------------------------------------------

    async def wait(self) -> set[str]:
        """Submit what was added, and take in all that is waited for as it ends.

        Returns
        -------
        set of str
            Keys of questions that another run has taken in, or has given up.

        Raises
        ------
        EndpointError
            If the endpoint has no batch interface, or cannot be used any longer. The batches go
            on there, and the next run takes them in.
        """
        if self.draft is not None:
            draft, self.draft = self.draft, None
            await self._send(draft)
        pause = self.poll_seconds
        while self.keys:
            for name in list(self.keys):
                await self._look(name)
            if self.keys:
                await asyncio.sleep(pause)
                pause = min(GROWTH * pause, MOST_PAUSES * self.poll_seconds)
        given_up, self.given_up = self.given_up, set()
        return given_up

    async def _look(self, name: str) -> None:
        """Do what is next."""
        try:
            await self._advance(name)
            self.outages.pop(name, None)
        except NoAnswer as error:
            self.outages[name] += 1
            if self.outages[name] >= MOST_OUTAGES:
                raise self._stopped(
                    f"{MOST_OUTAGES} looks at a batch in a row failed, the last with: {error}"
                ) from None

    async def _advance(self, name: str) -> None:
        submission = self.store.get(name)
        if submission is not None and submission.batch is None:
            if not self._own(name):  # another run is at it
                return
            submission = self.store.get(name)  # only now is it certain how far it got
        if submission is None or submission.file is None:
            self._lose(name)
        elif submission.batch is None:
            await self._create(name, submission.file)
        else:
            self._disown(name)
            batch = await self._retrieve(submission, submission.batch)
            ended = batch.status in ENDED
            self.share[name] = 0 if ended else batch.done / max(batch.done, batch.total, 1)
            self.show(round(sum(len(self.keys[n]) * self.share.get(n, 0) for n in self.keys)))
            if ended and not self._is_held_back(name, batch):
                await self._take_in(name, batch)

    def _lose(self, name: str) -> None:
        self.given_up |= self.keys[name]
        self._forget(name)

    async def _create(self, name: str, file: str) -> None:
        """Create the batch, unless there is one already."""
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
                await self._not_created(name, file, error)
                return
        if batch is not None:
            self.store.set_batch(name, batch.id)
            self._disown(name)

    async def _not_created(self, name: str, file: str, error: NoAnswer) -> None:
        """Decide when to try again, if at all."""
        if str(error).startswith("HTTP 429") and self._others_run(name):
            self.looks[name] = 0
            self.full.add(name)
        elif error.outage:
            self.failures[name] += 1
            if self.failures[name] >= MOST_OUTAGES:
                raise self._stopped(
                    f"no batch was created in {MOST_OUTAGES} tries, the last with: {error}"
                ) from None
        else:
            self.looks[name] = 0
            self.refusals[name] += 1
            if self.refusals[name] >= MOST_REFUSALS:
                self._give_up(name, f"the endpoint takes no such batch: {error}")
                await self.api.delete(file)

    def _others_run(self, name: str) -> bool:
        """Whether this run waits for others, which take up the provider's room."""
        return bool(self.keys.keys() - self.full - {name})

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
        """Whether a batch has to wait until the provider has worked off others of this run."""
        if not batch.queue_full or not self._others_run(name):
            return False
        if self._own(name):
            self.store.unset_batch(name, batch.id)
            self.looks[name] = 0  # the one that there is has failed
            self.full.add(name)
        return True

    # -- taking in ------------------------------------------------------------------------------

    async def _take_in(self, name: str, batch: Batch) -> None:
        """Hand on the outcome of each request of a batch that has ended."""
        left = self.left.get(name)
        if left is None:
            left = self.left[name] = self._requests(name)
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
        self._take_rest(left, reason)
        self._finish(name)

    def _requests(self, name: str) -> dict[str, list[str]]:
        """The requests of a submission with those of their questions that are waited for.

        What is not in it any more was taken in or given up by another run.
        """
        mine = {
            request: sorted(self.keys[name].intersection(keys))
            for request, keys in self.store.requests(name).items()
        }
        self.given_up |= self.keys[name].difference(*mine.values())
        return {request: keys for request, keys in mine.items() if keys}

    async def _take_lines(self, file: str, left: dict[str, list[str]]) -> None:
        async with aclosing(self.api.lines(file)) as lines:
            async for line in lines:
                entry = read_line(line, self.api.key)
                if entry is not None and entry[0] in left:  # once, and nobody else's
                    self.take(left[entry[0]], entry[1])
                    del left[entry[0]]

    def _take_rest(self, left: dict[str, list[str]], reason: str) -> None:
        for request in list(left):
            self.take(left[request], NoAnswer(reason, outage=True))
            del left[request]

    def _finish(self, name: str) -> None:
        """Let go of what was taken in; what nobody asks for now is left to who does later."""
        self.store.free(list(self.keys[name]), name)
        if self.store.requests(name):
            self._leave(name)
        else:
            self._forget(name)

    def _give_up(self, name: str, reason: str) -> None:
        """Hand on why none of the requests of a submission has an answer."""
        self._take_rest(self._requests(name), reason)
        self._forget(name)

    def _forget(self, name: str) -> None:
        """Let go of a submission of which nothing is left, or was asked."""
        self.store.forget(name)
        self._leave(name)

    def _leave(self, name: str) -> None:
        """Wait for a submission no longer."""
        self._disown(name)
        self.keys.pop(name, None)
        self.left.pop(name, None)
        self.full.clear()  # there may be room now

    def _stopped(self, what: str) -> EndpointError:
        return EndpointError(
            f"{what}; what was submitted to {self.api.where} goes on there, so run again to take "
            "it in"
        )

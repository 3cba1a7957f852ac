"""Live dialogues, utterance by utterance, many at once over one model."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._texts import distinct_texts, row_of

__all__ = ["DialogueStream", "MicroBatcher", "Prediction"]

FULL_PAUSE = 0.001  # seconds until a coroutine asks a full queue again
CLOSED = "the MicroBatcher is closed"
Request = tuple[tuple[str, ...], "Future[NDArray[np.float64]]"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of an utterance.

    Attributes
    ----------
    label : object
        The most probable class, of the type that ``fit`` was given; multilabel: a tuple of the
        names of the labels that reach their thresholds.
    scores : ndarray of shape (n_classes,)
        Probabilities, in the order of ``classes_``.
    latency_ms : float
        From the call to the answer, in milliseconds.
    """

    label: Any
    scores: NDArray[np.float64]
    latency_ms: float


class DialogueStream:
    """Labels the utterances of one live dialogue as they come.

    The context is the one of training: the ``context_turns`` utterances before.  Nothing else
    of the dialogue is kept.  A stream may be used by several threads; the order of the calls is
    the order of the dialogue.

    Parameters
    ----------
    model : OnnxDialogueClassifier, DialoguePreferenceClassifier or MicroBatcher
        Fitted on text; without a column ``context``, as that is not known to a stream.

    See Also
    --------
    MicroBatcher : For many dialogues at once.

    Examples
    --------
    >>> from sklearn_dialpref import DialoguePreferenceClassifier, DialogueStream
    >>> X, y = ["Where is my parcel?", "It is broken.", "Thanks!", "Great."], [0, 0, 1, 1]
    >>> clf = DialoguePreferenceClassifier(random_state=0).fit(X, y)
    >>> stream = DialogueStream(clf)
    >>> stream.push("My parcel is broken.").label
    0
    >>> stream.push("Great, thanks!").label
    1
    """

    def __init__(self, model: Any) -> None:
        self._batcher = model if isinstance(model, MicroBatcher) else None
        self._model = model.model if isinstance(model, MicroBatcher) else checked(model)
        self._past: deque[str] = deque(maxlen=self._model.context_turns)
        self._lock = threading.Lock()

    def push(self, text: str, speaker: Any = None, *, timeout: float | None = None) -> Prediction:
        """Take the next utterance, and label it.

        Parameters
        ----------
        text : str
            Not empty.
        speaker : object, default=None
            Counts where classes were given for each speaker; one that is not named there can
            have them all.
        timeout : float, default=None
            Seconds to wait for the answer of a `MicroBatcher`; None waits as long as it takes.

        Returns
        -------
        Prediction

        Raises
        ------
        ValueError
            If the text is empty or no str.
        TimeoutError
            If the answer did not come in time; the utterance counts as said.
        RuntimeError
            If the `MicroBatcher` is closed.
        """
        start = time.perf_counter()
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be seconds, 0 or more, or None, got {timeout!r}")
        allowed = self._allowed(speaker)
        slots = self._take(text)
        if self._batcher is None:
            texts, index = row_of(slots)
            logits = self._model._of_texts(texts, index, keep=False)
        else:
            future = self._batcher._submit(slots, timeout)
            try:
                logits = future.result(_left(start, timeout))
            except TimeoutError:
                future.cancel()  # nobody waits for it any more
                raise
        return self._prediction(logits, allowed, start)

    async def apush(self, text: str, speaker: Any = None) -> Prediction:
        """As :meth:`push`, for coroutines: others run while it waits.

        Parameters
        ----------
        text : str
            Not empty.
        speaker : object, default=None
            As of :meth:`push`.

        Returns
        -------
        Prediction
        """
        start = time.perf_counter()
        allowed = self._allowed(speaker)
        slots = self._take(text)
        if self._batcher is None:
            texts, index = row_of(slots)
            logits = await asyncio.to_thread(self._model._of_texts, texts, index, False)
        else:
            logits = await asyncio.wrap_future(await self._batcher._asubmit(slots))
        return self._prediction(logits, allowed, start)

    def _allowed(self, speaker: Any) -> NDArray[np.bool_] | None:
        """Which classes the speaker can have; None for all."""
        of_speakers = self._model._of_speakers
        return of_speakers.get(speaker) if of_speakers else None

    def _take(self, text: str) -> tuple[str, ...]:
        """The texts of the utterance's row."""
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"an utterance must be a str that is not empty, got {text!r}")
        text.encode()  # half a character, as JSON may have it, is a ValueError here
        if not self._past.maxlen:
            return (text,)
        with self._lock:
            context = "\n".join(self._past)
            self._past.append(text)
        return text, context

    def _prediction(
        self, logits: NDArray[np.float64], allowed: NDArray[np.bool_] | None, start: float
    ) -> Prediction:
        model = self._model
        if allowed is not None:
            logits = np.where(allowed, logits, -np.inf)
        scores = model._probabilities(logits)[0]
        label = model._labels(logits)[0]
        if model.multilabel_:
            label = tuple(model.classes_[label == 1].tolist())
        elif isinstance(label, np.generic):
            label = label.item()
        return Prediction(label, scores, 1e3 * (time.perf_counter() - start))


class MicroBatcher:
    """Answers the utterances of many dialogues together, those that wait at the same time.

    A thread of its own runs the model: one utterance at once when it comes alone, a batch of
    those that came meanwhile when there are many.  When ``max_pending`` wait, further calls wait
    until there is room.

    Parameters
    ----------
    model : OnnxDialogueClassifier or DialoguePreferenceClassifier
        Fitted on text.
    max_batch : int, default=32
        Utterances that the model answers at a time, at most.
    max_pending : int, default=256
        Utterances that wait, at most.

    Examples
    --------
    >>> from sklearn_dialpref import DialoguePreferenceClassifier, DialogueStream, MicroBatcher
    >>> X, y = ["Where is my parcel?", "It is broken.", "Thanks!", "Great."], [0, 0, 1, 1]
    >>> clf = DialoguePreferenceClassifier(random_state=0).fit(X, y)
    >>> with MicroBatcher(clf) as batcher:
    ...     streams = [DialogueStream(batcher) for _ in range(3)]
    ...     print([stream.push("Great, thanks!").label for stream in streams])
    [1, 1, 1]
    """

    def __init__(self, model: Any, *, max_batch: int = 32, max_pending: int = 256) -> None:
        for name, value in (("max_batch", max_batch), ("max_pending", max_pending)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive int, got {value!r}")
        self.model = checked(model)
        self._max_batch = max_batch
        self._waiting: queue.Queue[Request | None] = queue.Queue(max_pending)
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="MicroBatcher", daemon=True)
        self._thread.start()

    def _submit(self, slots: tuple[str, ...], timeout: float | None = None) -> Future:
        """The future logits of a row, when there is room for it."""
        future: Future = Future()
        self._check_open()
        try:
            self._waiting.put((slots, future), timeout=timeout)
        except queue.Full:
            raise TimeoutError(f"no room among those that wait within {timeout} s") from None
        self._refuse_if_late()
        return future

    async def _asubmit(self, slots: tuple[str, ...]) -> Future:
        """As :meth:`_submit`, for coroutines."""
        future: Future = Future()
        while True:
            self._check_open()
            try:
                self._waiting.put_nowait((slots, future))
            except queue.Full:
                await asyncio.sleep(FULL_PAUSE)
            else:
                self._refuse_if_late()
                return future

    @property
    def n_waiting(self) -> int:
        """Utterances that wait now, those at work not counted."""
        return self._waiting.qsize()

    def close(self) -> None:
        """Answer those that wait, and end the thread.

        It waits for that: among coroutines, by ``await asyncio.to_thread(batcher.close)``.
        """
        with self._closing:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._refuse_if_late()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(CLOSED)
        if not self._thread.is_alive():
            raise RuntimeError(
                "the thread of the MicroBatcher is gone: make it in the process that uses it, "
                "after a fork"
            )

    def _refuse_if_late(self) -> None:
        """Nobody is left to answer what came after the end."""
        if not self._closed:
            return
        self._thread.join()
        with suppress(queue.Empty):
            while True:
                _refuse([self._waiting.get_nowait()])

    def _work(self) -> None:
        """Answer batch after batch, until there is None among the requests."""
        requests: list[Request | None] = []
        while None not in requests:
            requests = [self._waiting.get()]
            with suppress(queue.Empty):
                while len(requests) < self._max_batch:
                    requests.append(self._waiting.get_nowait())
            end = requests.index(None) if None in requests else len(requests)
            _refuse(requests[end:])
            known = [one for one in requests[:end] if one is not None]
            # from then on a future can no longer be cancelled, as a cancelled coroutine would
            self._answer([one for one in known if one[1].set_running_or_notify_cancel()])

    def _answer(self, requests: list[Request]) -> None:
        if not requests:
            return
        columns = zip(*(slots for slots, _ in requests), strict=True)
        try:
            slots = [np.array(column, dtype=object) for column in columns]
            texts, index = distinct_texts(slots)
            logits = self.model._of_texts(texts, index, keep=False)
        except Exception as error:  # of whatever kind, it is for the one who is to blame
            if len(requests) == 1:
                requests[0][1].set_exception(error)
            else:
                for request in requests:
                    self._answer([request])
            return
        for row, (_, future) in enumerate(requests):
            future.set_result(logits[row : row + 1])


def checked(model: Any) -> Any:
    """The model, if a stream can have its context."""
    if not hasattr(model, "_of_texts"):
        raise TypeError(
            "model must be an OnnxDialogueClassifier, a DialoguePreferenceClassifier or a "
            f"MicroBatcher of one, got {type(model).__name__}"
        )
    if not hasattr(model, "classes_"):
        raise ValueError(f"this {type(model).__name__} is not fitted yet; fit it first")
    if model._n_slots == 0:
        raise ValueError("model was fitted on ready-made features, but a stream has text")
    if model._n_slots == 2 and not model.context_turns:
        raise ValueError(
            "model was fitted with a column 'context', which a stream cannot make; fit it with "
            "context_turns instead"
        )
    return model


def _refuse(requests: Iterable[Request | None]) -> None:
    for request in requests:
        if request is not None and request[1].set_running_or_notify_cancel():
            request[1].set_exception(RuntimeError(CLOSED))


def _left(start: float, timeout: float | None) -> float | None:
    return None if timeout is None else max(0.0, timeout - (time.perf_counter() - start))

"""Live dialogues, utterance by utterance, many at once over one model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.texts import check_encodable, distinct_texts, row_of
from sklearn_dialpref._labels.fitted import TextClassifier

__all__ = ["DialogueStream", "MicroBatcher", "Prediction"]


@dataclass(frozen=True, eq=False)
class Request:
    """A row, its future logits, and when there is room for it."""

    slots: tuple[str, ...]
    logits: Future[NDArray[np.float64]] = field(default_factory=Future)
    room: Future[None] = field(default_factory=Future)


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

    The context is the one of training: the ``context_turns`` utterances before. Nothing else
    of the dialogue is kept. A stream may be used by several threads; the order of the calls is
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
            If the text is empty or not a str.
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
            logits = self._model._logits_from_texts(texts, index, keep=False)
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
            logits = await asyncio.to_thread(self._model._logits_from_texts, texts, index, False)
        else:
            logits = await asyncio.wrap_future(await self._batcher._asubmit(slots))
        return self._prediction(logits, allowed, start)

    def _allowed(self, speaker: Any) -> NDArray[np.bool_] | None:
        """Which classes the speaker can have; None for all."""
        try:
            return self._model.fitted_labels_.classes_by_speaker.get(speaker)
        except TypeError:
            raise TypeError(
                f"speaker must be a name or a number, got {speaker!r} of type "
                f"{type(speaker).__name__}; pass str(speaker)"
            ) from None

    def _take(self, text: str) -> tuple[str, ...]:
        """The texts of the utterance's row."""
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"an utterance must be a str that is not empty, got {text!r}")
        check_encodable(text, "the utterance")  # JSON may have half a character
        if not self._past.maxlen:
            return (text,)
        with self._lock:
            context = "\n".join(self._past)
            self._past.append(text)
        return text, context

    def _prediction(
        self, logits: NDArray[np.float64], allowed: NDArray[np.bool_] | None, start: float
    ) -> Prediction:
        labels = self._model.fitted_labels_
        if allowed is not None:
            logits = np.where(allowed, logits, -np.inf)
        scores = labels.probabilities(logits)[0]
        label = labels.labels(logits)[0]
        if labels.multilabel:
            label = tuple(labels.classes[label == 1].tolist())
        elif isinstance(label, np.generic):
            label = label.item()
        return Prediction(label, scores, 1e3 * (time.perf_counter() - start))


class MicroBatcher:
    """Answers the utterances of many dialogues together, those that wait at the same time.

    A thread of its own runs the model: one utterance at once when it comes alone, a batch of
    those that came meanwhile when there are many. When ``max_pending`` wait, further calls wait
    until there is room, in their order.

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
        self._max_batch, self._max_pending = max_batch, max_pending
        self._before: deque[Request] = deque()  # those that wait for room, in their order
        self._waiting: deque[Request] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="MicroBatcher", daemon=True)
        self._thread.start()

    def _submit(self, slots: tuple[str, ...], timeout: float | None = None) -> Future:
        """The future logits of a row, when there is room for it."""
        request = self._enter(slots)
        try:
            request.room.result(timeout)
        except TimeoutError:
            if request.room.cancel():
                raise TimeoutError(f"no room among those that wait within {timeout} s") from None
        return request.logits

    async def _asubmit(self, slots: tuple[str, ...]) -> Future:
        """As :meth:`_submit`, for coroutines."""
        request = self._enter(slots)
        try:
            await asyncio.wrap_future(request.room)
        except asyncio.CancelledError:
            request.logits.cancel()
            raise
        return request.logits

    def _enter(self, slots: tuple[str, ...]) -> Request:
        request = Request(slots)
        with self._change:
            if self._closed:
                raise RuntimeError("the MicroBatcher is closed")
            if not self._thread.is_alive():
                raise RuntimeError(
                    "the thread of the MicroBatcher is gone: make it in the process that uses "
                    "it, after a fork"
                )
            self._before.append(request)
            self._admit()
            self._change.notify()
        return request

    def _admit(self) -> None:
        """Let in as many as there is room for."""
        while self._before and len(self._waiting) < self._max_pending:
            request = self._before.popleft()
            if request.room.set_running_or_notify_cancel():
                self._waiting.append(request)
                request.room.set_result(None)

    @property
    def n_waiting(self) -> int:
        """Utterances that wait now, those at work and those without room not counted."""
        return len(self._waiting)

    def close(self, timeout: float | None = None) -> None:
        """Take no more, answer those that wait, and end the thread.

        It waits for that: among coroutines, by ``await asyncio.to_thread(batcher.close)``.

        Parameters
        ----------
        timeout : float, default=None
            Seconds to wait; None waits as long as it takes.
        """
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _work(self) -> None:
        while requests := self._next():
            # from then on a future can no longer be cancelled, as a cancelled coroutine would
            self._answer([one for one in requests if one.logits.set_running_or_notify_cancel()])

    def _next(self) -> list[Request]:
        """Those that wait, as many as a batch may have; none at the end."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closed)
            n_requests = min(len(self._waiting), self._max_batch)
            requests = [self._waiting.popleft() for _ in range(n_requests)]
            self._admit()
        return requests

    def _answer(self, requests: list[Request]) -> None:
        if not requests:
            return
        columns = zip(*(request.slots for request in requests), strict=True)
        try:
            slots = [np.array(column, dtype=object) for column in columns]
            texts, index = distinct_texts(slots)
            logits = self.model._logits_from_texts(texts, index, keep=False)
        except BaseException as error:  # of whatever kind, it is for the one who is to blame
            if len(requests) == 1:
                if not isinstance(error, Exception):  # a panic of a Rust library
                    error = RuntimeError(f"the model failed: {error!r}")
                requests[0].logits.set_exception(error)
            else:
                for request in requests:
                    self._answer([request])
            return
        for row, request in enumerate(requests):
            request.logits.set_result(logits[row : row + 1])


def checked(model: Any) -> TextClassifier:
    """The model, if a stream can have its context."""
    if not hasattr(model, "_logits_from_texts"):
        raise TypeError(
            "model must be an OnnxDialogueClassifier, a DialoguePreferenceClassifier or a "
            f"MicroBatcher of one, got {type(model).__name__}"
        )
    if not hasattr(model, "fitted_labels_"):
        raise ValueError(f"this {type(model).__name__} is not fitted yet; fit it first")
    if model.fitted_labels_.n_texts == 0:
        raise ValueError("model was fitted on precomputed features, but a stream has text")
    if model.fitted_labels_.n_texts == 2 and not model.context_turns:
        raise ValueError(
            "model was fitted with a column 'context', which a stream cannot make; fit it with "
            "context_turns instead"
        )
    return model


def _left(start: float, timeout: float | None) -> float | None:
    return None if timeout is None else max(0.0, timeout - (time.perf_counter() - start))

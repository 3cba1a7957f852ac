"""Live dialogues, utterance by utterance, many at once over one model."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.texts import check_encodable, distinct_texts, row_of
from sklearn_dialpref._labels.fitted import FittedLabels, TextClassifier

from .asking import (
    TEACHER_TURNS,
    Escalation,
    Prediction,
    TeacherPool,
    Turn,
    check_escalation,
    escalated,
    since,
)
from .round_robin import RoundRobin

__all__ = ["DialogueStream", "MicroBatcher", "Prediction"]

T = TypeVar("T")


class Answer(NamedTuple):
    """The logits of a row, and the labels of the model that they come from."""

    logits: NDArray[np.float64]
    labels: FittedLabels


@dataclass(frozen=True, eq=False)
class Request:
    """An utterance with those before it, its future answer, and when there is room for it."""

    stream: DialogueStream
    text: str
    past: tuple[str, ...]
    answer: Future[Answer] = field(default_factory=Future)
    room: Future[None] = field(default_factory=Future)


class DialogueStream:
    """Labels the utterances of one live dialogue as they come.

    The context is the one of training: the ``context_turns`` utterances before. Nothing else
    of the dialogue is kept. A stream may be used by several threads; the order of the calls is
    the order of the dialogue. Over a `MicroBatcher` it goes on when the model is replaced.

    Parameters
    ----------
    model : OnnxDialogueClassifier, DialoguePreferenceClassifier or MicroBatcher
        Fitted on text; without a column ``context``, as that is not known to a stream.
    escalate : EscalatingClassifier, default=None
        Fitted; `model` is its ``student_`` or an export of it. Where it asks its teacher, the
        student's prediction comes at once and has a future ``better``. Where it gives no answer,
        the label is None. The teacher sees the last 20 utterances and is asked by threads: one
        of this stream or, with a `MicroBatcher`, eight of that, for all its streams. While 32
        questions of this stream, or 256 of the `MicroBatcher`, wait for it, no more are asked.

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

    def __init__(self, model: Any, *, escalate: Any = None) -> None:
        self._batcher = model if isinstance(model, MicroBatcher) else None
        self._alone: Any = None if self._batcher else checked(model)
        self._past: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._escalate: Escalation | None = None
        if escalate is not None:
            self._escalate = check_escalation(escalate, self._model.fitted_labels_)
            self._turns: tuple[Turn, ...] = ()
            self._pool = self._batcher.teacher_pool if self._batcher else TeacherPool(1, 32)

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
        check_speaker(speaker)
        past, turns = self._take(text, speaker)
        if self._batcher is None:
            answer = answer_alone(self._alone, text, past)
        else:
            future = self._batcher._submit(self, text, past, timeout)
            try:
                answer = future.result(_left(start, timeout))
            except TimeoutError:
                future.cancel()  # nobody waits for it any more
                raise
        student = prediction(answer, speaker, start)
        if self._escalate is None:
            return student
        return escalated(self._escalate, self._pool, student, turns, start)

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
        check_speaker(speaker)
        past, turns = self._take(text, speaker)
        if self._batcher is None:
            answer = await asyncio.to_thread(answer_alone, self._alone, text, past)
        else:
            answer = await asyncio.wrap_future(await self._batcher._asubmit(self, text, past))
        student = prediction(answer, speaker, start)
        if self._escalate is None:
            return student
        asking = self._escalate, self._pool, student, turns, start
        return await asyncio.to_thread(escalated, *asking)

    def reset(self) -> None:
        """Begin a new dialogue with the same model: the next utterance has no context.

        Utterances pushed before keep the context that they had, and their answers still come,
        later ones of a teacher too. A teacher sees none of them in the new dialogue.

        Examples
        --------
        >>> from sklearn_dialpref import DialoguePreferenceClassifier, DialogueStream
        >>> X, y = ["Where is my parcel?", "It is broken.", "Thanks!", "Great."], [0, 0, 1, 1]
        >>> clf = DialoguePreferenceClassifier(context_turns=1, random_state=0)
        >>> stream = DialogueStream(clf.fit(X, y))
        >>> first = stream.push("Thanks!")
        >>> stream.reset()
        >>> bool((stream.push("Thanks!").scores == first.scores).all())
        True
        """
        with self._lock:
            self._past = ()
            if self._escalate is not None:
                self._turns = ()

    @property
    def _model(self) -> Any:
        return self._batcher.model if self._batcher else self._alone

    def _take(self, text: str, speaker: Any) -> tuple[tuple[str, ...], tuple[Turn, ...]]:
        """The utterances before this one, and those for a teacher, of which it is the last."""
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"an utterance must be a str that is not empty, got {text!r}")
        check_encodable(text, "the utterance")  # JSON may have half a character
        model = self._model
        with self._lock:
            past = self._past
            self._past = latest((*past, text), model.context_turns)
            if self._escalate is None:
                return past, ()
            self._turns = latest((*self._turns, (text, speaker)), TEACHER_TURNS)
            return past, self._turns


class MicroBatcher:
    """Answers the utterances of many dialogues together, those that wait at the same time.

    A thread of its own runs the model: one utterance at once when it comes alone, a batch of
    those that came meanwhile when there are many. When ``max_pending`` wait, further calls wait
    until there is room.

    Streams take turns, for room and for the model: with many utterances of one stream at once,
    another stream waits for one of them, or a batch, and not for all. Those of one stream are
    answered in their order.

    A model that is served is not fitted again: fit another one, and :meth:`reload` it.

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
        self._model = checked(model)
        self._max_batch, self._max_pending = max_batch, max_pending
        self._before: RoundRobin[Request] = RoundRobin()  # those that wait for room
        self._waiting: RoundRobin[Request] = RoundRobin()
        self._change = threading.Condition()
        self._closed = False
        self.teacher_pool = TeacherPool(8, 256)
        self._thread = threading.Thread(target=self._work, name="MicroBatcher", daemon=True)
        self._thread.start()

    @property
    def model(self) -> TextClassifier:
        """The model that takes the next utterances; another one comes by :meth:`reload`."""
        return self._model

    def reload(self, model: Any) -> None:
        """Answer by another model from now on; no stream is dropped, and no utterance.

        What the old model has begun it answers. All others, those that wait now too, are
        answered by the new one. An answer is of one model: its label, scores and classes.

        The new model may have other classes, and another ``context_turns``. If these are more, a
        dialogue under way has at first the context that its stream has kept for the old model,
        and one more utterance with each turn.

        Parameters
        ----------
        model : OnnxDialogueClassifier or DialoguePreferenceClassifier
            Fitted on text, as for the class.

        Raises
        ------
        TypeError, ValueError
            If a stream cannot use it; the old model stays.
        RuntimeError
            If the `MicroBatcher` is closed.

        Examples
        --------
        >>> from sklearn_dialpref import DialoguePreferenceClassifier, DialogueStream, MicroBatcher
        >>> X = ["Where is my parcel?", "It is broken.", "Thanks!", "Great."]
        >>> numbers = DialoguePreferenceClassifier(random_state=0).fit(X, [0, 0, 1, 1])
        >>> words = DialoguePreferenceClassifier(random_state=0).fit(X, ["bad", "bad", "ok", "ok"])
        >>> with MicroBatcher(numbers) as batcher:
        ...     stream = DialogueStream(batcher)
        ...     before = stream.push("My parcel is broken.").label
        ...     batcher.reload(words)
        ...     print(before, stream.push("Great, thanks!").label)
        0 ok
        """
        model = checked(model)
        with self._change:
            self._check_open()
            self._model = model

    def _submit(
        self, stream: DialogueStream, text: str, past: tuple[str, ...], timeout: float | None
    ) -> Future[Answer]:
        """The future answer to an utterance, when there is room for it."""
        request = self._enter(stream, text, past)
        try:
            request.room.result(timeout)
        except TimeoutError:
            if request.room.cancel():
                raise TimeoutError(f"no room among those that wait within {timeout} s") from None
        return request.answer

    async def _asubmit(
        self, stream: DialogueStream, text: str, past: tuple[str, ...]
    ) -> Future[Answer]:
        """As :meth:`_submit`, for coroutines."""
        request = self._enter(stream, text, past)
        try:
            await asyncio.wrap_future(request.room)
        except asyncio.CancelledError:
            request.answer.cancel()
            raise
        return request.answer

    def _enter(self, stream: DialogueStream, text: str, past: tuple[str, ...]) -> Request:
        request = Request(stream, text, past)
        with self._change:
            self._check_open()
            if not self._thread.is_alive():
                raise RuntimeError(
                    "the thread of the MicroBatcher is gone: make it in the process that uses "
                    "it, after a fork"
                )
            self._before.append(stream, request)
            self._admit()
            self._change.notify()
        return request

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the MicroBatcher is closed")

    def _admit(self) -> None:
        """Let in as many as there is room for."""
        while self._before and len(self._waiting) < self._max_pending:
            request = self._before.popleft()
            if request.room.set_running_or_notify_cancel():
                self._waiting.append(request.stream, request)
                request.room.set_result(None)

    @property
    def n_waiting(self) -> int:
        """Utterances that wait now, those at work and those without room not counted."""
        return len(self._waiting)

    def close(self, timeout: float | None = None) -> None:
        """Take no more, answer those that wait, and end the thread; teachers are asked no more.

        It waits for that: among coroutines, by ``await asyncio.to_thread(batcher.close)``.

        Parameters
        ----------
        timeout : float, default=None
            Seconds to wait; None waits as long as it takes.
        """
        with self._change:
            self._closed = True
            self._change.notify()
        self.teacher_pool.close()
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
        while self._answer_some():
            pass  # with no name for an utterance or a model that could go meanwhile

    def _answer_some(self) -> bool:
        """Answer a batch as soon as there is one; False at the end."""
        requests = self._next()
        # from then on a future can no longer be cancelled, as a cancelled coroutine would
        taken = [one for one in requests if one.answer.set_running_or_notify_cancel()]
        answer_all(self._model, taken)
        return bool(requests)

    def _next(self) -> list[Request]:
        """Those that wait, as many as a batch may have; none at the end."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closed)
            n_requests = min(len(self._waiting), self._max_batch)
            requests = [self._waiting.popleft() for _ in range(n_requests)]
            self._admit()
        return requests


def answer_all(model: TextClassifier, requests: list[Request]) -> None:
    """Set the answers of all requests, each an error of its own if need be."""
    if not requests:
        return
    try:
        columns = zip(*(slots(model, one.text, one.past) for one in requests), strict=True)
        texts, index = distinct_texts([np.array(column, dtype=object) for column in columns])
        logits = model._logits_from_texts(texts, index, keep=False)
    except BaseException as error:  # of whatever kind, it is for the one who is to blame
        if len(requests) == 1:
            if not isinstance(error, Exception):  # a panic of a Rust library
                error = RuntimeError(f"the model failed: {error!r}")
            requests[0].answer.set_exception(error)
        else:
            for request in requests:
                answer_all(model, [request])
        return
    for row, request in enumerate(requests):
        request.answer.set_result(Answer(logits[row : row + 1], model.fitted_labels_))


def answer_alone(model: TextClassifier, text: str, past: tuple[str, ...]) -> Answer:
    """The answer to a single utterance, in the shortest way."""
    texts, index = row_of(slots(model, text, past))
    return Answer(model._logits_from_texts(texts, index, False), model.fitted_labels_)


def slots(model: TextClassifier, text: str, past: tuple[str, ...]) -> tuple[str, ...]:
    """The texts of an utterance's row, with the context that the model wants."""
    turns = model.context_turns
    return (text, "\n".join(latest(past, turns))) if turns else (text,)


def latest(utterances: tuple[T, ...], n_utterances: int) -> tuple[T, ...]:
    """The last so many of them."""
    return utterances[max(0, len(utterances) - n_utterances) :]


def prediction(answer: Answer, speaker: Any, start: float) -> Prediction:
    """What an answer says, with the classes that its speaker can have."""
    logits, labels = answer
    allowed = labels.classes_by_speaker.get(speaker)
    if allowed is not None:
        logits = np.where(allowed, logits, -np.inf)
    scores = labels.probabilities(logits)[0]
    label = labels.labels(logits)[0]
    if labels.multilabel:
        label = tuple(labels.classes[label == 1].tolist())
    elif isinstance(label, np.generic):
        label = label.item()
    return Prediction(label, scores, since(start), labels.classes)


def check_speaker(speaker: Any) -> None:
    """Refuse what cannot be looked up, before it has an effect."""
    try:
        hash(speaker)
    except TypeError:
        raise TypeError(
            f"speaker must be a name or a number, got {speaker!r} of type "
            f"{type(speaker).__name__}; pass str(speaker)"
        ) from None


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

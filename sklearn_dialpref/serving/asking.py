"""The better answers of a teacher, which come after those of a stream."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Turn = tuple[str, Any]  # text and speaker

TEACHER_TURNS = 20  # of the dialogue that a teacher sees, at most


class BetterAnswer(Future["Prediction"]):
    """A future of threads for which a coroutine can wait, too; it never has an error."""

    def __await__(self) -> Generator[Any, None, Prediction]:
        return asyncio.wrap_future(self).__await__()


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of an utterance.

    Attributes
    ----------
    label : object
        The most probable class, of the type that ``fit`` was given; multilabel: a tuple of the
        names of the labels that reach their thresholds. None where an
        :class:`~sklearn_dialpref.escalation.EscalatingClassifier` gives no answer.
    scores : ndarray of shape (n_classes,)
        Probabilities, in the order of ``classes_``.
    latency_ms : float
        From the call to the answer, in milliseconds.
    classes : ndarray of shape (n_classes,)
        What the scores belong to: ``classes_`` of the model that answered, which a
        `MicroBatcher` may have changed since.
    source : {"student", "teacher"}, default="student"
        Whose answer it is; "teacher": combined from both.
    better : Future of Prediction or None, default=None
        Where the teacher is asked: what comes of it. ``better.result()`` waits for it, and so
        does ``await better`` in a coroutine. It has no error: where the teacher has no answer,
        it is the student's, with `failure`.
    failure : str or None, default=None
        Why the teacher did not answer, though it should have.

    Examples
    --------
    >>> from sklearn_dialpref import DialoguePreferenceClassifier, DialogueStream
    >>> X, y = ["Where is my parcel?", "It is broken.", "Thanks!", "Great."], [0, 0, 1, 1]
    >>> clf = DialoguePreferenceClassifier(random_state=0).fit(X, y)
    >>> prediction = DialogueStream(clf).push("Great, thanks!")
    >>> prediction.label, prediction.classes.tolist(), prediction.source
    (1, [0, 1], 'student')
    >>> bool(prediction.scores[1] > 0.5)
    True
    """

    label: Any
    scores: Scores
    latency_ms: float
    classes: NDArray[Any]
    source: str = "student"
    better: BetterAnswer | None = None
    failure: str | None = None


class Escalation(Protocol):
    """What a stream wants of an EscalatingClassifier, which has it as ``live_``."""

    @property
    def classes(self) -> NDArray[Any]:
        """Of the answers."""

    def decide(self, text: str, scores: Scores, classes: NDArray[Any]) -> tuple[bool, bool]:
        """Whether the teacher is asked, and whether there is no answer at all."""

    def ask(self, turns: Sequence[Turn], scores: Scores, classes: NDArray[Any]) -> Scores | None:
        """The combined probabilities of the last turn; None without an answer."""


def check_escalation(escalate: Any, labels: Any) -> Escalation:
    """The classifier, if it can decide on the answers of a model with these labels."""
    if not (hasattr(escalate, "escalates") and hasattr(escalate, "reject_threshold")):
        raise TypeError(
            f"escalate must be a fitted EscalatingClassifier, got {type(escalate).__name__}"
        )
    if not hasattr(escalate, "live_"):
        raise ValueError("this EscalatingClassifier is not fitted yet; fit it first")
    live: Escalation = escalate.live_
    if labels.multilabel:
        raise ValueError("model gives several labels to an utterance, which escalate cannot")
    check_classes(live, labels.classes)
    return live


def check_classes(live: Escalation, classes: NDArray[Any]) -> None:
    """Refuse a model that has other classes."""
    if not set(classes.tolist()) <= set(live.classes.tolist()):
        raise ValueError(
            f"model has the classes {classes.tolist()}, but escalate was fitted with "
            f"{live.classes.tolist()}; pass its student_ as the model, or an export of it"
        )


class TeacherPool:
    """Threads that ask a teacher, and no more questions than they can be expected to answer.

    Parameters
    ----------
    n_threads : int
        Questions at a time.
    most_waiting : int
        Questions that wait or are at work, at most; others are not asked.
    """

    def __init__(self, n_threads: int, most_waiting: int) -> None:
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix="teacher")
        self._room = threading.BoundedSemaphore(most_waiting)

    def close(self) -> None:
        """Ask no more; what waits gets the student's answer."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def better(
        self, student: Prediction, start: float, ask: Callable[[], Scores | None], classes: Any
    ) -> BetterAnswer:
        """The future answer, at once the student's if there is no room."""
        answer = BetterAnswer()
        answer.set_running_or_notify_cancel()  # one who waits no more takes it from nobody

        def work() -> None:
            answer.set_result(_asked(student, start, ask, classes))

        if not self._room.acquire(blocking=False):
            answer.set_result(failed(student, start, "too many questions wait for the teacher"))
            return answer
        try:
            done = self._threads.submit(work)
        except RuntimeError:  # closed
            self._room.release()
            answer.set_result(failed(student, start, "the MicroBatcher is closed"))
            return answer

        def release(done: Future[None]) -> None:
            self._room.release()
            if done.cancelled():
                answer.set_result(failed(student, start, "the MicroBatcher was closed"))

        done.add_done_callback(release)
        return answer


def _asked(
    student: Prediction, start: float, ask: Callable[[], Scores | None], classes: NDArray[Any]
) -> Prediction:
    try:
        scores = ask()
    except BaseException as error:  # of whatever kind, the stream goes on
        return failed(student, start, f"the teacher failed: {type(error).__name__}: {error}")
    if scores is None:
        return failed(student, start, "the teacher gave no answer")
    label = classes[scores.argmax()]
    label = label.item() if isinstance(label, np.generic) else label
    return Prediction(label, scores, since(start), classes, source="teacher")


def escalated(
    escalate: Escalation,
    pool: TeacherPool,
    student: Prediction,
    turns: Sequence[Turn],
    start: float,
) -> Prediction:
    """The student's prediction, without a label where none is given, and with a better one.

    Parameters
    ----------
    escalate : Escalation
    pool : TeacherPool
    student : Prediction
    turns : sequence of (str, object)
        Utterances of the dialogue with their speakers; the last is the one.
    start : float
        When it came.
    """
    scores, classes = student.scores, student.classes
    try:
        check_classes(escalate, classes)  # a MicroBatcher may have another model by now
        asks, silent = escalate.decide(turns[-1][0], scores, classes)
    except Exception as error:
        return failed(student, start, f"escalate failed: {type(error).__name__}: {error}")
    if silent:
        return replace(student, label=None, latency_ms=since(start))
    if not asks:
        return replace(student, latency_ms=since(start))

    def ask() -> Scores | None:
        return escalate.ask(turns, scores, classes)

    better = pool.better(student, start, ask, escalate.classes)
    return replace(student, latency_ms=since(start), better=better)


def failed(student: Prediction, start: float, reason: str) -> Prediction:
    """The student's prediction, in place of a better one."""
    return replace(student, latency_ms=since(start), failure=reason)


def since(start: float) -> float:
    """Milliseconds."""
    return 1e3 * (time.perf_counter() - start)

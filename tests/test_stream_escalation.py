"""Streams that answer at once by the student, and later by the teacher."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from gated_model import PATIENCE, GatedModel, until
from numpy.testing import assert_allclose
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from students import student

from sklearn_dialpref import DialogueStream, MicroBatcher
from sklearn_dialpref._dialogues.validation import check_dialogues
from sklearn_dialpref._labels.fitted import FittedLabels
from sklearn_dialpref.escalation import EscalatingClassifier
from sklearn_dialpref.escalation.combining import combine
from sklearn_dialpref.escalation.live import LiveAnswers
from sklearn_dialpref.serving import asking
from sklearn_dialpref.serving.asking import TeacherPool

TEXTS = ["where is my parcel", "thanks", "refund my parcel", "hello hi", "my late refund", "hi"]
LABELS = ["ask", "greet"]


class Teacher(ClassifierMixin, BaseEstimator):
    """A teacher that is right, when the test lets it answer; it keeps what it was asked."""

    def __init__(self):
        self.classes_ = np.array(LABELS)
        self.gate, self.heard, self.error, self.is_silent = threading.Event(), [], None, False
        self.gate.set()

    def fit(self, X, y):
        return self

    def predict_proba(self, X, asked=None):
        assert self.gate.wait(PATIENCE)
        if self.error:
            raise self.error
        dialogues = check_dialogues(X)
        self.heard.append(dialogues)
        self.last_ = len(dialogues)
        is_ask = [("parcel" in text) or ("refund" in text) for text in dialogues.text]
        proba = np.where(is_ask, 0.95, 0.05)[:, None]
        proba = np.hstack([proba, 1 - proba])
        proba[~np.asarray(asked) | self.is_silent] = np.nan
        return proba


def chats(n_rows=72):
    X = pd.DataFrame({"dialogue_id": np.arange(n_rows) // 6, "turn": np.arange(n_rows) % 6})
    return X.assign(
        text=np.resize(TEXTS, n_rows), speaker=np.resize(["customer", "agent"], n_rows)
    )


def escalating(tiny_encoder, teacher, X=None, **parameters):
    X = chats() if X is None else X
    clf = EscalatingClassifier(student(tiny_encoder, max_epochs=1), teacher, cv=2, **parameters)
    return clf.fit(X, np.resize(LABELS, len(X)))


def always(clf):
    """It passes on all utterances, whatever it has learned."""
    clf._rule = replace(clf._rule, threshold=-1)
    clf.live_ = replace(clf.live_, rule=clf._rule)
    return clf


@pytest.fixture(scope="module")
def asked_always(tiny_encoder):
    """Asks about all, as if nothing else were known."""
    return always(escalating(tiny_encoder, Teacher(), max_share=1))


@pytest.fixture
def asking_all(asked_always):
    asked_always.teacher = Teacher()
    asked_always.live_ = replace(asked_always.live_, teacher=asked_always.teacher)
    return asked_always


@pytest.mark.parametrize("together", [False, True])
def test_an_answer_at_once_and_a_better_one_later(asking_all, together):
    clf = asking_all
    clf.teacher.gate.clear()
    batcher = MicroBatcher(clf.student_) if together else None
    stream = DialogueStream(batcher or clf.student_, escalate=clf)
    first = stream.push("where is my parcel", "customer")
    assert first.source == "student"
    assert not first.better.done()
    assert first.label == clf.student_.predict(["where is my parcel"])[0]
    second = stream.push("thanks", "agent")
    clf.teacher.gate.set()
    better = second.better.result(PATIENCE)
    assert (better.source, better.label, better.better, better.failure) == (
        "teacher",
        "greet",
        None,
        None,
    )
    assert better.latency_ms > second.latency_ms > 0
    assert first.better.result(PATIENCE).label == "ask"
    X = chats().iloc[:2].assign(text=["where is my parcel", "thanks"])
    assert_allclose(better.scores, clf.predict_proba(X)[1], atol=1e-6)
    assert list(better.classes) == LABELS
    if batcher:
        batcher.close()


def test_what_the_teacher_sees(asking_all):
    heard = asking_all.teacher.heard
    stream = DialogueStream(asking_all.student_, escalate=asking_all)
    for turn in range(30):
        stream.push(f"hi {turn}", "agent" if turn % 2 else "customer").better.result(PATIENCE)
    assert list(heard[1].text) == ["hi 0", "hi 1"]
    assert list(heard[1].speaker) == ["customer", "agent"]
    assert list(heard[-1].text) == [f"hi {turn}" for turn in range(10, 30)]
    stream.push("thanks").better.result(PATIENCE)
    assert heard[-1].speaker is None
    assert len(stream._turns) == 20


def test_a_teacher_sees_nothing_of_the_dialogue_before_a_reset(asking_all):
    teacher = asking_all.teacher
    stream = DialogueStream(asking_all.student_, escalate=asking_all)
    teacher.gate.clear()
    before = stream.push("my late refund").better
    stream.reset()
    after = stream.push("thanks").better
    teacher.gate.set()
    assert [one.result(PATIENCE).source for one in (before, after)] == ["teacher"] * 2
    assert [list(one.text) for one in teacher.heard[-2:]] == [["my late refund"], ["thanks"]]


def test_an_array_has_no_speakers(tiny_encoder):
    X = chats()[["dialogue_id", "text"]].to_numpy(dtype=object)
    clf = escalating(tiny_encoder, Teacher(), X, max_share=1)
    always(clf)
    better = DialogueStream(clf.student_, escalate=clf).push("my refund", "agent").better
    assert better.result(PATIENCE).label == "ask"


@pytest.mark.parametrize("together", [False, True])
def test_coroutines_wait_for_the_better_answer(asking_all, together):
    async def talk(model):
        stream = DialogueStream(model, escalate=asking_all)
        return [await (await stream.apush(text)).better for text in TEXTS]

    async def several(model):
        return await asyncio.gather(*(talk(model) for _ in range(3)))

    if together:
        with MicroBatcher(asking_all.student_) as batcher:
            found = asyncio.run(several(batcher))
    else:
        found = asyncio.run(several(asking_all.student_))
    expected = ["ask", "greet", "ask", "greet", "ask", "greet"]
    assert [[one.label for one in answers] for answers in found] == [expected] * 3


def test_a_coroutine_that_is_cancelled_takes_nothing_away(asking_all):
    asking_all.teacher.gate.clear()
    prediction = DialogueStream(asking_all.student_, escalate=asking_all).push("thanks")

    async def give_up():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(prediction.better, 0.01)

    asyncio.run(give_up())
    asking_all.teacher.gate.set()
    assert prediction.better.result(PATIENCE).label == "greet"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ArithmeticError("no"), "the teacher failed: ArithmeticError: no"), (None, "gave no answer")],
)
def test_a_teacher_without_an_answer(asking_all, error, reason):
    asking_all.teacher.error, asking_all.teacher.is_silent = error, True
    stream = DialogueStream(asking_all.student_, escalate=asking_all)
    prediction = stream.push("thanks")
    better = prediction.better.result(PATIENCE)
    assert better.source == "student"
    assert reason in better.failure
    assert better.label == prediction.label
    assert_allclose(better.scores, prediction.scores)
    assert prediction.failure is None
    assert stream.push("hi").label in LABELS


def test_a_slow_teacher_blocks_nobody(asking_all, monkeypatch):
    monkeypatch.setattr(asking, "TEACHER_TURNS", 1)
    asking_all.teacher.gate.clear()
    stream = DialogueStream(asking_all.student_, escalate=asking_all)
    stream._pool = TeacherPool(1, 3)
    found = [stream.push("thanks") for _ in range(5)]
    assert [one.better.done() for one in found] == [False] * 3 + [True] * 2
    assert "too many questions" in found[4].better.result().failure
    asking_all.teacher.gate.set()
    assert [one.better.result(PATIENCE).source for one in found[:3]] == ["teacher"] * 3
    until(lambda: stream.push("thanks").better.result(PATIENCE).source == "teacher")


def test_a_batcher_that_closes(asking_all):
    asking_all.teacher.gate.clear()
    batcher = MicroBatcher(asking_all.student_)
    stream = DialogueStream(batcher, escalate=asking_all)
    found = [stream.push("thanks") for _ in range(12)]
    batcher.close()
    waited = found[-1].better.result(PATIENCE)
    assert (waited.source, waited.failure) == ("student", "the MicroBatcher was closed")
    asking_all.teacher.gate.set()
    assert found[0].better.result(PATIENCE).source == "teacher"


def test_each_question_has_a_teacher_of_its_own(asking_all):
    with MicroBatcher(asking_all.student_) as batcher, ThreadPoolExecutor(8) as pool:
        streams = [DialogueStream(batcher, escalate=asking_all) for _ in range(8)]
        found = list(pool.map(lambda one: one.push("my refund"), streams))
        assert {one.better.result(PATIENCE).label for one in found} == {"ask"}
    assert not hasattr(asking_all.teacher, "last_")


class Exported(GatedModel):
    """A model that answers in place of the student, as an export does."""

    fitted_labels_ = FittedLabels(np.array(LABELS), False, None, {}, 2)


def test_the_scores_are_those_of_the_model(asking_all):
    with MicroBatcher(Exported()) as batcher:
        stream = DialogueStream(batcher, escalate=asking_all)
        prediction = stream.push("thanks")
        assert_allclose(prediction.scores, softmax([len("thanks"), 0]))
        better = prediction.better.result(PATIENCE).scores
        answer, combination = np.array([[0.05, 0.95]]), asking_all.combination_
        assert_allclose(better, combine(prediction.scores[None], answer, combination)[0])
        batcher.reload(GatedModel())  # of other classes
        other = stream.push("thanks")
        assert (other.label, other.better) == ("a", None)
        assert "model has the classes ['a', 'b']" in other.failure


def test_sure_answers_are_not_asked_about(tiny_encoder):
    teacher = Teacher()
    clf = escalating(tiny_encoder, teacher, max_share=0)
    teacher.heard.clear()
    prediction = DialogueStream(clf.student_, escalate=clf).push("thanks")
    assert prediction.better is None
    assert not teacher.heard


def test_abstaining_and_unknown_utterances(tiny_encoder):
    from sklearn_dialpref._student.frozen import _STORES
    from sklearn_dialpref._student.store import digests_of

    clf = escalating(tiny_encoder, None, max_share=0.5)
    always(clf)
    prediction = DialogueStream(clf.student_, escalate=clf).push("thanks")
    assert (prediction.label, prediction.better) == (None, None)
    assert prediction.scores.sum() == pytest.approx(1)

    teacher = Teacher()
    clf = escalating(tiny_encoder, teacher, max_share=1, reject_threshold=0.1)
    always(clf)
    teacher.heard.clear()
    stream, text = DialogueStream(clf.student_, escalate=clf), "zzz qqq xxx vvv www jjj"
    unlike = stream.push(text)
    assert clf.predict([text])[0] is None
    assert (unlike.label, unlike.better) == (None, None)
    assert not teacher.heard
    assert stream.push("thanks").better.result(PATIENCE).source == "teacher"
    stream.push("my late parcel zq")
    assert all(
        store.find(digests_of(["my late parcel zq"]))[1] == [-1] for store in _STORES.values()
    )


def test_a_decision_that_fails_does_not_break_the_stream(asking_all, monkeypatch):
    def fail(*args):
        raise ArithmeticError("no")

    monkeypatch.setattr(LiveAnswers, "decide", fail)
    stream = DialogueStream(asking_all.student_, escalate=asking_all)
    prediction = stream.push("thanks")
    assert prediction.label in LABELS
    assert prediction.failure == "escalate failed: ArithmeticError: no"


def test_what_is_refused(asking_all, tiny_encoder):
    with pytest.raises(TypeError, match="must be a fitted EscalatingClassifier, got str"):
        DialogueStream(asking_all.student_, escalate="teacher")
    with pytest.raises(ValueError, match="not fitted yet"):
        DialogueStream(asking_all.student_, escalate=EscalatingClassifier(asking_all.student_))
    other = student(tiny_encoder, max_epochs=1).fit(chats(), np.resize(["yes", "no"], 72))
    with pytest.raises(ValueError, match="pass its student_ as the model"):
        DialogueStream(other, escalate=asking_all)


def test_without_escalate_nothing_changes(asking_all):
    stream = DialogueStream(asking_all.student_)
    prediction = stream.push("thanks")
    assert (prediction.source, prediction.better, prediction.failure) == ("student", None, None)
    assert not hasattr(stream, "_turns")

"""Live dialogues are labelled as predict labels them, one by one, together, and under load."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gated_model import GatedModel, until
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_dialpref import (
    DialoguePreferenceClassifier,
    DialogueStream,
    MicroBatcher,
    OnnxDialogueClassifier,
    with_context,
)
from sklearn_dialpref.datasets import make_dialogues

STORED = Path(__file__).parent / "stored" / "format_1_onnx_int8"


@pytest.fixture(scope="module")
def chats():
    return make_dialogues(n_dialogues=12, n_turns=(3, 8), human_fraction=0.6, random_state=0)


@pytest.fixture(scope="module", params=[0, 1, 3])
def classifier(request, tiny_encoder, chats):
    clf = DialoguePreferenceClassifier(
        tiny_encoder, context_turns=request.param, max_epochs=1, random_state=0
    )
    return clf.fit(chats.X, chats.y_human, chats.y_llm)


@pytest.fixture(scope="module")
def served():
    """A stored folder, as an export takes seconds."""
    return OnnxDialogueClassifier.load(STORED, threads=1)


def dialogues(X):
    return [rows for _, rows in X.groupby("dialogue_id", sort=False)]


def test_answers_are_those_of_predict(classifier, chats):
    proba, labels = classifier.predict_proba(chats.X), classifier.predict(chats.X)
    for rows in dialogues(chats.X):
        stream = DialogueStream(classifier)
        found = [stream.push(text) for text in rows["text"]]
        np.testing.assert_allclose(
            [one.scores for one in found], proba[rows.index], rtol=0, atol=1e-5
        )
        assert [one.label for one in found] == labels[rows.index].tolist()
        assert all(one.latency_ms > 0 for one in found)


def test_a_stream_that_is_reset_has_a_new_dialogue(classifier, chats):
    stream = DialogueStream(classifier)
    for rows in dialogues(chats.X)[:3]:
        found = [stream.push(text).scores for text in rows["text"]]
        expected = classifier.predict_proba(rows)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        assert stream.reset() is None


def test_answers_under_way_belong_to_the_old_dialogue():
    model = GatedModel(closed=True)
    with MicroBatcher(model) as batcher, ThreadPoolExecutor(4) as pool:
        stream = DialogueStream(batcher)
        pushed = []
        for n_waiting, text in enumerate(["x", "xxx", "xx"]):
            if n_waiting == 2:
                stream.reset()
            pushed.append(pool.submit(stream.push, text))
            until(lambda n=n_waiting: len(model.texts) + batcher.n_waiting > n)
        model.open()
        scores = [one.result().scores for one in pushed]
    # logits are the lengths of the text and of the one before
    assert [np.log(s[0] / s[1]) for s in scores] == pytest.approx([1, 2, 2])


def test_an_encoder_of_fewer_layers(tiny_encoder, chats):
    clf = DialoguePreferenceClassifier(
        tiny_encoder, encoder_layers=1, context_turns=1, max_epochs=1, random_state=0
    )
    proba = clf.fit(chats.X, chats.y_human, chats.y_llm).predict_proba(chats.X)
    for rows in dialogues(chats.X)[:3]:
        stream = DialogueStream(clf)
        found = [stream.push(text).scores for text in rows["text"]]
        np.testing.assert_allclose(found, proba[rows.index], rtol=0, atol=1e-5)


def test_many_dialogues_at_once(served, chats):
    proba = served.predict_proba(chats.X)

    def talk(rows):
        stream = DialogueStream(batcher)
        return [stream.push(text).scores for text in rows["text"]]

    batcher = MicroBatcher(served, max_batch=8, max_pending=4)
    with batcher, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(talk, dialogues(chats.X)))
    for rows, scores in zip(dialogues(chats.X), answers, strict=True):
        np.testing.assert_allclose(scores, proba[rows.index], rtol=0, atol=1e-5)


@pytest.mark.parametrize("together", [True, False])
def test_coroutines(served, chats, together):
    proba = served.predict_proba(chats.X)

    async def talk(model, rows):
        stream = DialogueStream(model)
        return [(await stream.apush(text)).scores for text in rows["text"]]

    async def all_of_them(model):
        return await asyncio.gather(*(talk(model, rows) for rows in dialogues(chats.X)))

    if together:
        with MicroBatcher(served, max_pending=3) as model:
            answers = asyncio.run(all_of_them(model))
    else:
        answers = asyncio.run(all_of_them(served))
    for rows, scores in zip(dialogues(chats.X), answers, strict=True):
        np.testing.assert_allclose(scores, proba[rows.index], rtol=0, atol=1e-5)


def test_those_that_wait_are_answered_together():
    model = GatedModel(closed=True)
    with MicroBatcher(model, max_batch=5) as batcher, ThreadPoolExecutor(21) as pool:
        pushed = [pool.submit(DialogueStream(batcher).push, "first")]
        until(lambda: model.sizes)
        pushed += [pool.submit(DialogueStream(batcher).push, "hello") for _ in range(20)]
        until(lambda: batcher.n_waiting == 20)
        model.open()
        assert [one.result().label for one in pushed] == ["a"] * 21
    assert model.sizes == [1, 5, 5, 5, 5]


def test_order_within_a_dialogue():
    model = GatedModel()
    with MicroBatcher(model) as batcher:
        stream = DialogueStream(batcher)
        for at in range(1, 50):
            scores = stream.push("x" * at).scores
            # logits are the lengths of the text and of the one before
            assert np.log(scores[0] / scores[1]) == pytest.approx(1)


def test_no_more_than_so_many_wait():
    model = GatedModel(closed=True)
    with (
        MicroBatcher(model, max_batch=1, max_pending=2) as batcher,
        ThreadPoolExecutor(8) as pool,
    ):
        pushed = [pool.submit(DialogueStream(batcher).push, "hi") for _ in range(8)]
        until(lambda: model.sizes and batcher.n_waiting == 2 and len(batcher._before) == 5)
        with pytest.raises(TimeoutError, match="no room"):
            DialogueStream(batcher).push("hi", timeout=0.01)
        assert batcher.n_waiting == 2
        model.open()
        assert [one.result().label for one in pushed] == ["a"] * 8


@pytest.mark.parametrize("by_coroutines", [False, True])
def test_those_without_room_come_in_their_order(by_coroutines):
    model = GatedModel(closed=True)
    texts = ["x" * at for at in range(1, 9)]

    def asked():
        return len(model.texts) + batcher.n_waiting + len(batcher._before)

    async def some():
        tasks = [asyncio.create_task(DialogueStream(batcher).apush(text)) for text in texts]
        while len(batcher._before) < 6:
            await asyncio.sleep(0)
        tasks[4].cancel()
        await asyncio.sleep(0)
        model.open()
        return await asyncio.gather(*tasks, return_exceptions=True)

    with (
        MicroBatcher(model, max_batch=1, max_pending=1) as batcher,
        ThreadPoolExecutor(8) as pool,
    ):
        if by_coroutines:
            found = asyncio.run(some())
            assert isinstance(found.pop(4), asyncio.CancelledError)
            texts.pop(4)
        else:
            pushed = []
            for text in texts:
                pushed.append(pool.submit(DialogueStream(batcher).push, text))
                until(lambda: asked() == len(pushed))
            model.open()
            found = [one.result() for one in pushed]
        assert [one.label for one in found] == ["a"] * len(texts)
    assert model.texts == texts


def test_closing_while_the_model_hangs():
    model = GatedModel(closed=True)
    batcher = MicroBatcher(model)
    with ThreadPoolExecutor(1) as pool:
        pushed = pool.submit(DialogueStream(batcher).push, "hi")
        until(lambda: model.sizes)
        batcher.close(timeout=0.01)
        assert batcher._thread.is_alive()
        with pytest.raises(RuntimeError, match="MicroBatcher is closed"):
            DialogueStream(batcher).push("hi")
        model.open()
        assert pushed.result().label == "a"
    batcher.close()
    assert not batcher._thread.is_alive()


def test_an_error_goes_to_those_who_asked():
    with MicroBatcher(GatedModel()) as batcher:
        with pytest.raises(ArithmeticError, match="failed"):
            DialogueStream(batcher).push("fail")
        assert DialogueStream(batcher).push("works").label == "a"


class Panic(BaseException):
    """As a library in Rust raises it."""


def test_a_panic_fails_alone_and_as_an_error(monkeypatch):
    model = GatedModel()
    with MicroBatcher(model) as batcher:
        stream = DialogueStream(batcher)
        with monkeypatch.context() as patch:
            patch.setattr(model, "_logits_from_texts", raise_panic)
            with pytest.raises(RuntimeError, match=r"the model failed: Panic\('at 5'\)"):
                stream.push("hi", timeout=30)
        assert stream.push("hi", timeout=30).label == "a"


def raise_panic(*args, **options):
    raise Panic("at 5")


def test_a_bad_text_fails_alone():
    model = GatedModel(closed=True)
    with MicroBatcher(model) as batcher, ThreadPoolExecutor(6) as pool:
        first = pool.submit(DialogueStream(batcher).push, "first")
        until(lambda: model.sizes)
        texts = ["good", "fail", "fine", "failing", "well"]
        pushed = [pool.submit(DialogueStream(batcher).push, text) for text in texts]
        until(lambda: batcher.n_waiting == 5)
        model.open()
        assert first.result().label == "a"
        failed = [one.exception() is not None for one in pushed]
    assert failed == [False, True, False, True, False]
    assert model.sizes == [1, 5, 1, 1, 1, 1, 1]


def test_what_nobody_waits_for_is_not_computed():
    model = GatedModel(closed=True)
    with MicroBatcher(model, max_batch=1) as batcher, ThreadPoolExecutor(1) as pool:
        first = pool.submit(DialogueStream(batcher).push, "first")
        until(lambda: model.sizes)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                DialogueStream(batcher).push("hi", timeout=0.001)
        model.open()
        first.result()
    assert len(model.sizes) == 1


def test_a_batcher_whose_thread_is_gone():
    batcher = MicroBatcher(GatedModel())
    batcher._thread = threading.Thread(target=int)  # gone at once, as after a fork
    batcher._thread.start()
    batcher._thread.join()
    with pytest.raises(RuntimeError, match="make it in the process that uses it"):
        DialogueStream(batcher).push("hi")
    batcher.close()


def test_texts_are_not_kept_by_the_encoder(classifier):
    from sklearn_dialpref._student.frozen import _STORES
    from sklearn_dialpref._student.store import digests_of

    text = "my card number is abcdef"
    DialogueStream(classifier).push(text)
    assert all(store.find(digests_of([text]))[1] == [-1] for store in _STORES.values())


def test_a_timeout_loses_nothing_of_the_dialogue():
    model = GatedModel(closed=True)
    with MicroBatcher(model) as batcher:
        stream = DialogueStream(batcher)
        with pytest.raises(TimeoutError):
            stream.push("four", timeout=0.01)
        model.open()
        scores = stream.push("seventh").scores
        assert np.log(scores[0] / scores[1]) == pytest.approx(3)


def test_a_cancelled_coroutine_takes_nobody_with_it():
    model = GatedModel(closed=True)

    async def some():
        stream, other = DialogueStream(batcher), DialogueStream(batcher)
        first = asyncio.create_task(stream.apush("hi"))
        while not model.sizes:
            await asyncio.sleep(0)
        tasks = [asyncio.create_task(stream.apush("hi")) for _ in range(5)]
        while batcher.n_waiting < 5:
            await asyncio.sleep(0)
        for task in [first, *tasks]:
            task.cancel()
        await asyncio.gather(first, *tasks, return_exceptions=True)
        model.open()
        return await other.apush("hello")

    with MicroBatcher(model, max_batch=2) as batcher:
        assert asyncio.run(some()).label == "a"
        assert batcher._thread.is_alive()
    assert model.sizes == [1, 1]


def test_closing():
    model = GatedModel(closed=True)
    batcher = MicroBatcher(model, max_batch=1)
    with ThreadPoolExecutor(4) as pool:
        pushed = [pool.submit(DialogueStream(batcher).push, "hi") for _ in range(4)]
        until(lambda: batcher.n_waiting == 3)
        model.open()
        batcher.close()
        answers = [one.exception() or one.result().label for one in pushed]
    assert answers == ["a"] * 4
    batcher.close()
    with pytest.raises(RuntimeError, match="MicroBatcher is closed"):
        DialogueStream(batcher).push("hi")
    with pytest.raises(RuntimeError, match="MicroBatcher is closed"):
        asyncio.run(DialogueStream(batcher).apush("hi"))
    assert not batcher._thread.is_alive()


def test_pushes_that_race_with_the_end_are_answered_or_refused():
    for _ in range(20):
        batcher = MicroBatcher(GatedModel(), max_batch=2, max_pending=1)

        def push(batcher=batcher):
            try:
                return DialogueStream(batcher).push("hi", timeout=10).label
            except RuntimeError:
                return "refused"

        with ThreadPoolExecutor(8) as pool:
            pushed = [pool.submit(push) for _ in range(8)]
            batcher.close()
            assert {one.result(timeout=10) for one in pushed} <= {"a", "refused"}


def test_speakers_and_labels(tiny_encoder, chats):
    X = chats.X.assign(speaker=np.resize(["agent", "customer"], len(chats.X)))
    y = pd.DataFrame({"offer": chats.y_true == chats.y_true[0], "ask": X["speaker"] == "customer"})
    clf = DialoguePreferenceClassifier(
        tiny_encoder, classes={"agent": ["offer"]}, max_epochs=1, random_state=0
    )
    clf.fit(X, y.astype(float))
    proba, labels = clf.predict_proba(X), clf.predict(X)
    stream = DialogueStream(clf)
    for row in range(8):
        found = stream.push(X["text"][row], X["speaker"][row])
        np.testing.assert_allclose(found.scores, proba[row], atol=1e-6)
        assert found.label == tuple(np.array(["offer", "ask"])[labels[row] == 1])


ANY_TEXT = st.text(st.characters(), max_size=40)  # halves of surrogate pairs, too
SPEAKERS = st.one_of(
    st.none(), st.text(), st.integers(), st.floats(), st.booleans(), st.lists(st.integers())
)
IDS = st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.booleans())
UTTERANCES = st.lists(st.tuples(ANY_TEXT, SPEAKERS), min_size=1, max_size=6)


def is_bad(text):
    return not text.strip() or any("\ud800" <= character <= "\udfff" for character in text)


def check_stream(served, utterances):
    """Each push answers as predict_proba does for what was taken, or says what is wrong."""
    stream, taken = DialogueStream(served), []
    for text, speaker in utterances:
        if is_bad(text) or isinstance(speaker, list):
            with pytest.raises((TypeError, ValueError), match=r"must be|lone surrogate"):
                stream.push(text, speaker)
        else:
            scores = stream.push(text, speaker).scores
            taken.append(["a", text])
            expected = served.predict_proba(taken)[-1]
            np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)


def check_rows(served, rows):
    """Probabilities of rows with their dialogues, or an error that names a row."""
    rows = [list(row) for row in rows]
    if any(is_bad(text) for _, text in rows):
        with pytest.raises(ValueError, match="row"):
            served.predict_proba(rows)
        return
    proba = served.predict_proba(rows)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    alone = served.predict_proba(rows[:1])
    np.testing.assert_allclose(proba[:1], alone, rtol=0, atol=1e-6)


LONGER = settings(max_examples=3000, deadline=None)
SHORT = settings(max_examples=80, deadline=None)


@SHORT
@given(UTTERANCES)
def test_any_unicode_and_speaker_in_a_stream(served, utterances):
    check_stream(served, utterances)


@SHORT
@given(st.lists(st.tuples(IDS, ANY_TEXT), min_size=1, max_size=6))
def test_any_unicode_and_dialogue_id_in_a_graph(served, rows):
    check_rows(served, rows)


@pytest.mark.fuzz
@LONGER
@given(UTTERANCES)
def test_any_unicode_and_speaker_in_a_stream_longer(served, utterances):
    check_stream(served, utterances)


@pytest.mark.fuzz
@LONGER
@given(st.lists(st.tuples(IDS, ANY_TEXT), min_size=1, max_size=6))
def test_any_unicode_and_dialogue_id_in_a_graph_longer(served, rows):
    check_rows(served, rows)


def test_nothing_is_kept_but_the_context():
    stream = DialogueStream(GatedModel())
    for at in range(1000):
        stream.push(f"utterance {at}")
    assert list(stream._past) == ["utterance 999"]


def test_what_is_refused(classifier, tiny_encoder, chats):
    stream = DialogueStream(classifier)
    for text in ("", "  ", None, 3, b"hi"):
        with pytest.raises(ValueError, match="must be a str that is not empty"):
            stream.push(text)
    with pytest.raises(ValueError, match="the utterance has a lone surrogate"):
        stream.push("half \ud83d")
    with pytest.raises(ValueError, match="timeout must be seconds"):
        stream.push("hi", timeout=-1)
    assert not stream._past
    with pytest.raises(TypeError, match="must be an OnnxDialogueClassifier"):
        DialogueStream("model")
    with pytest.raises(ValueError, match="is not fitted yet"):
        MicroBatcher(DialoguePreferenceClassifier())
    ready = DialoguePreferenceClassifier("precomputed", max_epochs=1)
    with pytest.raises(ValueError, match="fitted on precomputed features"):
        DialogueStream(ready.fit([[0.0], [1.0]] * 4, [0, 1] * 4))
    context = DialoguePreferenceClassifier(tiny_encoder, max_epochs=1, random_state=0)
    with pytest.raises(ValueError, match="fitted with a column 'context'"):
        DialogueStream(context.fit(with_context(chats.X), chats.y_human))
    for options in ({"max_batch": 0}, {"max_pending": 1.5}):
        with pytest.raises(ValueError, match="must be a positive int"):
            MicroBatcher(classifier, **options)

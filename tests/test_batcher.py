"""A batcher goes on with another model under load, and its streams take turns."""

import asyncio
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gated_model import GatedModel, until

from sklearn_dialpref import (
    DialoguePreferenceClassifier,
    DialogueStream,
    MicroBatcher,
    with_context,
)
from sklearn_dialpref._labels.fitted import FittedLabels
from sklearn_dialpref.datasets import make_dialogues
from sklearn_dialpref.serving.round_robin import RoundRobin

# -- another model ------------------------------------------------------------------------------


class Recorder(GatedModel):
    """Of any classes and context; ``rows`` are what it was asked, its logits are of the text."""

    def __init__(self, classes="ab", context_turns=1, closed=False, by_speaker=None):
        super().__init__(closed)
        self.rows, self.context_turns = [], context_turns
        n_texts = 2 if context_turns else 1
        self.fitted_labels_ = FittedLabels(
            np.array(list(classes)), False, None, by_speaker or {}, n_texts
        )

    def fail(self):
        """Called when a text fails."""

    def _logits_from_texts(self, texts, index, keep=True):
        if "fail" in texts:
            self.fail()
        super()._logits_from_texts(texts, index, keep)
        rows = [tuple(texts[at] if at >= 0 else "" for at in row) for row in index]
        self.rows += rows
        return np.array([self.logits(row[0]) for row in rows])

    def logits(self, text):
        return len(text) * np.arange(1.0, len(self.classes_) + 1) % 7

    def says(self, found, text):
        """Whether an answer is all its own."""
        scores = self.fitted_labels_.probabilities(self.logits(text)[np.newaxis])[0]
        return (
            found.classes.tolist() == self.classes_.tolist()
            and found.label == self.classes_[self.logits(text).argmax()]
            and np.allclose(found.scores, scores, rtol=0, atol=1e-12)
        )


def test_a_stream_goes_on_with_another_model():
    old, new = Recorder("ab"), Recorder("xyz")
    with MicroBatcher(old) as batcher:
        stream = DialogueStream(batcher)
        assert old.says(stream.push("one"), "one")
        batcher.reload(new)
        assert batcher.model is new
        assert new.says(stream.push("three"), "three")
        assert new.says(asyncio.run(stream.apush("seven")), "seven")
    assert old.rows == [("one", "")]
    assert new.rows == [("three", "one"), ("seven", "three")]


def test_answers_at_work_are_of_the_model_that_took_them():
    old, new = Recorder("ab", closed=True), Recorder("xyz")
    with MicroBatcher(old, max_batch=1, max_pending=1) as batcher, ThreadPoolExecutor(3) as pool:
        first = pool.submit(DialogueStream(batcher).push, "one")
        until(lambda: old.sizes)
        later = [pool.submit(DialogueStream(batcher).push, text) for text in ("two", "three")]
        until(lambda: batcher.n_waiting == len(batcher._before) == 1)
        batcher.reload(new)
        old.open()
        assert old.says(first.result(), "one")
        assert new.says(later[0].result(), "two")
        assert new.says(later[1].result(), "three")
    assert [text for text, _ in old.rows] == ["one"]


def test_a_batch_that_fails_is_tried_again_by_its_own_model(monkeypatch):
    old, new = Recorder("ab", closed=True), Recorder("xyz")
    with MicroBatcher(old) as batcher, ThreadPoolExecutor(4) as pool:
        first = pool.submit(DialogueStream(batcher).push, "first")
        until(lambda: old.sizes)
        monkeypatch.setattr(old, "fail", lambda: batcher.reload(new))
        texts = ["fail", "good", "well"]
        pushed = [pool.submit(DialogueStream(batcher).push, text) for text in texts]
        until(lambda: batcher.n_waiting == 3)
        old.open()
        assert old.says(first.result(), "first")
        assert isinstance(pushed[0].exception(), ArithmeticError)
        assert old.says(pushed[1].result(), "good")
        assert old.says(pushed[2].result(), "well")
    assert batcher.model is new
    assert not new.rows


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (0, 2), (2, 0)])
def test_another_length_of_context(before, after):
    old, new = Recorder(context_turns=before), Recorder(context_turns=after)
    with MicroBatcher(old) as batcher:
        stream = DialogueStream(batcher)
        texts = [f"turn {at}" for at in range(8)]
        for text in texts[:4]:
            stream.push(text)
        batcher.reload(new)
        for text in texts[4:]:
            stream.push(text)
    kept = texts[4 - before : 4]  # what the stream had of the past when it came
    for at, row in enumerate(new.rows, start=4):
        past = (kept + texts[4:at])[-after:] if after else []
        assert row == ((texts[at], "\n".join(past)) if after else (texts[at],))
    assert list(stream._past) == (texts[-after:] if after else [])


def test_those_that_wait_get_the_context_of_the_model_that_comes():
    old, new = Recorder(context_turns=2, closed=True), Recorder(context_turns=1)
    with MicroBatcher(old, max_batch=1) as batcher, ThreadPoolExecutor(3) as pool:
        stream, pushed = DialogueStream(batcher), []
        for n_waiting, text in enumerate(("one", "two", "three")):
            pushed.append(pool.submit(stream.push, text))
            until(lambda n=n_waiting: old.sizes and batcher.n_waiting == n)
        batcher.reload(new)
        old.open()
        assert [one.result().label for one in pushed]
    assert old.rows == [("one", "")]
    assert new.rows == [("two", "one"), ("three", "two")]


def test_classes_of_speakers_are_those_of_the_model_that_answers():
    old = Recorder("ab", by_speaker={"agent": np.array([True, False])}, closed=True)
    new = Recorder("xyz", by_speaker={"agent": np.array([False, False, True])})
    with MicroBatcher(old, max_batch=1) as batcher, ThreadPoolExecutor(2) as pool:
        pushed = [pool.submit(DialogueStream(batcher).push, "hi", "agent") for _ in range(2)]
        until(lambda: old.sizes and batcher.n_waiting == 1)
        batcher.reload(new)
        old.open()
        assert sorted(one.result().label for one in pushed) == ["a", "z"]


def test_a_model_that_cannot_be_streamed_does_not_replace_one(tiny_encoder):
    model, chats = Recorder(), make_dialogues(n_dialogues=12, random_state=0)
    by_column = DialoguePreferenceClassifier(tiny_encoder, max_epochs=1, random_state=0)
    by_column.fit(with_context(chats.X), chats.y_human)
    features = DialoguePreferenceClassifier("precomputed", max_epochs=1)
    features.fit([[0.0], [1.0]] * 4, [0, 1] * 4)
    with MicroBatcher(model) as batcher:
        for other, message in (
            (by_column, "fitted with a column 'context'"),
            (features, "fitted on precomputed features"),
            (DialoguePreferenceClassifier(), "is not fitted yet"),
        ):
            with pytest.raises(ValueError, match=message):
                batcher.reload(other)
        with pytest.raises(TypeError, match="must be an OnnxDialogueClassifier"):
            batcher.reload("folder")
        assert model.says(DialogueStream(batcher).push("hi"), "hi")
    with pytest.raises(RuntimeError, match="MicroBatcher is closed"):
        batcher.reload(Recorder())
    assert batcher.model is model


def batches_of(models):
    return sum(len(model.sizes) for model in models)


def finished(futures):
    return all(one.done() for one in futures)


def test_answers_stay_whole_while_models_are_swapped_under_load():
    models = [Recorder("ab", context_turns=1), Recorder("xyz", context_turns=3)]
    dialogues = [[f"{'x' * (turn % 5)} {name} {turn}" for turn in range(100)] for name in range(6)]

    def talk(texts):
        stream = DialogueStream(batcher)
        return [stream.push(text, timeout=30) for text in texts]

    async def chat(texts):
        stream = DialogueStream(batcher)
        return await asyncio.gather(*(stream.apush(text) for text in texts))

    with (
        MicroBatcher(models[0], max_batch=4, max_pending=5) as batcher,
        ThreadPoolExecutor(len(dialogues) + 1) as pool,
    ):
        talks = [pool.submit(talk, texts) for texts in dialogues[:4]]
        talks += [pool.submit(lambda own: asyncio.run(chat(own)), own) for own in dialogues[4:]]
        for swap in range(1, 101):
            n_batches = batches_of(models)
            batcher.reload(models[swap % 2])
            until(lambda n=n_batches: finished(talks) or batches_of(models) > n)
        answers = [one.result() for one in talks]
    for texts, found in zip(dialogues, answers, strict=True):
        for text, one in zip(texts, found, strict=True):
            assert sum(model.says(one, text) for model in models) == 1
    asked = [text for model in models for text, *_ in model.rows]
    assert sorted(asked) == sorted(text for texts in dialogues for text in texts)  # once each
    assert all(model.rows for model in models)


def test_what_was_served_before_is_not_kept():
    model = Recorder()
    with MicroBatcher(model) as batcher:
        stream = DialogueStream(batcher)
        stream.push("hi")
        gone = weakref.ref(model), weakref.ref(stream)
        del stream
        batcher.reload(Recorder("xyz"))
        del model
        until(lambda: gone[0]() is gone[1]() is None)


# -- fair turns -----------------------------------------------------------------------------------


def batches_until_live(n_live, **options):
    """In which batches other dialogues are answered, after one that sent 200 at once."""
    model = Recorder(closed=True)

    async def some():
        flood = DialogueStream(batcher)
        tasks = [asyncio.create_task(flood.apush("flood 0"))]
        while not model.sizes:
            await asyncio.sleep(0)
        tasks += [asyncio.create_task(flood.apush(f"flood {at}")) for at in range(1, 200)]
        await asyncio.sleep(0)
        tasks += [
            asyncio.create_task(DialogueStream(batcher).apush("live")) for _ in range(n_live)
        ]
        await asyncio.sleep(0)
        model.open()
        await asyncio.gather(*tasks)

    with MicroBatcher(model, **options) as batcher:
        asyncio.run(some())
    texts = np.array([text for text, _ in model.rows])
    in_order = [text for text in texts if text.startswith("flood")]
    assert in_order == [f"flood {at}" for at in range(200)]
    return np.repeat(np.arange(len(model.sizes)), model.sizes)[texts == "live"].tolist()


@pytest.mark.parametrize("max_pending", [1, 3, 32, 1000])
@pytest.mark.parametrize("max_batch", [1, 8, 32])
def test_a_flooding_dialogue_does_not_hold_up_another(max_batch, max_pending):
    (batch,) = batches_until_live(1, max_batch=max_batch, max_pending=max_pending)
    # after one at work, two that get room before it, and one in its turn
    assert batch <= (4 if 1 in (max_batch, max_pending) else 2)


def test_many_dialogues_take_turns_with_one_that_floods():
    assert batches_until_live(10, max_batch=4) == [1] * 3 + [2] * 4 + [3] * 3
    assert max(batches_until_live(10, max_batch=1, max_pending=2)) <= 15


def test_a_dialogue_that_comes_again_waits_for_its_turn():
    queue = RoundRobin()
    for sender, item in ((1, "a"), (1, "b"), (2, "c"), (3, "d"), (3, "e")):
        queue.append(sender, item)
    assert queue.popleft() == "a"
    queue.append(1, "f")
    assert len(queue) == 5
    assert [queue.popleft() for _ in range(5)] == ["c", "d", "b", "e", "f"]
    with pytest.raises(IndexError, match="empty"):
        queue.popleft()

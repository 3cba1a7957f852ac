"""Tables that are predicted one after the other."""

import numpy as np
import pytest
from students import student

from sklearn_dialpref import OnnxDialogueClassifier, export_onnx
from sklearn_dialpref._student.frozen import _STORES
from sklearn_dialpref._student.store import digests_of


@pytest.fixture(scope="module")
def served(classifier, chats, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "onnx"
    export_onnx(classifier, path, X_check=chats.X)
    return OnnxDialogueClassifier.load(path)


def by_dialogue(X, n=3):
    names = X["dialogue_id"].unique()
    return [
        X[X["dialogue_id"].isin(names[start : start + n])] for start in range(0, len(names), n)
    ]


@pytest.mark.parametrize("which", ["classifier", "served"])
@pytest.mark.parametrize("output", ["label", "proba"])
def test_batches_of_whole_dialogues(request, chats, which, output):
    model = request.getfixturevalue(which)
    X = chats.X.sort_values("dialogue_id", kind="stable")
    expected = model.predict(X) if output == "label" else model.predict_proba(X)
    found = list(model.predict_batches(iter(by_dialogue(X)), output=output))
    assert len(found) == 4
    found = np.concatenate(found)
    if output == "label":
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("which", ["classifier", "served"])
def test_a_dialogue_that_goes_on_in_the_next_batch(request, chats, which):
    model = request.getfixturevalue(which)
    X = chats.X.sort_values("dialogue_id", kind="stable")
    with pytest.raises(ValueError, match=r"is in batch 0 and in batch 1, .*into one batch"):
        list(model.predict_batches([X[:2], X[2:]]))


def test_without_context_a_dialogue_may_go_on(tiny_encoder, chats):
    clf = student(tiny_encoder, trainable_layers=0).fit(chats.X, chats.y_human, chats.y_llm)
    found = np.concatenate(list(clf.predict_batches([chats.X[:2], chats.X[2:]])))
    np.testing.assert_array_equal(found, clf.predict(chats.X))


def test_another_output_is_refused_at_once(classifier):
    with pytest.raises(ValueError, match="output must be one of"):
        classifier.predict_batches([], output="logits")


def test_nothing_is_kept(classifier):
    text = "hello late parcel that nobody keeps"
    list(classifier.predict_batches([[text]]))
    assert all(store.find(digests_of([text]))[1] == [-1] for store in _STORES.values())


def test_batches_are_asked_for_one_by_one(classifier):
    taken = []

    def batches():
        for number in range(3):
            taken.append(number)
            yield [f"hello {number}"]

    predicted = classifier.predict_batches(batches())
    next(predicted)
    assert taken == [0]


def test_batches_without_dialogues_and_of_features():
    X, y = np.arange(12.0).reshape(6, 2), ["a", "b"] * 3
    clf = student("precomputed").fit(X, y)
    found = np.concatenate(list(clf.predict_batches([X[:4], X[4:]], output="proba")))
    np.testing.assert_allclose(found, clf.predict_proba(X), atol=1e-12)

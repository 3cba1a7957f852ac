"""The embeddings of utterances that other parts measure distances by."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from students import student

from sklearn_dialpref import DialoguePreferenceClassifier


@pytest.mark.parametrize("trainable_layers", [0, 1])
def test_the_same_utterance_has_the_same_embedding(tiny_encoder, chats, trainable_layers):
    clf = DialoguePreferenceClassifier(
        str(tiny_encoder), trainable_layers=trainable_layers, max_epochs=1, random_state=0
    )
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    whole = clf.embed(chats.X)
    assert whole.dtype == np.float32
    assert whole.shape == (len(chats.X), 32)
    shuffled = np.random.default_rng(0).permutation(len(chats.X))[:20]
    np.testing.assert_allclose(clf.embed(chats.X.iloc[shuffled]), whole[shuffled], atol=1e-6)


def test_context_does_not_change_it(tiny_encoder, chats):
    clf = DialoguePreferenceClassifier(
        str(tiny_encoder), context_turns=1, max_epochs=1, random_state=0
    ).fit(chats.X, chats.y_human, chats.y_llm)
    alone = clf.embed(chats.X["text"].tolist())
    np.testing.assert_allclose(clf.embed(chats.X), alone, atol=1e-6)


def test_precomputed_features_are_their_own_embedding():
    X = np.random.default_rng(0).normal(size=(40, 3))
    clf = student(max_epochs=1).fit(X, np.arange(40) % 2)
    embedded = clf.embed(X)
    np.testing.assert_allclose(embedded, X, rtol=1e-6)
    assert not np.shares_memory(embedded, X)


def test_it_needs_a_fit():
    with pytest.raises(NotFittedError):
        student().embed(["a"])

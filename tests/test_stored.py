"""Folders that were saved before stay readable, and training gives what it gave."""

import json
from pathlib import Path

import numpy as np
import pytest

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref.datasets import make_dialogues

STORED = Path(__file__).parent / "stored"
CASES = ["classes", "labels"]


@pytest.fixture(scope="module")
def chats():
    """As in ``stored/make.py``."""
    return make_dialogues(30, n_features=4, human_fraction=0.4, random_state=0)


def golden(case):
    return np.array(json.loads((STORED / f"format_1_{case}.json").read_text()))


@pytest.mark.parametrize("case", CASES)
def test_a_stored_folder_predicts_as_it_did(chats, case):
    clf = DialoguePreferenceClassifier.load(STORED / f"format_1_{case}")
    probabilities = clf.predict_proba(chats.X.iloc[:20])
    np.testing.assert_allclose(probabilities, golden(case), atol=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_fit_gives_what_it_gave(chats, case):
    labels = (chats.y_human, chats.y_llm)
    if case == "labels":
        labels = (np.eye(3)[np.unique(chats.y_true, return_inverse=True)[1]], None)
    clf = DialoguePreferenceClassifier("precomputed", random_state=0, max_epochs=3)
    probabilities = clf.fit(chats.X, *labels).predict_proba(chats.X.iloc[:20])
    # other processors and versions of torch round otherwise
    np.testing.assert_allclose(probabilities, golden(case), atol=1e-3)

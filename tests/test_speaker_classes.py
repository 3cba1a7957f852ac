"""Classes that only some speakers can have."""

from enum import Enum
from functools import partial

import numpy as np
import pandas as pd
import pytest
import students
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_dialpref import LabelledGroupKFold, with_context
from sklearn_dialpref._dialogues.validation import check_dialogues
from sklearn_dialpref._labels.speakers import mask_impossible_labels
from sklearn_dialpref._labels.targets import check_targets
from sklearn_dialpref._training.recipe import Recipe
from sklearn_dialpref._training.stages import LabelStats, Stage, StageLoss

OF_SPEAKERS = {"agent": ["offer", "other"], "customer": ["ask", "other"]}


@pytest.fixture(scope="module")
def chats():
    rng = np.random.default_rng(0)
    n = 400
    speaker = np.where(np.arange(n) % 2 == 0, "agent", "customer")
    special = rng.random(n) < 0.5
    y = np.where(special, np.where(speaker == "agent", "offer", "ask"), "other").astype(object)
    X = pd.DataFrame({"dialogue_id": np.arange(n) // 10, "speaker": speaker})
    # an offer looks like a question: only the speaker tells them apart
    X["special"], X["noise"] = special * 3.0 + rng.normal(size=n), rng.normal(size=n)
    y_llm = np.where(special, rng.choice(["offer", "ask"], n), "other").astype(object)
    return X, y, y_llm


student = partial(students.student, classes=OF_SPEAKERS)


@pytest.mark.parametrize("loss", ["soft_cross_entropy", "noise_reduced"])
@pytest.mark.parametrize("schedule", ["pretrain_finetune", "joint"])
def test_impossible_classes_are_neither_learned_nor_predicted(chats, schedule, loss):
    X, y, y_llm = chats
    y_human = np.where(np.arange(len(y)) < 100, y, None)
    clf = student(schedule=schedule, loss=loss).fit(X, y_human, y_llm)
    assert clf.classes_.tolist() == ["ask", "offer", "other"]
    proba = clf.predict_proba(X)
    agent = (X["speaker"] == "agent").to_numpy()
    assert (proba[agent, 0] == 0).all() and (proba[~agent, 1] == 0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    free = student(schedule=schedule, loss=loss, classes=None).fit(X, y_human, y_llm)
    assert clf.score(X, y) > free.score(X, y) + 0.1


def test_other_speakers_can_have_all(chats):
    X, y, _ = chats
    clf = student().fit(X, y)
    strangers = X.assign(speaker=[None, "manager"] * (len(X) // 2))
    assert (clf.predict_proba(strangers) > 0).all()


def test_multilabel(chats):
    X, y, y_llm = chats
    names = ["ask", "offer"]
    table, votes = (
        pd.DataFrame({name: (labels == name).astype(float) for name in names})
        for labels in (y, y_llm)
    )
    of_speakers = {"agent": ["offer"], "customer": ["ask"]}
    clf = student(classes=of_speakers).fit(X, table, votes)
    agent = (X["speaker"] == "agent").to_numpy()
    assert (clf.predict_proba(X)[agent, 0] == 0).all() and not clf.predict(X)[~agent, 1].any()
    table.loc[0, "ask"] = 1.0
    with pytest.raises(ValueError, match=r"row 0 the label 'ask', which its speaker 'agent'"):
        clf.fit(X, table)


def test_votes_for_nothing_possible_are_no_votes(chats):
    X, y, _ = chats
    nonsense = np.where(X["speaker"] == "agent", "ask", "offer").astype(object)
    y_human = np.where(np.arange(len(y)) < 40, y, None)
    with_votes, without = (student().fit(X, y_human, votes) for votes in (nonsense, None))
    np.testing.assert_array_equal(with_votes.predict_proba(X), without.predict_proba(X))


def test_scores_of_possible_classes_add_up_to_one_again():
    X = pd.DataFrame({"dialogue_id": [0, 0], "speaker": ["agent", "x"], "text": ["a", "b"]})
    scores = pd.DataFrame([[0.5, 0.4, 0.1]] * 2, columns=["ask", "offer", "other"])
    targets = check_targets(None, scores, 2)
    classes = {"agent": ["offer", "other"]}
    masked, _ = mask_impossible_labels(targets, classes, check_dialogues(X))
    np.testing.assert_allclose(masked.scores, [[0, 0.8, 0.2], [0.5, 0.4, 0.1]], rtol=1e-6)


def test_errors(chats):
    X, y, _ = chats
    with pytest.raises(ValueError, match=r"row 0 the label 'o.*', which its speaker 'agent'"):
        student(classes={"agent": ["ask"], "customer": ["ask", "offer", "other"]}).fit(X, y)
    with pytest.raises(ValueError, match="no speakers: pass a DataFrame with a column 'speaker'"):
        student().fit(X.drop(columns="speaker"), y)
    clf = student().fit(X, y)
    with pytest.raises(ValueError, match="no speakers: pass a DataFrame"):
        clf.predict(X.drop(columns="speaker"))
    with pytest.raises(ValueError, match=r"gives the speaker 'bot' no class"):
        student(classes={**OF_SPEAKERS, "bot": []}).fit(X, y)
    table = np.stack([y == "ask", y == "offer"], axis=1).astype(float)
    with pytest.raises(ValueError, match=r"gives the speaker 'agent' \['offer'.*are not labels"):
        student().fit(X, table)


def test_in_pipelines_and_searches(tiny_encoder):
    n = 48
    X = pd.DataFrame(
        {
            "dialogue_id": np.arange(n) // 4,
            "speaker": ["agent", "customer"] * (n // 2),
            "text": [f"word{row % 5}" for row in range(n)],
        }
    )
    y = np.array(["offer", "ask", "other", "other"] * (n // 4), dtype=object)
    clf = student(encoder=tiny_encoder, max_epochs=1)
    assert clone(clf).classes == OF_SPEAKERS
    pipeline = Pipeline([("context", FunctionTransformer(with_context)), ("clf", clf)])
    folds = LabelledGroupKFold(3)
    assert np.isfinite(cross_val_score(pipeline, X, y, cv=folds)).all()
    search = GridSearchCV(pipeline, {"clf__classes": [OF_SPEAKERS]}, cv=folds).fit(X, y)
    assert (search.predict_proba(X)[::2, 0] == 0).all()


@pytest.mark.parametrize("with_human", [True, False])
@pytest.mark.parametrize("loss", ["soft_cross_entropy", "noise_reduced"])
@pytest.mark.parametrize("schedule", ["pretrain_finetune", "joint", "distill_then_joint"])
def test_a_class_of_an_absent_speaker_is_no_nan(chats, schedule, loss, with_human):
    X, y, y_llm = chats
    y_human = np.where(np.arange(len(y)) < 60, y, None) if with_human else None
    of_speakers = {**OF_SPEAKERS, "supervisor": ["decide", "other"]}
    clf = student(schedule=schedule, loss=loss, classes=of_speakers, max_epochs=2)
    proba = clf.fit(X, y_human, y_llm).predict_proba(X)
    assert np.isfinite(proba).all() and (proba[:, 1] == 0).all()
    assert clf.predict_proba(X.assign(speaker="supervisor"))[:, 1].min() > 0


def test_a_class_that_only_the_llm_gives_to_one_speaker(chats):
    X, y, y_llm = (part[:200] for part in chats)
    X = X.assign(speaker=np.where(np.arange(200) < 190, X["speaker"], "supervisor"))
    y_llm = np.where(X["speaker"] == "supervisor", "decide", y_llm)
    y_human = np.where(np.arange(200) < 60, y, None)
    clf = student(classes={**OF_SPEAKERS, "supervisor": ["decide"]}).fit(X, y_human, y_llm)
    assert np.isfinite(clf.predict_proba(X)).all()


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_speakers(chats, missing):
    X, y, _ = chats
    X = X.assign(speaker=X["speaker"].astype(object).where(np.arange(len(X)) % 5 > 0, missing))
    clf = student(max_epochs=1).fit(X, y)
    assert (clf.predict_proba(X)[::5] > 0).all()


def test_the_order_of_rows_makes_no_difference():
    n = 80
    X = pd.DataFrame(
        {"dialogue_id": np.arange(n) // 8, "speaker": ["agent", "customer"] * (n // 2)}
    )
    X["a"] = (np.arange(n) // 2) % 3.0  # two rows of a dialogue differ by the speaker alone
    y = np.where(X["a"] > 1, "other", None)
    y_llm = np.where(X["a"] > 1, "other", np.where(X["a"] > 0, "offer", "ask")).astype(object)
    order = np.random.default_rng(0).permutation(n)
    results = [
        student(max_epochs=2).fit(X.iloc[rows], y[rows], y_llm[rows]).predict_proba(X)
        for rows in (np.arange(n), order)
    ]
    np.testing.assert_array_equal(*results)


def test_labels_in_a_column_of_their_own_are_no_multilabel(chats):
    X, y, _ = chats
    of_speakers = {**OF_SPEAKERS, "supervisor": ["never"]}
    clf = student(classes=of_speakers, max_epochs=1)
    with pytest.warns(UserWarning, match="column-vector"):
        assert "never" in clf.fit(X, y[:, None]).classes_


def test_more_errors(chats):
    X, y, _ = chats
    with pytest.raises(TypeError, match=r"the speaker 'agent' 'offer': pass a list of classes"):
        student(classes={"agent": "offer"}).fit(X, y)
    with pytest.raises(TypeError, match=r"'agent' \{'offer': 1\}: pass a list of classes"):
        student(classes={"agent": {"offer": 1}}).fit(X, y)
    with pytest.raises(ValueError, match="must name each class once"):
        student(classes={"agent": [["offer"], ["ask"]]}).fit(X, y)
    with pytest.raises(ValueError, match=r"mixes labels of the types \['float', 'str'\]"):
        student(classes={"agent": ["offer", 1]}).fit(X, y)
    with pytest.raises(ValueError, match="names a missing speaker, None; leave it out"):
        student(classes={None: ["offer"], "agent": ["ask"]}).fit(X, y)
    nonsense = np.where(X["speaker"] == "agent", "ask", "offer").astype(object)
    with pytest.raises(ValueError, match="no row has a label that its speaker can have"):
        student().fit(X, None, nonsense)


def test_speakers_that_never_speak(chats):
    X, y, _ = chats
    of_speakers = {"Agent": ["offer", "other"], "Customer": ["ask", "other"]}
    with pytest.warns(UserWarning, match=r"none of the speakers .*\['Agent', 'Customer'\]"):
        student(classes=of_speakers, max_epochs=1).fit(X, y)


def test_classes_of_speakers_as_members_of_an_enum(chats):
    X, y, _ = chats
    acts = Enum("acts", {"ASK": "ask", "OFFER": "offer", "OTHER": "other"}, type=str)
    of_speakers = {"agent": [acts.OFFER, acts.OTHER], "customer": {acts.ASK, acts.OTHER}}
    enums, plain = (
        student(classes=classes, max_epochs=1).fit(X, y).predict_proba(X)
        for classes in (of_speakers, OF_SPEAKERS)
    )
    np.testing.assert_array_equal(enums, plain)


def test_pairs_say_nothing_of_impossible_classes():
    logits = torch.zeros(2, 2, requires_grad=True)
    target = {
        "scores": torch.tensor([[0.8, 0.2], [0.0, 1.0]]),
        "pairs": torch.tensor([[0], [1]]),
        "human": torch.empty(0, dtype=torch.int64),
        "possible": torch.tensor([[True, True], [False, True]]),
    }
    stats = LabelStats(False, None, torch.zeros(2) > 0, torch.zeros(2) > 0, None)
    recipe = Recipe.of(student(), 0, "cpu", n_inputs=2, n_classes=2, frozen=True, multilabel=False)
    loss = StageLoss(Stage("pretrain", "noise_reduced", False), recipe, stats)
    loss(logits, target).backward()
    assert (logits.grad[:, 0] == 0).all() and (logits.grad[:, 1] != 0).all()

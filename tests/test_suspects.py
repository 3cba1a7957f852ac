"""Suspect labels: planted slips and LLM errors come first, with honest probabilities."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.utils import Bunch

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref.datasets import make_dialogues
from sklearn_dialpref.inspection.out_of_fold import out_of_fold_proba
from sklearn_dialpref.inspection.suspects import suspect_labels
from tests.students import student

CLASSES = np.array(["ask", "greet", "tell", "thank"])


def world(n=1200, slips=0.1, seed=0, human_share=1.0, sure=3.0):
    """Utterances, and labels by a person who slips, an LLM that is right in 7 of 10, a student."""
    rng = np.random.RandomState(seed)
    logits = sure * rng.randn(n, 4)
    proba = softmax(logits, axis=1)
    true = np.array([rng.choice(4, p=row) for row in proba])
    human, llm = true.copy(), true.copy()
    slipped = rng.rand(n) < slips
    human[slipped] = (true + rng.randint(1, 4, n))[slipped] % 4
    erred = rng.rand(n) < 0.3
    llm[erred] = (true + rng.randint(1, 4, n))[erred] % 4
    y_human = CLASSES[human].astype(object)
    y_human[rng.rand(n) >= human_share] = None
    X = pd.DataFrame(
        {"dialogue_id": np.arange(n) // 6, "turn": np.arange(n) % 6, "f": rng.randn(n)}
    )
    return Bunch(X=X, human=y_human, llm=CLASSES[llm], true=CLASSES[true], proba=proba)


def of(suspects, source):
    return suspects[suspects.source == source]


def gap(wrong, probability):
    """Expected calibration error over ten bins."""
    place = np.minimum((probability * 10).astype(int), 9)
    return np.abs(np.bincount(place, weights=probability - wrong)).sum() / len(wrong)


def test_slips_of_people_are_found_with_their_probability():
    data = world()
    suspects = of(suspect_labels(None, data.X, data.human, data.llm, proba=data.proba), "human")
    wrong = data.human[suspects.row] != data.true[suspects.row]
    assert len(suspects) == len(data.X) and sorted(suspects.row) == list(range(len(data.X)))
    assert (np.diff(suspects.probability_wrong) <= 0).all()
    precision = average_precision_score(wrong, suspects.probability_wrong)
    row = np.arange(len(data.X))
    student_alone = 1 - data.proba[row, np.searchsorted(CLASSES, data.human.astype(str))]
    assert precision > average_precision_score(data.human != data.true, student_alone) + 0.05
    assert gap(wrong, suspects.probability_wrong) < 0.05
    assert wrong[suspects.probability_wrong > 0.5].mean() > 0.6
    first = suspects[:50]
    assert (first.label != first.suggestion).all()
    assert_array_equal(first.label, data.human[first.row])
    assert (first.suggestion == data.true[first.row]).mean() > 0.7


def test_people_who_do_not_slip():
    data = world(slips=0)
    suspects = of(suspect_labels(None, data.X, data.human, data.llm, proba=data.proba), "human")
    assert suspects.probability_wrong.mean() < 0.04


def test_errors_of_the_llm_are_found_with_their_probability():
    data = world(n=2400, slips=0, human_share=0.2)
    suspects = suspect_labels(None, data.X, data.human, data.llm, proba=data.proba)
    llm = of(suspects, "llm")
    alone = llm[[data.human[row] is None for row in llm.row]]
    wrong = data.llm[alone.row] != data.true[alone.row]
    assert gap(wrong, alone.probability_wrong) < 0.05
    assert average_precision_score(wrong, alone.probability_wrong) > 0.85
    beside = llm[[data.human[row] is not None for row in llm.row]]
    other = data.llm[beside.row] != data.human[beside.row]
    assert average_precision_score(other, beside.probability_wrong) > 0.99
    assert len(of(suspects, "human")) == sum(label is not None for label in data.human)


def test_any_order_of_rows():
    data = world(n=300, human_share=0.7)
    data.proba = 0.1 + 0.6 * np.eye(4)[data.proba.argmax(axis=1)]  # many are equally suspect
    order = np.random.RandomState(1).permutation(300)
    one = suspect_labels(None, data.X, data.human, data.llm, proba=data.proba)
    other = suspect_labels(
        None, data.X.iloc[order], data.human[order], data.llm[order], proba=data.proba[order]
    )
    assert_array_equal(order[other.row], one.row)
    assert_array_equal(other.source, one.source)
    assert_array_equal(other.probability_wrong, one.probability_wrong)
    features = data.X[["f"]].to_numpy()
    one = suspect_labels(None, features, data.human, proba=data.proba)
    other = suspect_labels(None, features[order], data.human[order], proba=data.proba[order])
    assert_array_equal(order[other.row], one.row)


def test_with_the_student():
    data = make_dialogues(n_dialogues=60, n_features=8, human_fraction=0.6, random_state=0)
    y_human = np.array(data.y_human, dtype=object)
    known = np.flatnonzero(~pd.isna(y_human))
    slips = known[::12]
    y_human[slips] = [{"class_0": "class_1"}.get(label, "class_0") for label in y_human[slips]]
    clf = student(max_epochs=3)
    suspects = suspect_labels(clf, data.X, y_human, data.y_llm, cv=3)
    assert not hasattr(clf, "classes_")
    human = of(suspects, "human")
    assert np.isin(slips, human.row[: 3 * len(slips)]).mean() > 0.7
    proba = out_of_fold_proba(clf, data.X, y_human, data.y_llm, cv=3)
    same = suspect_labels(clf, data.X, y_human, data.y_llm, proba=proba)
    assert_array_equal(same.row, suspects.row)
    assert_allclose(same.probability_wrong, suspects.probability_wrong)


def test_a_plain_classifier_and_the_llm():
    data = world(n=300)
    features = data.X[["f"]].to_numpy()
    alone = suspect_labels(LogisticRegression(), features, data.human, cv=3)
    assert set(alone.source) == {"human"}
    with pytest.raises(TypeError, match="takes no y_llm"):
        suspect_labels(LogisticRegression(), features, data.human, data.llm)
    proba = out_of_fold_proba(LogisticRegression(), features, data.human)
    both = suspect_labels(LogisticRegression(), features, data.human, data.llm, proba=proba)
    assert set(both.source) == {"human", "llm"}


def test_without_human_labels_only_the_order_counts():
    data = world(n=600)
    clf = DialoguePreferenceClassifier("precomputed", classes=CLASSES.tolist())
    with pytest.warns(UserWarning, match="rely on the order of its labels only"):
        suspects = suspect_labels(clf, data.X, None, data.llm, proba=data.proba)
    wrong = data.llm[suspects.row] != data.true[suspects.row]
    assert average_precision_score(wrong, suspects.probability_wrong) > 0.8


def test_votes_scores_and_rows_without_any():
    data = world(n=600)
    votes = np.column_stack([data.llm, data.llm, data.human]).astype(object)
    votes[::3] = None
    suspects = suspect_labels(None, data.X, data.human, votes, proba=data.proba)
    llm = of(suspects, "llm")
    assert len(llm) == 400 and not np.isin(llm.row, np.arange(0, 600, 3)).any()
    assert_array_equal(llm.label, data.llm[llm.row])
    scores = pd.DataFrame({name: data.llm == name for name in CLASSES[::-1]}).astype(float)
    one = suspect_labels(None, data.X, data.human, scores, proba=data.proba)
    other = suspect_labels(None, data.X, data.human, data.llm, proba=data.proba)
    assert_allclose(one.probability_wrong, other.probability_wrong)


def test_several_labels_are_judged_one_by_one():
    one, other = world(n=900, sure=4.0), world(n=900, seed=1, sure=4.0)
    y_human = pd.DataFrame({"late": one.human == "ask", "angry": other.human == "ask"}).astype(
        float
    )
    y_human.loc[::4, "late"] = np.nan
    y_llm = np.column_stack([one.llm == "ask", other.llm == "ask"]).astype(float)
    proba = np.column_stack([one.proba[:, 0], other.proba[:, 0]])
    suspects = suspect_labels(None, one.X, y_human, y_llm, proba=proba)
    assert set(suspects.label) == {"late=0", "late=1", "angry=0", "angry=1"}
    assert len(of(suspects, "human")) == 675 + 900 and len(of(suspects, "llm")) == 1800
    late = of(suspects, "human")
    late = late[[label.startswith("late") for label in late.label]]
    wrong = (late.label == "late=1") != (one.true[late.row] == "ask")
    assert average_precision_score(wrong, late.probability_wrong) > 4 * wrong.mean()
    assert all(
        a[:-1] == b[:-1] and a != b for a, b in zip(late.label, late.suggestion, strict=True)
    )


def test_parts_and_frame():
    data = world(n=60)
    suspects = suspect_labels(None, data.X, data.human, data.llm, proba=data.proba)
    frame = suspects.frame()
    assert list(frame) == ["row", "source", "label", "suggestion", "probability_wrong"]
    assert len(frame) == len(suspects) == 120
    assert len(suspects[:7]) == 7 and len(suspects[3]) == 1 and len(suspects[[]]) == 0
    likely = suspects[suspects.probability_wrong > 0.5]
    assert len(likely) == (frame["probability_wrong"] > 0.5).sum()


def test_bool_and_int_labels():
    data = world(n=200)
    for kind in (bool, int):
        y = (data.human == "ask").astype(kind)
        proba = np.column_stack([1 - data.proba[:, 0], data.proba[:, 0]])
        suspects = suspect_labels(None, data.X, y, proba=proba)
        assert suspects.label.dtype.kind == np.dtype(kind).kind
        assert (suspects.label != suspects.suggestion).all()


def test_proba_must_fit():
    data = world(n=60)
    for proba, message in (
        (data.proba[:-1], r"proba has shape \(59, 4\), but X has 60 rows and there are 4"),
        (data.proba * 2, "must hold probabilities, but row 0 holds"),
        (np.where(np.arange(60)[:, None] == 3, np.nan, data.proba), "but row 3 holds"),
    ):
        with pytest.raises(ValueError, match=message):
            suspect_labels(None, data.X, data.human, proba=proba)
    with pytest.raises(ValueError, match="y_human and y_llm are both missing"):
        suspect_labels(None, data.X, proba=data.proba)

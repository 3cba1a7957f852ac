"""A student that asks a teacher: where it asks, what it answers, what it promises."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from fake_llm import FakeLLM
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks
from students import student

from sklearn_dialpref import LabelledGroupKFold, LLMAnnotator
from sklearn_dialpref.escalation import CoverageAccuracyDisplay, EscalatingClassifier
from sklearn_dialpref.escalation.bounds import accuracy_bound, last_passing

CLASSES = np.array(["ask", "no", "yes"])


class Sayings(ClassifierMixin, BaseEstimator):
    """A student or teacher that reads its probabilities from the features."""

    def __init__(self, first=0):
        self.first = first

    def fit(self, X, y, y_llm=None):
        self.classes_ = CLASSES
        return self

    def predict_proba(self, X):
        return self._features(X)[:, self.first : self.first + 3].astype(float)

    def _features(self, X):
        return X[[f"f{n}" for n in range(6)]].to_numpy() if hasattr(X, "columns") else X

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class Listening(Sayings):
    """A teacher that keeps what it was asked about."""

    def predict_proba(self, X):
        self.heard = X
        return super().predict_proba(X)


def answers(y, right, confidence, rng):
    """Probabilities of the classes; of this class where right, else of the next."""
    proba = np.tile(((1 - confidence) / 2)[:, None], (1, 3))
    proba[np.arange(len(y)), np.where(right, y, (y + 1) % 3)] = confidence
    return proba


def chats(n_dialogues=60, teacher_right=0.9, seed=0):
    """Dialogues of ten turns; the student is right as often as it is sure, .4 to 1."""
    rng = np.random.default_rng(seed)
    n_rows = 10 * n_dialogues
    y = rng.integers(0, 3, n_rows)
    sure = rng.uniform(0.4, 1, n_rows)
    own = answers(y, rng.random(n_rows) < sure, sure, rng)
    other = answers(y, rng.random(n_rows) < teacher_right, np.full(n_rows, 1.0), rng)
    X = pd.DataFrame(np.hstack([own, other]), columns=[f"f{n}" for n in range(6)])
    X.insert(0, "dialogue_id", np.repeat(np.arange(n_dialogues), 10))
    X.insert(1, "turn", np.tile(np.arange(10), n_dialogues))
    return X, CLASSES[y]


def teacher():
    return Sayings(3).fit(None, None)


def escalating(**parameters):
    return EscalatingClassifier(**{"student": Sayings(), "teacher": teacher(), **parameters})


# -- asking ---------------------------------------------------------------------------------


def test_it_asks_about_the_share_that_gains_most():
    X, y = chats()
    clf = escalating(max_share=0.3).fit(X, y)
    asked = clf.escalates(X)
    assert 0.25 < asked.mean() <= 0.3
    sure = Sayings().predict_proba(X).max(axis=1)
    assert sure[asked].max() <= sure[~asked].min() + 0.05
    new, labels = chats(seed=1)
    assert 0.2 < clf.escalates(new).mean() < 0.4
    assert clf.score(new, labels) > clf.student_.score(new, labels) + 0.1
    only_teacher = accuracy(teacher().predict(new), labels)
    assert escalating(max_share=1).fit(X, y).score(new, labels) > only_teacher


def accuracy(labels, truth):
    return np.mean(labels == truth)


def test_an_answer_does_not_depend_on_other_rows():
    X, y = chats()
    clf = escalating(max_share=0.2).fit(X, y)
    together, asked = clf.predict_proba(X), clf.escalates(X)
    for row in np.r_[np.flatnonzero(asked)[:3], np.flatnonzero(~asked)[:3]]:
        assert_allclose(clf.predict_proba(X.iloc[[row]]), together[[row]])
        assert clf.escalates(X.iloc[[row]]) == asked[row]


def test_the_order_of_rows_does_not_matter():
    X, y = chats()
    order = np.random.default_rng(0).permutation(len(X))
    one = escalating(max_share=0.2).fit(X, y)
    other = escalating(max_share=0.2).fit(X.iloc[order], y[order])
    assert one.threshold_ == other.threshold_
    assert_array_equal(one.predict_proba(X)[order], other.predict_proba(X.iloc[order]))


def test_a_teacher_who_knows_less_is_never_asked():
    X, y = chats()
    X[["f3", "f4", "f5"]] = np.eye(3)[np.random.default_rng(5).integers(0, 3, len(X))]
    clf = escalating(max_share=0.5).fit(X, y)
    assert clf.escalates(X).mean() < 0.05


def test_it_asks_only_about_classes_where_that_helps():
    X, y = chats(200)
    wrong = y == "yes"  # whatever people call yes, the teacher calls no, and no it calls no
    X.loc[wrong, ["f3", "f4", "f5"]] = [0.0, 1.0, 0.0]
    sure = Sayings().predict_proba(X).max(axis=1) > 0.6
    clf = escalating(max_share=1).fit(X, y)
    own, asked = clf.student_.predict(X), clf.escalates(X)
    assert asked[(own == "ask") & ~sure].mean() > 0.9
    assert clf.score(X, y) > clf.student_.score(X, y)
    assert accuracy(clf.predict(X)[wrong], y[wrong]) > 0.6  # the teacher alone: 0


def test_nobody_is_asked_at_a_share_of_0():
    X, y = chats()
    clf = escalating(max_share=0).fit(X, y)
    assert clf.threshold_ == np.inf
    assert not clf.escalates(X).any()
    assert_array_equal(clf.predict_proba(X), clf.student_.predict_proba(X))
    assert clf.expected_cost(X) == {"n_asked": 0, "share": 0.0}


def test_escalates_and_expected_cost_ask_nobody():
    X, y = chats()
    clf = escalating(max_share=0.1, teacher=Listening(3).fit(None, None)).fit(X, y)
    del clf.teacher.heard
    asked = clf.escalates(X)
    assert clf.expected_cost(X) == {"n_asked": asked.sum(), "share": asked.mean()}
    assert not hasattr(clf.teacher, "heard")
    clf.predict(X)
    ids = X["dialogue_id"]  # whole dialogues: they are context
    assert_array_equal(clf.teacher.heard, X[ids.isin(ids[asked])])


def test_predict_changes_nothing():
    X, y = chats()
    clf = escalating(max_share=0.1).fit(X, y)
    before = pickle.dumps(clf)
    clf.predict(X), clf.predict_proba(X), clf.escalates(X), clf.score(X, y)
    assert pickle.dumps(clf) == before


class Silent(Sayings):
    """A teacher without an answer about every second row."""

    def predict_proba(self, X):
        proba = super().predict_proba(X)
        proba[X["turn"].to_numpy() % 2 == 0] = np.nan
        return proba


def test_rows_without_an_answer_keep_the_students():
    X, y = chats()
    clf = escalating(max_share=0.5, teacher=Silent(3).fit(None, None)).fit(X, y)
    asked, silent = clf.escalates(X), (X["turn"] % 2 == 0).to_numpy()
    changed = (clf.predict_proba(X) != clf.student_.predict_proba(X)).any(axis=1)
    assert (asked & silent).any()
    assert_array_equal(changed, asked & ~silent)


# -- the teacher ----------------------------------------------------------------------------


def test_answers_that_are_there_are_not_asked_for():
    X, y = chats()
    y_llm = pd.DataFrame(Sayings(3).predict_proba(X), columns=CLASSES)
    told = escalating(max_share=0.2, teacher=Listening(3).fit(None, None)).fit(X, y, y_llm)
    assert not hasattr(told.teacher, "heard")
    asked = escalating(max_share=0.2).fit(X, y)
    assert_array_equal(told.predict_proba(X), asked.predict_proba(X))


def test_only_labelled_rows_without_an_answer_are_asked_about():
    X, y = chats()
    human = np.where(X["dialogue_id"] < 40, y, None)
    y_llm = Sayings(3).predict_proba(X)
    y_llm[X["dialogue_id"] < 20] = np.nan
    clf = escalating(max_share=0.2, teacher=Listening(3).fit(None, None))
    clf.fit(X, human, pd.DataFrame(y_llm, columns=CLASSES))
    assert set(clf.teacher.heard["dialogue_id"]) == set(range(20))


def test_an_annotator_is_asked_about_some_rows_and_shown_all():
    rng = np.random.default_rng(0)
    labels = rng.choice(["bad", "good"], 120)
    X = pd.DataFrame(
        {
            "dialogue_id": np.repeat(np.arange(20), 6),
            "turn": list(range(6)) * 20,
            "text": [f"It is {label}, number {n}." for n, label in enumerate(labels)],
        }
    )
    human = np.where(rng.random(120) < 0.7, labels, None)
    words = make_pipeline(
        FunctionTransformer(lambda X: [text.split()[-1] for text in X["text"]]),  # the number
        TfidfVectorizer(),
        LogisticRegression(),
    )
    with FakeLLM() as server:
        annotator = LLMAnnotator(
            ["bad", "good"], "tiny", base_url=server.base_url, scoring="schema", cache=None
        ).fit(X)
        clf = EscalatingClassifier(words, annotator, max_share=1.0, cv=2).fit(X, human)
        assert annotator.usage_["calls"] == 8 * (~pd.isna(human)).sum()
        new = X[:12].assign(dialogue_id="new", turn=range(12))
        new["text"] = new["text"].str.replace("number", "No.")
        cost = clf.expected_cost(new)
        assert cost.n_asked == 12
        assert cost.calls == 8 * 12
        assert clf.score(new, labels[:12]) == 1
        assert annotator.usage_["calls"] == cost.calls


def test_a_teacher_that_is_not_fitted():
    X, y = chats()
    with pytest.raises(NotFittedError):
        escalating(teacher=LogisticRegression(), max_share=0.1).fit(X, y)


def test_a_teacher_of_other_classes():
    X, y = chats()
    other = LogisticRegression().fit([[0], [1]], ["no", "yes"])
    with pytest.raises(ValueError, match=r"the teacher knows \['no', 'yes'\]; use a teacher for"):
        escalating(teacher=other, max_share=0.1).fit(X, y)


def test_a_teacher_knows_classes_that_no_label_has():
    X, y = chats()
    some = np.where(y == "ask", None, y)
    X = X.iloc[:, 2:].to_numpy()
    clf = escalating(student=LogisticRegression(), max_share=0.2).fit(X, some)
    assert_array_equal(clf.classes_, CLASSES)
    assert clf.predict_proba(X).shape == (600, 3)


def test_clones_share_the_teacher():
    clf = escalating(max_share=0.2)
    assert clone(clf).teacher is clf.teacher
    assert clone(clf).student is not clf.student
    assert clone(make_pipeline(clf)).steps[-1][1].teacher is clf.teacher


# -- promises -------------------------------------------------------------------------------


def test_it_asks_no_more_than_the_target_takes():
    X, y = chats(200)
    shares = []
    for target in (0.65, 0.75, 0.85):
        clf = escalating(target_accuracy=target).fit(X, y)
        assert clf.promise_.kept
        assert clf.promise_.bound >= target
        assert clf.promise_.n_labels == 2000
        shares.append(clf.escalates(X).mean())
        new, labels = chats(200, seed=1)
        assert clf.score(new, labels) > target
    assert shares[0] < shares[1] < shares[2]
    assert shares[0] == 0


def test_what_cannot_be_promised_is_said():
    X, y = chats(6)
    with pytest.warns(UserWarning, match=r"target_accuracy=0.95 is not promised: .* 60 human"):
        clf = escalating(target_accuracy=0.95).fit(X, y)
    assert not clf.promise_.kept
    assert clf.promise_.bound < 0.95
    assert clf.escalates(X).mean() > 0.3


def test_without_a_teacher_it_abstains():
    X, y = chats(200)
    clf = escalating(teacher=None, target_accuracy=0.8).fit(X, y)
    new, labels = chats(200, seed=1)
    predicted = clf.predict(new)
    silent = np.array([label is None for label in predicted])
    assert_array_equal(silent, clf.escalates(new))
    assert 0.2 < silent.mean() < 0.7
    assert clf.score(new, labels) > 0.8
    assert accuracy(predicted[~silent], labels[~silent]) == clf.score(new, labels)
    assert_array_equal(clf.predict_proba(new), clf.student_.predict_proba(new))
    assert 0.2 < escalating(teacher=None, max_share=0.3).fit(X, y).escalates(new).mean() < 0.4


def test_bounds_by_hand():
    # Clopper and Pearson, 8 of 10: the share at which 8 or more have a probability of 5 %
    bound = accuracy_bound(np.arange(10) < 8, np.arange(10), 0.95)
    assert_allclose(bound, 0.4931, atol=1e-4)
    assert accuracy_bound(np.ones(10, dtype=bool), np.zeros(10, dtype=int), 0.95) == 0


def test_rows_of_a_dialogue_count_less_where_they_agree():
    groups = np.repeat(np.arange(20), 10)
    spread = np.tile(np.arange(10) < 8, 20)
    alike = groups < 16
    assert spread.mean() == alike.mean()
    assert accuracy_bound(alike, groups, 0.95) < accuracy_bound(spread, groups, 0.95) - 0.1


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_bounds_hold_as_often_as_they_say(spread):
    rng = np.random.default_rng(0)
    groups, broken = np.repeat(np.arange(15), 8), 0
    for _ in range(1000):
        accuracy = np.clip(0.8 + rng.choice([-spread, spread], 15), 0, 1)[groups]
        broken += accuracy_bound(rng.random(120) < accuracy, groups, 0.95) > 0.8
    assert broken / 1000 < 0.065


def test_the_last_step_that_passes_before_one_fails():
    def outcome(share):
        return np.arange(1000) < 1000 * share, np.arange(1000)

    steps = [outcome(share) for share in (0.95, 0.9, 0.7, 0.95)]
    assert last_passing(steps, 0.85, 0.95)[0] == 1
    assert last_passing(steps[2:], 0.85, 0.95)[0] is None


# -- the display ----------------------------------------------------------------------------


def test_display_of_asking():
    X, y = chats()
    clf = escalating(max_share=0.3).fit(X, y)
    new, labels = chats(seed=1)
    labels = np.where(new["turn"] < 5, labels, None)
    known = new["turn"] < 5
    display = CoverageAccuracyDisplay.from_estimator(clf, new, labels)
    assert not display.abstains
    assert display.share[[0, -1]].tolist() == [0, 1]
    assert display.accuracy[0] == clf.student_.score(new[known], labels[known].tolist())
    assert display.chosen == clf.escalates(new)[known].mean()
    at_chosen = np.interp(display.chosen, display.share, display.accuracy)
    assert_allclose(at_chosen, clf.score(new, labels), atol=0.02)
    assert display.frame().columns.tolist() == ["share", "accuracy", "f1_macro"]
    assert_array_equal(display.frame()["f1_macro"], display.f1_macro)
    drawn = display.plot()
    assert drawn.ax_.get_xlabel() == "Share asked about"
    assert [line.get_label() for line in drawn.ax_.lines] == ["Accuracy", "Macro-F1", "Threshold"]


def test_display_of_abstaining():
    X, y = chats()
    clf = escalating(teacher=None, max_share=0.5).fit(X, y)
    new, labels = chats(seed=1)
    display = CoverageAccuracyDisplay.from_estimator(clf, new, labels)
    assert display.abstains
    assert display.share[[0, -1]].tolist() == [0, 1]
    assert np.isnan(display.accuracy[0])
    assert display.accuracy[-1] == accuracy(clf.student_.predict(new), labels)
    assert display.accuracy[5] > display.accuracy[-1]
    assert display.plot().ax_.get_xlabel() == "Share answered"


def test_displays_need_labels():
    with pytest.raises(ValueError, match="needs a human label"):
        CoverageAccuracyDisplay.from_predictions([None], y_student=["a"], need=[0.1])
    with pytest.raises(ValueError, match="inconsistent numbers"):
        CoverageAccuracyDisplay.from_predictions(["a"], y_student=["a"], need=[0.1, 0.2])


# -- parameters, labels, composition --------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"max_share": 0.1, "target_accuracy": 0.9}])
def test_a_share_or_an_accuracy(given):
    X, y = chats()
    with pytest.raises(ValueError, match="set either max_share"):
        escalating(**given).fit(X, y)


@pytest.mark.parametrize(
    "wrong",
    [{"max_share": 1.1}, {"target_accuracy": 1.0}, {"max_share": 0.1, "confidence": 1},
     {"max_share": 0.1, "cv": 1}, {"max_share": 0.1, "teacher": "gpt"}],
)  # fmt: skip
def test_parameters_are_checked(wrong):
    X, y = chats()
    with pytest.raises(ValueError, match=list(wrong)[-1]):
        escalating(**wrong).fit(X, y)


def test_labels_are_checked():
    X, y = chats()
    clf = escalating(max_share=0.1)
    with pytest.raises(ValueError, match="y_human is 2-D"):
        clf.fit(X, np.eye(3)[np.searchsorted(CLASSES, y)])
    y_llm = Sayings(3).fit(X, y).predict(X)
    with pytest.raises(ValueError, match="all of y_human is missing"):
        clf.fit(X, None, y_llm)
    with pytest.raises(NotFittedError):
        clf.predict(X)
    with pytest.raises(ValueError, match="score needs rows with a label"):
        clf.fit(X, y).score(X, [None] * len(X))


def test_labels_of_a_single_dialogue_promise_nothing():
    X, y = chats()
    human = np.where(X["dialogue_id"] == 3, y, None)
    model = student(schedule="joint", max_epochs=2)
    y_llm = Sayings(3).fit(X, y).predict(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf = EscalatingClassifier(model, teacher(), max_share=0.2).fit(X, human, y_llm)
        assert clf.escalates(X).mean() < 0.3
    with pytest.warns(UserWarning, match="is not promised"):
        clf.set_params(max_share=None, target_accuracy=0.5).fit(X, human, y_llm)


def test_in_a_search():
    X, y = chats(40)
    human = np.where(X["turn"] < 8, y, None)
    search = GridSearchCV(
        make_pipeline(FunctionTransformer(), escalating(max_share=0.1)),
        {"escalatingclassifier__max_share": [0.0, 0.4]},
        cv=LabelledGroupKFold(3),
    ).fit(X, human)
    assert search.best_params_ == {"escalatingclassifier__max_share": 0.4}
    assert search.best_estimator_.score(X, human) > 0.8


def expected_failures(estimator):
    """Failures that we stand by, each with its reason."""
    return {
        "check_fit_score_takes_y": "the target is called y_human, beside y_llm",
        "check_dtype_object": "an array of objects is one of dialogues, here as everywhere",
    }


# without teacher and with nothing passed on, as checks bring data of many kinds
@parametrize_with_checks(
    [EscalatingClassifier(LogisticRegression(), max_share=0.0)],
    expected_failed_checks=expected_failures,
)
def test_stock_checks(estimator, check):
    check(estimator)


def test_plain_arrays_and_numbers_as_labels():
    X, y = chats()
    X, y = X.iloc[:, 2:].to_numpy(), np.searchsorted(CLASSES, y)
    good = LogisticRegression(C=100).fit(X, y)
    clf = EscalatingClassifier(LogisticRegression(C=1e-3), good, max_share=0.3).fit(X, y)
    assert clf.predict(X).dtype == y.dtype
    assert clf.score(X, y) > clf.student_.score(X, y)


def test_a_student_that_is_never_sure():
    X, y = chats()
    clf = escalating(student=DummyClassifier(strategy="uniform"), max_share=1).fit(X, y)
    assert clf.escalates(X).all()
    assert accuracy(clf.predict(X), y) > 0.85

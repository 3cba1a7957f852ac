"""One progress bar for a whole fit, of a length that is known before it begins."""

import re
from functools import partial

import numpy as np
import pytest
import students
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from sklearn_dialpref import (
    EscalatingClassifier,
    LabelledGroupKFold,
    label_budget_curve,
    out_of_fold_proba,
    suspect_labels,
)
from sklearn_dialpref._student import frozen
from sklearn_dialpref._training import net
from sklearn_dialpref._training.progress import FitBar
from sklearn_dialpref._training.stages import SCHEDULES
from sklearn_dialpref.datasets import make_dialogues

student = partial(students.student, max_epochs=2)


@pytest.fixture(scope="module")
def features():
    return make_dialogues(n_dialogues=40, n_features=8, human_fraction=0.5, random_state=0)


def shares(shown):
    """The percentages of all bars in the order in which they were shown."""
    return [int(share) for share in re.findall(r"(\d+)%", shown)]


def check_bar(captured):
    assert captured.out == ""
    assert captured.err.count("\n") == 1  # a bar that is done ends its line
    told = shares(captured.err)
    assert told[0] == 0 and told[-1] == 100 and told == sorted(told)
    assert re.search(r"\d\d:\d\d<(\d\d:\d\d|\?)", captured.err)  # the time left


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_features(features, schedule, capfd):
    clf = student(schedule=schedule, verbose=1)
    clf.fit(features.X, features.y_human, features.y_llm)
    captured = capfd.readouterr()
    check_bar(captured)
    assert f"{clf.history_[-1]['stage']} 2/2" in captured.err and "loss=" in captured.err


@pytest.mark.parametrize("trainable_layers", [0, 1])
def test_texts(tiny_encoder, chats, trainable_layers, capfd):
    clf = student(tiny_encoder, pooling="auto", trainable_layers=trainable_layers, verbose=1)
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    check_bar(capfd.readouterr())


def test_quiet(features, capfd):
    student().fit(features.X, features.y_human, features.y_llm)
    assert capfd.readouterr() == ("", "")


def test_a_fit_that_goes_on(features, tmp_path, capfd):
    clf = student(checkpoint_dir=tmp_path)
    clf.fit(features.X, features.y_human, features.y_llm)
    clf.set_params(verbose=1).fit(features.X, features.y_human, features.y_llm)
    check_bar(capfd.readouterr())


@pytest.fixture
def parts(monkeypatch):
    """Names and costs of the parts that were planned, and that began."""
    planned, begun = {}, []
    plan, part = FitBar.plan, FitBar.part

    def recorded_plan(self, costs):
        planned.update(costs)
        plan(self, costs)

    def recorded_part(self, name):
        begun.append(name)
        return part(self, name)

    monkeypatch.setattr(FitBar, "plan", recorded_plan)
    monkeypatch.setattr(FitBar, "part", recorded_part)
    return planned, begun


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("labels", ["both", "human", "llm", "multilabel"])
def test_all_parts_are_planned(features, schedule, labels, parts):
    y_human, y_llm = features.y_human, features.y_llm
    if labels == "multilabel":
        y_llm = np.stack([features.y_true == c for c in np.unique(features.y_true)], 1) * 0.8
        y_human = (y_llm > 0).astype(float)
    y_human, y_llm = (None if labels == o else y for o, y in (("llm", y_human), ("human", y_llm)))
    student(schedule=schedule).fit(features.X, y_human, y_llm)
    planned, begun = parts
    assert sorted(begun) == sorted(planned)


@pytest.mark.filterwarnings("ignore:the LLM's labels say nothing")
def test_a_fit_that_begins_anew_without_the_llm(features, parts, capfd):
    y_llm = np.random.RandomState(0).choice(np.unique(features.y_true), len(features.X))
    clf = student(verbose=1).fit(features.X, features.y_true, y_llm)
    assert clf.teacher_status_ == "left out"
    planned, begun = parts
    assert set(begun) <= set(planned)
    captured = capfd.readouterr()
    assert captured.err.count("\n") == 1 and shares(captured.err)[-1] == 100


def test_encoding_moves_the_bar(tiny_encoder, chats, monkeypatch, capfd):
    monkeypatch.setattr("sklearn_dialpref._student.encoders.EMBEDDING_BATCH", 8)
    monkeypatch.setattr(frozen, "_STORES", type(frozen._STORES)())  # nothing is known yet
    clf = student(tiny_encoder, trainable_layers=0, verbose=1)
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    captured = capfd.readouterr()
    check_bar(captured)
    assert "encode: " in captured.err
    assert clf._frozen.on_share is None
    told = shares(captured.err[captured.err.index("encode: ") :])
    assert told[0] < 40  # it is most of the fit


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("max_epochs", ["auto", 3])
def test_the_estimate_is_close(features, schedule, max_epochs, parts, monkeypatch):
    """The cost of each training is that of the rows in all its batches."""
    trained = []
    train_stage = net._train_stage

    def recorded(net, plan, *args):
        rows = sum(len(rows) for rows, _ in plan.batches.row_batches()) * plan.batches.passes
        if plan.batches.beside is not None:
            beside = plan.batches.beside
            rows += plan.batches.n_batches() * len(beside.members) / beside.n_batches()
        trained.append(plan.epochs * rows)
        return train_stage(net, plan, *args)

    monkeypatch.setattr(net, "_train_stage", recorded)
    clf = student(schedule=schedule, max_epochs=max_epochs, batch_size=16)
    clf.fit(features.X, features.y_human, features.y_llm)
    planned, begun = parts
    costs = [planned[name] for name in begun if planned[name]]
    assert len(costs) == len(trained)
    ratios = np.array(costs) / trained
    assert ratios.max() < 1.5 * ratios.min()


# -- several fits -------------------------------------------------------------------------------


def reject(clf, data):
    data = (data.X, data.y_human, data.y_llm)
    return EscalatingClassifier(clf, max_share=0.3, cv=2).fit(*data)


CALLS = {
    "label_budget_curve": lambda clf, data: label_budget_curve(
        clf, data.X, data.y_human, data.y_llm, budgets=[0.5, 1], cv=2
    ),
    "out_of_fold_proba": lambda clf, data: out_of_fold_proba(
        make_pipeline(clf), data.X, data.y_human, data.y_llm, cv=3
    ),
    "suspect_labels": lambda clf, data: suspect_labels(
        clf, data.X, data.y_human, data.y_llm, cv=2
    ),
    "EscalatingClassifier": reject,
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_with_several_fits_has_one_bar(features, call, capfd):
    CALLS[call](student(verbose=1), features)
    shown = capfd.readouterr().err
    n_fits = {"label_budget_curve": 6, "suspect_labels": 2}.get(call, 3)
    assert shown.count("\n") == 1 and f" {n_fits}/{n_fits} " in shown and "100%" in shown
    assert "fit: " not in shown
    CALLS[call](student(), features)
    assert capfd.readouterr().err == ""


def test_a_search_leaves_one_bar(features, capfd):
    folds, grid = LabelledGroupKFold(3), {"margin_scale": [1, 2]}
    search = GridSearchCV(student(verbose=1), grid, cv=folds)
    search.fit(features.X, features.y_human, y_llm=features.y_llm)
    shown = capfd.readouterr().err
    assert shown.count("\n") == 1 and shown.count("100%") > 1  # the others were cleared
    data = (features.X, features.y_human)
    params = {"y_llm": features.y_llm}
    cross_val_score(student(verbose=1), *data, params=params, cv=folds)
    assert "\n" not in capfd.readouterr().err


def test_workers_show_no_bars(features, capfd):
    folds, params = LabelledGroupKFold(3), {"y_llm": features.y_llm}
    with parallel_config(backend="threading", n_jobs=2):
        cross_val_score(student(verbose=1), features.X, features.y_human, params=params, cv=folds)
    assert capfd.readouterr().err == ""

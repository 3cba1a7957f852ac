"""Displays: what they share, and that their texts are neither clipped nor on top of each other."""

import inspect
from itertools import pairwise, product

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import sklearn_dialpref
from sklearn_dialpref import (
    CoverageAccuracyDisplay,
    DialoguePreferenceClassifier,
    LabelBudgetDisplay,
    PairMarginDisplay,
    ReliabilityDisplay,
    TeacherConfusionDisplay,
    TeacherReportDisplay,
    TrainingHistoryDisplay,
    teacher_report,
)
from sklearn_dialpref.datasets import make_dialogues
from sklearn_dialpref.inspection import LabelBudgetCurve
from sklearn_dialpref.inspection.drawing import shorten, shorten_all

plt = pytest.importorskip("matplotlib.pyplot")

pytestmark = pytest.mark.filterwarnings("ignore:Glyph .* missing from font")

HOSTILE = [
    "投诉配送延迟并且包裹损坏严重需要全额退款",
    "🎉🎉 party",
    "$5_refund^now$ and $x_{",
    "two\nlines\there",
    "intent_with_underscores_and_without_any_space_in_it_whatsoever",
    "_hidden",
]
LONG = [
    *HOSTILE,
    *(f"a complaint about a parcel that arrived late and was damaged {i}" for i in range(24)),
]
NAMES = {"short": ["greeting", "complaint", "thanks"], "few": HOSTILE, "many": LONG}
NAME = "_large $LLM_$ of the year {that has a long name}"
HISTORY = [
    {"epoch": n, "stage": stage, "train_loss": 1 / n, "valid_loss": held, "duration": 0.1}
    for n, (stage, held) in enumerate(
        [("pretrain", 0.9), ("pretrain", 0.8), ("finetune", float("nan"))], start=1
    )
]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def labels_of(names, n=400):
    """Human labels, and scores of a teacher who is mostly right."""
    rng = np.random.default_rng(0)
    truth = rng.integers(len(names), size=n)
    scores = rng.dirichlet(np.ones(len(names)), size=n)
    scores[np.arange(n), truth] += 1
    scores /= scores.sum(axis=1, keepdims=True)
    order = np.argsort(np.array(names, dtype=object))
    return np.array(names, dtype=object)[truth], scores[:, order]


def make(kind, names=HOSTILE):
    human, scores = labels_of(names)
    votes = np.array(sorted(names), dtype=object)[scores.argmax(axis=1)]
    X = [[f"d{row // 10}", "text"] for row in range(len(human))]
    if kind is CoverageAccuracyDisplay:
        return kind.from_predictions(human, y_student=votes, y_asked=human, need=1 - scores.max(1))
    if kind is LabelBudgetDisplay:
        counts = np.array([500.0, 1000.0, 500.0, 1000.0])
        source, share = np.repeat(["human", "llm"], 2), np.array([0.5, 1, 0.5, 1])
        score = np.array([[0.4, 0.5], [0.5, 0.6], [0.3, 0.4], [0.5, 0.6]])
        return kind(LabelBudgetCurve(source, share, counts, counts, score))
    if kind is TrainingHistoryDisplay:
        return kind(HISTORY)
    if kind is TeacherReportDisplay:
        return kind(teacher_report(X, human, scores, random_state=0))
    if kind is PairMarginDisplay:
        return kind.from_predictions(X, human, scores, random_state=0)
    return kind.from_predictions(human, scores)


KINDS = [
    CoverageAccuracyDisplay,
    LabelBudgetDisplay,
    PairMarginDisplay,
    ReliabilityDisplay,
    TeacherConfusionDisplay,
    TrainingHistoryDisplay,
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def check_texts(figure):
    """Nothing is outside of the figure, and no name is on another."""
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= width
    assert box.y1 <= height
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            texts = [tick for tick in axis.get_ticklabels() if tick.get_text()]
            boxes = [tick.get_window_extent() for tick in texts]
            assert not any(one.overlaps(other) for one, other in pairwise(boxes))
            if axis.label.get_text():
                label = axis.label.get_window_extent()
                assert not any(label.overlaps(tick) for tick in boxes)
        if ax.get_legend() is not None:
            legend, frame = ax.get_legend().get_window_extent(), ax.get_window_extent()
            assert legend.width <= frame.width


def figures():
    """Figures of users, and the axes to draw on."""
    figure, ax = plt.subplots()
    yield "default", figure, ax
    figure, axes = plt.subplots(1, 2)
    yield "beside another", figure, axes[1]
    figure, axes = plt.subplots(1, 3, layout="constrained")
    yield "narrow", figure, axes[1]
    figure, axes = plt.subplots(2, 2, layout="constrained", figsize=(10, 8))
    yield "a grid", figure, axes[0, 0]
    figure = plt.figure(layout="constrained")
    yield "a subfigure", figure, figure.subfigures(1, 2)[1].subplots()


# -- what they share ------------------------------------------------------------------------


def test_all_displays_are_tested_here():
    public = {name for name in sklearn_dialpref.__all__ if name.endswith("Display")}
    assert public == {kind.__name__ for kind in [*KINDS, TeacherReportDisplay]}


@every_kind
def test_arguments_are_the_same(kind):
    for maker in ("from_estimator", "from_predictions"):
        if hasattr(kind, maker):
            *_, ax, name, kwargs = inspect.signature(getattr(kind, maker)).parameters.values()
            assert (ax.name, name.name, kwargs.name) == ("ax", "name", "kwargs")
            assert ax.kind is ax.KEYWORD_ONLY
            assert ax.default is name.default is None
    _, ax, name, kwargs = inspect.signature(kind.plot).parameters.values()
    assert (ax.name, name.name, kwargs.name) == ("ax", "name", "kwargs")
    assert name.kind is name.KEYWORD_ONLY


@every_kind
def test_plots_frames_and_words(kind):
    display = make(kind)
    assert "plot() draws it" in repr(display)
    ax = plt.subplots()[1]
    assert display.plot(ax) is display
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert display.plot().ax_ is not ax
    assert len(display.frame())


def test_drawn_at_once_if_axes_are_given():
    human, scores = labels_of(["a", "b"])
    ax = plt.subplots()[1]
    display = ReliabilityDisplay.from_predictions(human, scores, ax=ax, name="GPT", color="red")
    assert display.ax_ is ax
    assert ax.lines[-1].get_color() == "red"
    assert ax.lines[-1].get_label() == "GPT"
    assert not hasattr(ReliabilityDisplay.from_predictions(human, scores), "ax_")
    assert plt.get_fignums() == [ax.figure.number]


def test_arguments_that_nothing_takes_are_an_error_before_anybody_is_asked():
    with pytest.raises(TypeError, match=r"no parameters \['n_bin'\]"):
        ReliabilityDisplay.from_estimator(None, ["a"], ["x"], n_bin=3)
    with pytest.raises(TypeError, match="together with ax"):
        TeacherConfusionDisplay.from_predictions(["a", "b"], ["a", "b"], cmap="Blues")


@every_kind
def test_names_tell_two_displays_on_the_same_axes_apart(kind):
    if kind is TeacherConfusionDisplay:
        assert make(kind).plot(name="GPT").ax_.get_xlabel() == "GPT"
        return
    ax = make(kind).plot(name="one").ax_
    make(kind).plot(ax, name="two")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(labels) == len(set(labels))
    for name in ("one", "two"):
        assert any(name in label for label in labels)


def test_short_forms_of_styles():
    display = make(PairMarginDisplay).plot(lw=3, ls="-.", c="k")
    assert display.ax_.lines[0].get_linewidth() == 3
    assert display.ax_.lines[0].get_linestyle() == "-."


def test_long_names_leave_the_kind_of_line_in_the_legend():
    ax = make(PairMarginDisplay).plot(plt.subplots(1, 3)[1][0], name="x" * 200).ax_
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [label.split()[0] for label in labels] == ["inside", "across", "chance"]


# -- texts ----------------------------------------------------------------------------------


@every_kind
def test_new_figures_hold_all_texts(kind):
    check_texts(make(kind).plot(name=NAME).figure_)


@pytest.mark.parametrize(
    "place", [0, 3, *(pytest.param(place, marks=pytest.mark.slow) for place in (1, 2, 4))]
)
@every_kind
def test_figures_of_users_hold_all_texts_and_keep_their_layout(kind, place):
    _, figure, ax = list(figures())[place]
    layout, size = figure.get_layout_engine(), figure.get_size_inches()
    make(kind).plot(ax, name=NAME)
    assert figure.get_layout_engine() is layout
    assert figure.get_size_inches().tolist() == size.tolist()
    check_texts(figure)


@pytest.mark.parametrize(
    ("names", "place"),
    [*product(["short", "few"], [None, *range(5)]), *product(["many"], [None, 0, 2])],
)
def test_names_of_classes_do_not_overlap(names, place):
    names = NAMES[names]
    _, figure, ax = (None, None, None) if place is None else list(figures())[place]
    display = make(TeacherConfusionDisplay, names).plot(ax)
    check_texts(figure or display.figure_)
    ticks = [*display.ax_.get_xticklabels(), *display.ax_.get_yticklabels()]
    assert not any(tick.get_parse_math() for tick in ticks)
    if place is None:
        assert len({tick.get_text() for tick in display.ax_.get_yticklabels()}) == len(names)


def test_short_names_stay_whole_and_level():
    ax = make(TeacherConfusionDisplay, NAMES["short"]).plot(plt.subplots()[1]).ax_
    for ticks in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert [tick.get_text() for tick in ticks] == sorted(NAMES["short"])
    assert {tick.get_rotation() for tick in ax.get_xticklabels()} == {0}


def test_a_hundred_classes_are_named_as_far_as_there_is_room():
    names = [f"class {number:03}" for number in range(100)]
    ax = make(TeacherConfusionDisplay, names).plot(plt.subplots()[1]).ax_
    check_texts(ax.figure)
    shown = [tick.get_text() for tick in ax.get_yticklabels()]
    assert 10 < sum(map(bool, shown)) < 100


def test_rotation_and_size_of_numbers_are_the_users():
    ax = make(TeacherConfusionDisplay).plot(xticks_rotation=45, text_kw={"fontsize": 5}).ax_
    assert {tick.get_rotation() for tick in ax.get_xticklabels()} == {45}
    assert {text.get_fontsize() for text in ax.texts} == {5}
    assert not make(TeacherConfusionDisplay).plot(include_values=False).ax_.texts


@pytest.mark.parametrize("name", [*HOSTILE, "", " ", "a" * 80])
@pytest.mark.parametrize("lines", [1, 2, 3])
def test_shortened(name, lines):
    text = shorten(name, 10, lines)
    assert text.count("\n") < lines
    assert all(line.isprintable() and len(line) <= 10 for line in text.split("\n"))
    assert ("…" in text) == (
        len(text.replace("…", "").replace("\n", "")) < len("".join(name.split()))
    )


def test_names_that_start_alike_stay_different():
    texts = shorten_all(LONG[-24:], 24)
    assert len(set(texts)) == 24
    assert texts[0].startswith("a complaint")
    assert texts[0].endswith("0")


@pytest.mark.parametrize("kind", [*KINDS, TeacherReportDisplay], ids=lambda kind: kind.__name__)
def test_nothing_is_black_on_black(kind):
    with plt.style.context("dark_background"):
        figure = make(kind).plot().figure_
        figure.canvas.draw()
        lines = [line for ax in figure.axes for line in ax.lines]
        from matplotlib.colors import to_rgb

        assert all(sum(to_rgb(line.get_color())) > 1 for line in lines)


# -- report ---------------------------------------------------------------------------------


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_reports(names):
    display = make(TeacherReportDisplay, names)
    assert display.frame().shape[0] == len(names)
    check_texts(display.plot(name=NAME).figure_)


def test_a_report_on_a_figure_of_the_user():
    figure = plt.figure(figsize=(12, 9), layout="constrained")
    display = make(TeacherReportDisplay).plot(figure, name="_GPT", color="C2")
    assert display.figure_ is figure
    assert figure.get_size_inches().tolist() == [12, 9]
    check_texts(figure)
    assert display.axes_["shares"].lines[1].get_color() == "C2"
    part = plt.figure(figsize=(12, 9), layout="constrained").subfigures(1, 1)
    assert display.report.plot(part).figure_ is part


# -- history --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    return make_dialogues(n_dialogues=30, n_features=4, human_fraction=0.6, random_state=0)


@pytest.fixture(scope="module")
def fitted(data):
    clf = DialoguePreferenceClassifier(
        "precomputed", max_epochs=2, early_stopping=True, random_state=0
    )
    return clf.fit(data.X, data.y_human, data.y_llm)


def test_history_of_a_classifier(fitted):
    display = TrainingHistoryDisplay.from_estimator(fitted)
    frame = display.frame()
    assert frame["train_loss"].tolist() == [row["train_loss"] for row in fitted.history_]
    assert frame.columns.tolist() == ["epoch", "stage", "train_loss", "valid_loss", "duration"]
    lines = {line.get_label(): line for line in display.plot(linewidth=1).ax_.lines}
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == [
        "pretrain, training",
        "pretrain, held-out dialogues",
        "finetune, training",
        "finetune, held-out dialogues",
    ]
    held_out = frame.loc[frame["stage"] == "finetune", "valid_loss"]
    assert lines[labels[3]].get_ydata().tolist() == held_out.tolist()


def test_history_without_early_stopping_has_no_line_of_held_out_dialogues():
    history = [{**row, "valid_loss": float("nan")} for row in HISTORY]
    ax = TrainingHistoryDisplay(history).plot().ax_
    assert len(ax.get_legend().get_texts()) == 2


def test_history_inside_other_estimators(data, fitted):
    clf = DialoguePreferenceClassifier("precomputed", max_epochs=1, random_state=0)
    pipe = make_pipeline("passthrough", clf)
    search = GridSearchCV(pipe, {"dialoguepreferenceclassifier__margin_scale": [1]}, cv=2)
    known = np.flatnonzero([label is not None for label in data.y_human])
    search.fit(data.X.iloc[known], np.asarray(data.y_human)[known].tolist())
    assert len(TrainingHistoryDisplay.from_estimator(search).history) == 1


@pytest.mark.parametrize(
    "estimator", [DialoguePreferenceClassifier(), DummyClassifier(), make_pipeline("passthrough")]
)
def test_without_a_history(estimator):
    with pytest.raises(NotFittedError, match="no training history"):
        TrainingHistoryDisplay.from_estimator(estimator)


def test_history_on_axes_with_ticks_of_the_users():
    ax = plt.subplots()[1]
    ax.set_xticks([1, 2])
    make(TrainingHistoryDisplay).plot(ax)
    assert ax.get_xticks().tolist() == [1, 2]

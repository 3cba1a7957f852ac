"""Teacher reports as HTML and as a plot."""

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest

from sklearn_dialpref import teacher_report
from sklearn_dialpref.datasets import load_support_chats

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)> & "quotes"',
    "$5 refund $",
    "a name that somebody has written as a sentence, with many words, that does not end",
    "x" * 300,
    "\u202eright to left\u202c",
    "مرحبا بالعالم",
]


@pytest.fixture(scope="module")
def report():
    data = load_support_chats(n_human=300)
    return teacher_report(data.X, data.y_human, data.y_llm, random_state=0)


@pytest.fixture(scope="module")
def hostile():
    """A report on classes with hostile and long names, and on votes."""
    names = HOSTILE + [f"intent {number} about parcels" for number in range(13)]
    rng = np.random.default_rng(0)
    truth = rng.integers(len(names), size=200)
    drawn = rng.integers(len(names), size=(200, 5))
    votes = np.where(rng.random((200, 5)) < 0.6, truth[:, None], drawn)
    X = [[f"d{row // 10}", "text"] for row in range(200)]
    label = np.array(names, dtype=object)
    return teacher_report(X, label[truth], label[votes], random_state=0)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


class Reader(HTMLParser):
    """The tags of a page, and the text of its cells and items."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.cells, self.inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = tag in ("td", "th", "li") or (self.inside and tag == "span")
        if tag in ("td", "th", "li"):
            self.cells.append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag == "span"

    def handle_data(self, data):
        if self.inside:
            self.cells[-1] += data


# -- HTML -----------------------------------------------------------------------------------


def test_the_html_holds_the_figures_their_intervals_and_the_advice(report):
    cells = Reader(report._repr_html_()).cells
    assert cells[: len(report.advice)] == list(report.advice)
    start = cells.index("Accuracy")
    low, high = report.accuracy_interval
    assert cells[start + 1 : start + 3] == [f"{report.accuracy:.2f}", f"{low:.2f} to {high:.2f}"]
    for name in ("Macro-F1", "Calibration error", "Pairs inside dialogues", "Vote agreement"):
        assert name in cells
    for place, name in enumerate(report.classes):
        start = cells.index(name)
        assert cells[start + 1 : start + 4] == [
            f"{report.teacher_share[place]:.2f}",
            f"{report.human_share[place]:.2f}",
            f"{report.class_bias[place]:+.2f}",
        ]


def test_only_biases_whose_interval_excludes_0_are_marked(report):
    marked = re.findall(r'class="off">([^<]*)<', report._repr_html_())
    low, high = report.class_bias_interval.T
    shown = [f"{bias:+.2f}" for bias in report.class_bias[(low > 0) | (high < 0)]]
    assert marked == shown
    assert shown
    unsure = replace(report, class_bias_interval=np.array([[-1.0, 1.0]] * len(low)))
    assert 'class="off"' not in unsure._repr_html_()


def test_class_names_and_advice_are_escaped(hostile):
    page = replace(hostile, advice=("<b>do</b> & rest",))._repr_html_()
    reader = Reader(page)
    assert not {"script", "img", "b"} & set(reader.tags)
    for name in HOSTILE:
        assert name in reader.cells
    assert "<b>do</b> & rest" in reader.cells


def test_figures_that_the_data_cannot_give_are_dashes():
    report = teacher_report(["a", "b"], ["x", "y"], [[0.9, 0.1], [0.8, 0.2]], random_state=0)
    cells = Reader(report._repr_html_()).cells
    assert cells[cells.index("Pairs inside dialogues") + 1] == "–"
    assert not any("nan" in cell for cell in cells)
    assert "Vote agreement" not in cells


def test_no_figure_is_minus_zero(report):
    page = replace(report, overconfidence=-0.001)._repr_html_()
    assert "+0.00" in page
    assert "-0.00" not in page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_is_never_wider_than_its_place(hostile, browser, width, dark):
    colours = "background:#111;color:#eee" if dark else ""
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.set_content(f"<body style='{colours}'>{hostile._repr_html_()}</body>")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.evaluate(
        "[...document.querySelectorAll('.dialpref-report .wide')]"
        ".map(e => [e.scrollWidth, e.clientWidth])"
    )
    assert any(inner > outer for inner, outer in boxes) == (width == 390)
    text = page.evaluate("getComputedStyle(document.querySelector('td')).color")
    assert text == ("rgb(238, 238, 238)" if dark else "rgb(0, 0, 0)")
    page.close()


# -- plot -----------------------------------------------------------------------------------


def test_panels(report):
    display = report.plot()
    assert set(display.axes_) == {"figures", "reliability", "votes", "shares", "bias"}
    assert display.figure_ is plt.gcf()
    curve = display.axes_["reliability"].lines[1]
    full = report.reliability_count > 0
    np.testing.assert_allclose(curve.get_xdata(), report.reliability_confidence[full])
    np.testing.assert_allclose(curve.get_ydata(), report.reliability_accuracy[full])
    humans, teacher = display.axes_["shares"].lines
    np.testing.assert_allclose(humans.get_xdata(), report.human_share)
    np.testing.assert_allclose(teacher.get_xdata(), report.teacher_share)
    intervals = [line.get_xdata() for line in display.axes_["bias"].lines[:-1:2]]
    np.testing.assert_allclose(intervals, report.class_bias_interval)


def test_votes_have_a_panel_where_there_are_votes(hostile):
    line = hostile.plot().axes_["votes"].lines[0]
    np.testing.assert_allclose(line.get_ydata(), hostile.vote_level_accuracy)
    scores = teacher_report(["a", "b"], ["x", "y"], [[0.9, 0.1], [0.8, 0.2]], random_state=0)
    assert "votes" not in scores.plot().axes_


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
@pytest.mark.parametrize("name", ["report", "hostile"])
def test_nothing_overlaps_or_is_clipped(name, request):
    display = request.getfixturevalue(name).plot()
    figure = display.figure_
    figure.canvas.draw()
    box = figure.get_tightbbox()  # of all that is drawn, in inches
    width, height = figure.get_size_inches()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= width
    assert box.y1 <= height
    labels = [tick.get_window_extent() for tick in display.axes_["shares"].get_yticklabels()]
    assert not any(upper.overlaps(lower) for upper, lower in pairwise(labels))


def test_long_names_are_cut_and_dollars_are_no_formulas(hostile):
    ticks = hostile.plot().axes_["shares"].get_yticklabels()
    assert not any(tick.get_parse_math() for tick in ticks)
    labels = [tick.get_text() for tick in ticks]
    assert "$5 refund $" in labels
    assert max(label.count("\n") for label in labels) == 2
    assert any(label.endswith("…") for label in labels)


def test_multilabel_and_a_single_dialogue_can_be_drawn():
    rng = np.random.default_rng(0)
    report = teacher_report(["t"] * 40, rng.integers(2, size=(40, 2)), rng.random((40, 2)))
    assert len(report.plot().axes_["bias"].lines) == 5
    one = teacher_report([["a", "b"]] * 3, ["x", "y", "x"], ["x", "x", "x"])
    one.plot().figure_.canvas.draw()
    one._repr_html_()


def test_without_matplotlib_the_error_names_the_extra(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"sklearn-dialpref\[plot\]"):
        report.plot()

"""The HTML representation of the classifier in notebooks."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref.datasets import make_dialogues

# earlier versions of scikit-learn show nothing of what estimators inside of others have learned
INSIDE = hasattr(BaseEstimator, "_get_fitted_attr_html")
HOSTILE = ["<script>alert(1)</script>", "a & b", '" onload="x', "x" * 90, "投诉", "e", "f"]


class Reader(HTMLParser):
    """The tags of a page, and the text of its cells."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.cells, self.inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = tag == "td"
        if self.inside:
            self.cells.append("")

    def handle_data(self, data):
        if self.inside:
            self.cells[-1] += data.strip()


def summary_of(page):
    part = re.search(r'<div class="estimator-table dialpref-summary">.*?</details>', page, re.S)
    cells = Reader(part.group()).cells
    return dict(zip(cells[::2], cells[1::2], strict=True))


@pytest.fixture(scope="module")
def hostile():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(70, 3)), np.array(HOSTILE * 10, dtype=object)
    return DialoguePreferenceClassifier("precomputed", max_epochs=1, random_state=0).fit(X, y)


def test_what_was_learned(classifier, chats):
    summary = summary_of(classifier._repr_html_())
    assert summary["Classes"] == f"{len(classifier.classes_)}: " + ", ".join(classifier.classes_)
    assert summary["Encoder"] == (
        f"{classifier.encoder}; all layers kept, none trained; pooling: layers"
    )
    counts = classifier.data_summary_
    assert summary["Trained on"].startswith(
        f"{counts['with a human label']} human and {counts['with an LLM label']} LLM labels"
    )
    assert summary["Human labels"] == (
        f"weight {classifier.human_weight_:.2f} (human_weight_), "
        f"temperature {classifier.temperature_:.2f}"
    )


@pytest.mark.parametrize(
    ("status", "gain", "words"),
    [
        ("absent", None, "no LLM labels"),
        ("used", None, "used as they are"),
        (
            "corrected",
            0.061,
            "used, with their bias towards some classes corrected "
            "(correction: +6.1 points of accuracy on held-out dialogues)",
        ),
        ("left out", None, "left out, as they say nothing about the human ones"),
        (None, None, "not known, as an earlier version saved it"),
    ],
)
def test_how_the_teacher_was_used(hostile, monkeypatch, status, gain, words):
    monkeypatch.setattr(hostile, "teacher_status_", status)
    monkeypatch.setattr(hostile, "teacher_bias_gain_", gain)
    assert summary_of(hostile._repr_html_())["LLM's labels"] == words


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"encoder_layers": 1}, "first 1 layers kept, none trained"),
        ({"trainable_layers": None}, "all layers kept, all trained"),
        ({"trainable_layers": 1}, "all layers kept, top 1 trained"),
    ],
)
def test_layers(classifier, layers, words):
    other = clone(classifier).set_params(**layers)
    other.__dict__ |= {k: v for k, v in vars(classifier).items() if k.endswith("_")}
    assert words in summary_of(other._repr_html_())["Encoder"]


def test_class_names_are_escaped_cut_and_counted(hostile):
    page = hostile._repr_html_()
    assert "<script>alert" not in page
    classes = summary_of(page)["Classes"]
    assert classes.startswith("7: ")
    assert "<script>alert(1)</script>" in classes
    assert classes.endswith("and 2 more")
    assert "x" * 41 not in classes
    assert summary_of(page)["Encoder"] == "precomputed features, 3 columns"


def test_notebooks_get_the_same(hostile):
    page = hostile._repr_mimebundle_()["text/html"]
    assert page.count("What was learned") == 1
    assert hostile._repr_html_().count("What was learned") == 1


def test_several_labels():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)), rng.integers(2, size=(40, 2))
    clf = DialoguePreferenceClassifier("precomputed", max_epochs=1, random_state=0).fit(X, y)
    assert summary_of(clf._repr_html_())["Labels to predict"] == "2: 0, 1"


def test_unfitted_ones_show_parameters_only():
    page = DialoguePreferenceClassifier()._repr_html_()
    assert "What was learned" not in page
    assert "DialoguePreferenceClassifier" in page


def test_loaded_ones_show_what_was_saved(hostile, tmp_path):
    hostile.save(tmp_path / "clf")
    loaded = DialoguePreferenceClassifier.load(tmp_path / "clf")
    assert summary_of(loaded._repr_html_()) == summary_of(hostile._repr_html_())


def test_inside_pipelines_and_searches():
    data = make_dialogues(n_dialogues=12, n_features=3, random_state=0)
    clf = DialoguePreferenceClassifier("precomputed", max_epochs=1, random_state=0)
    pipe = make_pipeline("passthrough", clf)
    search = GridSearchCV(pipe, {"dialoguepreferenceclassifier__margin_scale": [1.0]}, cv=2)
    assert "What was learned" not in search._repr_html_()
    y = data.y_true
    for outer in (pipe.fit(data.X, y), search.fit(data.X, y)):
        page = outer._repr_html_()
        assert page.count("What was learned") == INSIDE
        assert "DialoguePreferenceClassifier" in page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(hostile, browser, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    page.set_content(f"<body>{hostile._repr_html_()}</body>")
    table = page.locator(".dialpref-summary table")
    assert table.is_visible()
    box = table.bounding_box()
    assert box["x"] + box["width"] <= width
    assert not errors
    page.close()


def test_it_survives_a_failed_refit():
    data = make_dialogues(n_dialogues=20, n_features=8, random_state=0)
    clf = DialoguePreferenceClassifier("precomputed", max_epochs=1, random_state=0)
    clf.fit(data.X, data.y_true)
    broken = data.X.copy()
    broken.loc[0, "x0"] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        clf.fit(broken, data.y_true)
    assert "precomputed features" in clf._repr_html_()

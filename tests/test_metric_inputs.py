"""Labels, classes, scores and groups that metrics could misread."""

from enum import Enum

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from sklearn_dialpref.metrics import (
    expected_calibration_error,
    masked_scorer,
    pairwise_accuracy_score,
)


class Mood(str, Enum):  # noqa: UP042 - StrEnum has no such trap
    """Labels whose values are longer or shorter than their names."""

    BAD = "b"
    FINE = "perfectly fine"


def test_members_of_an_enum_are_their_values():
    y = [Mood.BAD, Mood.FINE, None]
    proba = [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]
    assert expected_calibration_error(y, proba) == pytest.approx(0.15)
    assert pairwise_accuracy_score(y, proba, [0, 0, 0], classes=["b", "perfectly fine"]) == 1
    X, partial = np.arange(6.0)[:, None], np.array([*y, *y], dtype=object)
    clf = LogisticRegression().fit(X[[0, 1]], ["b", "perfectly fine"])
    assert masked_scorer("accuracy")(clf, X, partial) == 0.75


def test_scores_in_a_frame_are_named_by_its_columns():
    y, groups = ["a", "b", None], [0, 0, 0]
    table = [[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]]
    pandas = pd.DataFrame(table, columns=["b", "a"])
    for frame in (pandas, pl.from_pandas(pandas)):
        assert pairwise_accuracy_score(y, frame, groups) == 1
        assert expected_calibration_error(y, frame) == pytest.approx(0.15)
        assert pairwise_accuracy_score(y, frame, groups, classes=["a", "b"]) == 0
    # numbers name no classes: the sorted labels do
    assert pairwise_accuracy_score(y, pd.DataFrame(table), groups) == 0


@pytest.mark.parametrize(
    ("changed", "gist"),
    [
        ({"classes": ["a", "a"]}, "classes must differ"),
        ({"classes": ["a", None]}, "classes must be a list of the class names"),
        ({"classes": [["a", "b"]]}, "classes must be a list of the class names"),
        ({"y_true": ["a", 1]}, r"labels of the types \['int', 'str'\]"),
        ({"y_true": [{"a": 1}, {"b": 2}]}, r"labels of the types \['dict'\]"),
        ({"y_true": [{"a": 1}, "b"], "classes": ["a", "b"]}, r"of the types \['dict', 'str'\]"),
        ({"y_score": np.empty((2, 0))}, r"0 feature.*shape=\(2, 0\)"),
        ({"y_true": [], "y_score": np.empty((0, 2))}, "0 sample"),
    ],
)
def test_labels_and_classes_that_are_refused(changed, gist):
    good = {"y_true": ["a", "b"], "y_score": [[0.7, 0.3], [0.2, 0.8]], "classes": None}
    y_true, y_score, classes = {**good, **changed}.values()
    with pytest.raises(ValueError, match=gist):
        pairwise_accuracy_score(y_true, y_score, np.zeros(len(y_true)), classes=classes)
    with pytest.raises(ValueError, match=gist):
        expected_calibration_error(y_true, y_score, classes=classes)


@pytest.mark.parametrize(
    ("changed", "gist"),
    [
        ({"groups": [[0, 0], [0, 0]]}, r"groups must hold the dialogue.*\(2, 2\)"),
        ({"groups": [{"a": 1}, {"a": 1}]}, "groups must hold ids that can be compared"),
        ({"y_true": np.zeros((2, 2, 1))}, r"y_true must be of shape"),
        ({"y_true": np.eye(2), "y_score": [0.1, 0.9]}, "y_score is 1-D; pass a score for each"),
    ],
)
def test_groups_and_tables_that_are_refused(changed, gist):
    good = {"y_true": ["a", "b"], "y_score": np.eye(2), "groups": [0, 0]}
    with pytest.raises(ValueError, match=gist):
        pairwise_accuracy_score(**{**good, **changed})


def test_bins_that_no_memory_holds():
    with pytest.raises(ValueError, match="n_bins == 1000000000000"):
        expected_calibration_error(["a", "b"], np.eye(2), n_bins=10**12)

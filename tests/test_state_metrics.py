"""Metrics of dialogue states: what they count, and what they refuse."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning

from sklearn_dialpref import joint_goal_accuracy_score, slot_f1_score

NORTH, SOUTH = {"area": "north"}, {"area": "south"}


def test_joint_goal_accuracy_by_hand():
    y_true = [NORTH, {**NORTH, "stars": "4"}, None, {}, {**NORTH, "time": {"5", "five"}}]
    y_pred = [NORTH, {**NORTH, "stars": "5"}, {}, {}, {**NORTH, "time": "five"}]
    assert joint_goal_accuracy_score(y_true, y_pred) == 3 / 4
    assert joint_goal_accuracy_score(y_true, y_pred, slots=["area"]) == 1.0
    weight = [1, 2, 9, 1, 0]
    assert joint_goal_accuracy_score(iter(y_true), y_pred, sample_weight=weight) == 2 / 4
    assert joint_goal_accuracy_score([NORTH], [{}]) == 0.0
    assert joint_goal_accuracy_score([{}], [NORTH]) == 0.0


def test_slot_f1_by_hand():
    y_true = [NORTH, {**NORTH, "stars": "4"}, None, {}]
    y_pred = [NORTH, {**SOUTH, "time": "5"}, NORTH, NORTH]
    # area: 1 right of 3 predicted and 2 true; stars: 1 true; time: 1 predicted
    each = slot_f1_score(y_true, y_pred, average=None)
    assert each == {"area": 2 / 5, "stars": 0.0, "time": 0.0}
    assert slot_f1_score(y_true, y_pred, average="macro") == pytest.approx(2 / 15)
    assert slot_f1_score(y_true, y_pred) == pytest.approx(2 / 7)
    assert slot_f1_score(y_true, y_pred, slots=["area", "mood"], average=None) == {
        "area": 2 / 5,
        "mood": 0.0,
    }
    with pytest.warns(UndefinedMetricWarning, match="slot_f1_score is 0 where neither"):
        assert slot_f1_score([{}], [{}]) == 0.0


def test_scores_of_slots_without_a_value_warn():
    y = [NORTH, {}]
    with pytest.warns(UndefinedMetricWarning, match="mood"):
        assert slot_f1_score(y, y, slots=["mood", "area"], average="macro") == 0.5
    with pytest.warns(UndefinedMetricWarning, match="joint_goal_accuracy_score is 1.*mood"):
        assert joint_goal_accuracy_score(y, y, slots=["mood"]) == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", UndefinedMetricWarning)
        assert slot_f1_score(y, y, slots=["mood", "area"]) == 1.0
        assert joint_goal_accuracy_score([{}], [{}]) == 1.0


@pytest.mark.parametrize("score", [joint_goal_accuracy_score, slot_f1_score])
def test_slots_of_metrics(score):
    y = [NORTH, {**NORTH, "stars": "4"}]
    assert score(y, [NORTH, NORTH], slots={"area": None}) == 1.0
    with pytest.raises(TypeError, match="slots must be a collection of slot names, got 'area'"):
        score(y, y, slots="area")
    with pytest.raises(TypeError, match="slots must be a collection"):
        score(y, y, slots=iter(["area"]))
    with pytest.raises(TypeError, match="slots must be a collection"):
        score(y, y, slots=np.array("area"))
    with pytest.raises(ValueError, match="slots is empty"):
        score(y, y, slots=[])
    with pytest.raises(TypeError, match=r"holds \['area'\]"):
        score(y, y, slots=[["area"]])


@pytest.mark.parametrize("score", [joint_goal_accuracy_score, slot_f1_score])
def test_a_prediction_is_one_value(score):
    y = [{"stars": ["4", "four"]}]
    assert score(y, [{"stars": ["four"]}]) == score(y, [{"stars": np.array(["4"])}]) == 1.0
    with pytest.raises(ValueError, match=r"y_pred, row 0, slot 'stars': 2 values.*one value"):
        score(y, y)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([0, 0, 5], "sample_weight is 0 on all"),
        ([1, -1, 1], "must not be negative"),
        ([1, np.nan, 1], "NaN"),
        ([1, np.inf, 1], "infinity"),
        ([1e308, 1e308, 1], "too large"),
        ([1, 1], "for each of the 3"),
        ([[1, 1, 1]], "for each of the 3"),
    ],
)
def test_weights_that_are_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        joint_goal_accuracy_score([NORTH, SOUTH, None], [NORTH] * 3, sample_weight=weight)


@pytest.mark.parametrize("score", [joint_goal_accuracy_score, slot_f1_score])
def test_metrics_refuse(score):
    with pytest.raises(ValueError, match="all are missing in 1 rows; label some"):
        score([None], [NORTH])
    with pytest.raises(ValueError, match="y_true holds no state"):
        score([], [])
    with pytest.raises(ValueError, match="one state"):
        score([[NORTH, NORTH]], [NORTH])
    with pytest.raises(TypeError, match="row 1 holds None"):
        score([NORTH, NORTH], [NORTH, None])
    with pytest.raises(TypeError, match="y_true must hold dicts"):
        score(["north"], [NORTH])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        score([NORTH, NORTH], [NORTH])


def test_slot_f1_refuses_other_averages():
    with pytest.raises(ValueError, match="average must be"):
        slot_f1_score([NORTH], [NORTH], average="weighted")

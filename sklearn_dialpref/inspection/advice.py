"""What the figures of a teacher report say to do, by fixed rules."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from .label_budget import LabelBudgetCurve
from .report import TeacherReport, span

__all__ = ["advice"]

# Fewer doubly labelled rows or dialogues than this: intervals over dialogues are rough.
MIN_ROWS = 50
MIN_DIALOGUES = 10
# An interval of the accuracy wider than this leaves most questions open.
WIDE_INTERVAL = 0.2
# Scores of a class this far above or below its human share, the interval without 0.
CLASS_BIAS = 0.05
# Share of the score errors' variance that lies between dialogues.
DIALOGUE_ICC = 0.05
# Of the test for dialogue bias, and of that for a step of the label-budget curve.
LEVEL = 0.05
# Mean top score above the share right by this much, the interval without 0.
OVERCONFIDENCE = 0.05
# Correlation of two votes given the human label.
VOTE_CORRELATION = 0.5


def advice(report: TeacherReport, curve: LabelBudgetCurve | None) -> tuple[str, ...]:
    """The sentences whose rules apply to the report, each with its figure."""
    sentences = _enough(report) + _teacher(report) + _class_bias(report) + _dialogue_bias(report)
    sentences += _pairs(report) + _calibration(report) + _votes(report)
    if curve is None:
        sentences.append(
            "What more labels would bring is not measured: run label_budget_curve(estimator, X, "
            "y_human, y_llm, budgets=[0.25, 0.5, 1]) and pass it as budget_curve."
        )
    else:
        sentences += _budget(curve, "human", "human") + _budget(curve, "llm", "LLM")
    return tuple(sentences)


def _excludes_0(interval: NDArray[np.float64]) -> bool:
    return bool(interval[0] > 0 or interval[1] < 0)


def _enough(report: TeacherReport) -> list[str]:
    if report.n_dialogues < 2:
        return [
            f"All {report.n_rows} doubly labelled rows stand in one dialogue: there are no "
            "intervals. Label utterances of other dialogues by hand."
        ]
    width = float(np.diff(report.accuracy_interval)[0])
    if report.n_rows < MIN_ROWS or report.n_dialogues < MIN_DIALOGUES:
        return [
            f"Only {report.n_rows} rows of {report.n_dialogues} dialogues carry both labels, and "
            f"the intervals are rough: label more dialogues by hand (at least {MIN_ROWS} rows of "
            f"{MIN_DIALOGUES} dialogues) before you act on this report."
        ]
    if width > WIDE_INTERVAL:
        return [
            f"The interval of the accuracy is {width:.2f} wide "
            f"({span(report.accuracy_interval)}): label more dialogues by hand."
        ]
    return []


def _teacher(report: TeacherReport) -> list[str]:
    low, high = report.accuracy_gain_interval
    gain = (
        f"({report.accuracy:.2f} against {report.majority_accuracy:.2f}; difference "
        f"{span(report.accuracy_gain_interval, '+')})"
    )
    if high < 0:
        return [
            f"The teacher is worse than always answering the most frequent class {gain}: change "
            "its prompt or its model before you train on it."
        ]
    if low <= 0:
        return [
            f"The teacher is not shown to be better than always answering the most frequent class "
            f"{gain}."
        ]
    return []


def _class_bias(report: TeacherReport) -> list[str]:
    sentences = []
    for column in np.argsort(-np.abs(report.class_bias), kind="stable"):
        bias, interval = report.class_bias[column], report.class_bias_interval[column]
        if not (abs(bias) > CLASS_BIAS and _excludes_0(interval)):
            continue
        word = "often" if bias > 0 else "rarely"
        sentences.append(
            f"The teacher gives {report.classes[column]} too {word}: "
            f"{report.teacher_share[column]:.2f} "
            f"of its scores, {report.human_share[column]:.2f} of the human labels "
            f"({bias:+.2f}, {span(interval, '+')})."
        )
    if sentences:
        sentences[-1] += (
            " Label more utterances of these classes by hand: the student corrects a grave bias "
            "as far as human labels show it."
        )
    return sentences


def _dialogue_bias(report: TeacherReport) -> list[str]:
    p, icc = report.dialogue_bias_pvalue, report.dialogue_icc
    if np.isnan(p):
        return [
            "Whether the teacher is biased through whole dialogues cannot be said: that takes "
            "several doubly labelled dialogues with several rows, and scores that err."
        ]
    figures = f"({icc:.2f} of the variance of its errors lies between dialogues, p = {p:.3f})"
    if p <= LEVEL and icc >= DIALOGUE_ICC:
        return [
            f"The teacher's errors stay alike through a dialogue {figures}: pairs inside a "
            "dialogue cancel that part."
        ]
    if p <= LEVEL:
        return [
            f"The teacher's errors are a little alike inside a dialogue {figures}: pairs have "
            "little of it to cancel."
        ]
    return [
        f"No bias through whole dialogues is shown {figures}: pairs inside a dialogue have none "
        "to cancel as far as these rows can tell."
    ]


def _pairs(report: TeacherReport) -> list[str]:
    interval = report.pair_accuracy_difference_interval
    if not _excludes_0(interval):
        return []
    better, worse = ("inside", "across")
    if report.pair_accuracy_difference < 0:
        better, worse = worse, better
    return [
        f"The teacher orders pairs {better} dialogues more reliably than {worse} them "
        f"({report.pair_accuracy_inside:.2f} inside, {report.pair_accuracy_across:.2f} across; "
        f"difference {span(interval, '+')})."
    ]


def _calibration(report: TeacherReport) -> list[str]:
    over, interval = report.overconfidence, report.overconfidence_interval
    if abs(over) <= OVERCONFIDENCE or not _excludes_0(interval):
        return []
    figures = f"by {abs(over):.2f} ({span(interval, '+')})"
    if over > 0:
        return [
            f"The scores are overconfident: the mean top score exceeds the accuracy {figures}. "
            "A loss that takes the scores or the size of their gaps at their word learns that too."
        ]
    return [f"The scores are underconfident: the mean top score is below the accuracy {figures}."]


def _votes(report: TeacherReport) -> list[str]:
    correlation = report.vote_correlation
    if not correlation > VOTE_CORRELATION:  # also NaN
        return []
    return [
        f"The votes are far from independent: given the human label they still correlate by "
        f"{correlation:.2f}, so that {report.votes_per_row:.1f} votes are worth about "
        f"{report.effective_votes:.1f}. Other prompts or models bring more than further votes "
        "of this kind."
    ]


def _budget(curve: LabelBudgetCurve, source: str, name: str) -> list[str]:
    points = np.flatnonzero(curve.source == source)
    before, last = points[np.argsort(curve.share[points])][-2:]
    step = curve.scores[last] - curve.scores[before]
    counts = (curve.n_human if source == "human" else curve.n_llm)[[before, last]]
    if len(step) < 2:
        return []
    # corrected for training rows that folds share (Nadeau and Bengio, Machine Learning 52, 2003)
    k = len(step)
    error = float(step.std(ddof=1) * np.sqrt(1 / k + 1 / (k - 1)))
    change = (
        f"From {counts[0]:.0f} to {counts[1]:.0f} {name} labels the student's score changed by "
        f"{step.mean():+.3f} (standard error {error:.3f} over {k} folds): "
    )
    if step.mean() > stdtrit(k - 1, 1 - LEVEL / 2) * error:
        return [f"{change}it still rises, and more {name} labels should help."]
    return [f"{change}no gain from more {name} labels is shown."]

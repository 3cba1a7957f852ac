"""Which of a student's answers are passed on: as many as may be, or as few as will do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from .bounds import last_passing
from .combining import (
    Combination,
    answers_of_others,
    asked_classes,
    expected_gain,
    fit_combination,
)

__all__ = ["Evidence", "Rule", "rule_for_accuracy", "rule_for_share"]

Scores = NDArray[np.float64]
Codes = NDArray[np.int64]
Outcome = tuple[NDArray[np.bool_], Codes]

STEPS = 20  # shares of the rows that are tried for a promise
LEAST_ANSWERED = 0.2  # share of the rows, from which on one is tried without a teacher
LEAST_GAIN = 0.02  # of accuracy: one row more right among fifty that are asked about


@dataclass(frozen=True)
class Evidence:
    """What is known of the rows with a human label.

    Attributes
    ----------
    student : ndarray of shape (n, K)
        Probabilities of a student that has not seen the dialogue.
    teacher : ndarray of shape (n, K), or None
        Scores, NaN where it gave no answer; None without a teacher.
    y : ndarray of int, shape (n,)
        Position of the human label among the classes.
    groups : ndarray of int, shape (n,)
        Dialogue of each row.
    """

    student: Scores
    teacher: Scores | None
    y: Codes
    groups: Codes


@dataclass(frozen=True)
class Rule:
    """Which of a student's answers are passed on.

    Attributes
    ----------
    asks : ndarray of bool, shape (K,)
        Classes of which an answer may be.
    combination : Combination or None
        What asking is expected to gain; None without a teacher.
    threshold : float
        Above which it is: the expected gain or, without a teacher, the probability of an error.
    """

    asks: NDArray[np.bool_]
    combination: Combination | None
    threshold: float

    def escalates(self, student: Scores) -> NDArray[np.bool_]:
        """Whether each of the student's answers is passed on."""
        return np.asarray(self.need(student) > self.threshold)

    def need(self, student: Scores) -> Scores:
        """What is compared with the threshold."""
        if self.combination is None:
            return np.asarray(1 - student.max(axis=1))
        asks = self.asks[student.argmax(axis=1)]
        return np.where(asks, expected_gain(student, self.combination), 0.0)


def rule_for_share(seen: Evidence, student: Scores, share: float) -> Rule:
    """The rule that passes on at most this share of the rows.

    Parameters
    ----------
    seen : Evidence
    student : ndarray of shape (m, K)
        Probabilities of all rows, labelled or not.
    share : float

    Returns
    -------
    Rule
    """
    rule = _plain_rule(seen, _held_out(seen))
    if share == 1:
        return rule
    if share == 0:
        return Rule(rule.asks, rule.combination, np.inf)
    threshold = float(np.quantile(rule.need(student), 1 - share, method="higher"))
    return Rule(rule.asks, rule.combination, max(rule.threshold, threshold))


def rule_for_accuracy(seen: Evidence, target: float, confidence: float) -> tuple[Rule, Bunch]:
    """The rule that passes on as few rows as keep the accuracy, and what is promised of it.

    Where no rule is shown to keep it, a UserWarning says so, and the safest one is returned.

    Parameters
    ----------
    seen : Evidence
    target, confidence : float

    Returns
    -------
    rule : Rule
    promise : Bunch
        As :class:`EscalatingClassifier` has it as ``promise_``.
    """
    held_out = _held_out(seen)
    rule = _plain_rule(seen, held_out)
    thresholds, outcome = _steps(seen, held_out, rule)
    steps = (outcome(threshold) for threshold in thresholds)
    step, bound = last_passing(steps, target, confidence)
    threshold = thresholds[step or 0]
    right, groups = outcome(threshold)
    promise = Bunch(
        kept=step is not None,
        bound=bound,
        accuracy=float(right.mean()) if len(right) else np.nan,
        n_labels=len(right),
        n_dialogues=len(np.unique(groups)),
    )
    if step is None:
        _warn_of_no_promise(promise, target, confidence)
    return Rule(rule.asks, rule.combination, threshold), promise


def _held_out(seen: Evidence) -> tuple[Codes, Scores]:
    """Classes after asking and expected gains, learned from other dialogues."""
    if seen.teacher is None:
        return seen.student.argmax(axis=1), np.zeros(len(seen.y))
    return answers_of_others(seen.student, seen.teacher, seen.y, seen.groups)


def _plain_rule(seen: Evidence, held_out: tuple[Codes, Scores]) -> Rule:
    """The rule that passes on all that is worth it."""
    n_classes = seen.student.shape[1]
    if seen.teacher is None:
        return Rule(np.ones(n_classes, dtype=bool), None, 0.0)
    answers, gain = held_out
    own, asked = seen.student.argmax(axis=1), gain > LEAST_GAIN
    gained = (answers == seen.y).astype(float) - (own == seen.y)
    asks = asked_classes(gained[asked], own[asked], n_classes)
    combination = fit_combination(seen.student, seen.teacher, seen.y, seen.groups)
    return Rule(asks, combination, LEAST_GAIN)


def _steps(
    seen: Evidence, held_out: tuple[Codes, Scores], rule: Rule
) -> tuple[list[float], Callable[[float], Outcome]]:
    """Thresholds from the safest on, and which answers are right at each."""
    own, y, groups = seen.student.argmax(axis=1), seen.y, seen.groups
    if seen.teacher is None:
        doubt = rule.need(seen.student)

        def of_answered(level: float) -> Outcome:
            return (own == y)[doubt <= level], groups[doubt <= level]

        return _quantiles(doubt, LEAST_ANSWERED), of_answered
    answers, gain = held_out[0], np.where(rule.asks[own], held_out[1], 0.0)

    def of_all(level: float) -> Outcome:
        return np.where(gain > level, answers, own) == y, groups

    return [LEAST_GAIN, *_quantiles(gain[gain > LEAST_GAIN]), np.inf], of_all


def _quantiles(values: Scores, least: float = 0.0) -> list[float]:
    """Values that equal shares of the rows lie between, each once, in rising order."""
    if not len(values):
        return []
    shares = np.linspace(least, 1, round((1 - least) * STEPS) + 1)
    return list(np.unique(np.quantile(values, shares, method="higher")).tolist())


def _warn_of_no_promise(promise: Bunch, target: float, confidence: float) -> None:
    warnings.warn(
        f"target_accuracy={target} is not promised: {promise.accuracy:.3f} of {promise.n_labels} "
        f"human labels in {promise.n_dialogues} dialogues are met, which shows with confidence "
        f"{confidence} that the accuracy is {promise.bound:.3f} or more; the safest threshold is "
        "used. Label more dialogues, or lower target_accuracy",
        UserWarning,
        stacklevel=4,
    )

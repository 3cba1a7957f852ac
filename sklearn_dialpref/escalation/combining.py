"""One answer of a student's and a teacher's, and what asking the teacher is expected to gain.

The teacher is described by how often it names each class where people name another. By Bayes'
rule, that turns the student's probabilities into those after the teacher's answer; and before it
is asked, into how likely its answers are, and which would change the student's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.model_selection import GroupKFold

__all__ = [
    "Combination",
    "answers_of_others",
    "asked_classes",
    "combine",
    "expected_gain",
    "fit_combination",
    "with_answers",
]

Scores = NDArray[np.float64]
Codes = NDArray[np.int64]

LEAST = 1e-3  # a probability: nobody is surer than that that a class is not it
PRIOR_ROWS = 5.0  # that the classes have in common, beside the labelled rows of each
PENALTY = 0.1  # on squared differences of the weights from 1, as a share of a nat per row
MOST_WEIGHT = 5.0
FOLDS = 10


@dataclass(frozen=True)
class Combination:
    """How the answers of a student and of a teacher become one.

    Attributes
    ----------
    likelihood : ndarray of shape (K, K)
        Probability that the teacher names the class of the column where people name that of the
        row.
    student_weight, teacher_weight : float
        Exponents of the student's probabilities and of the likelihood.
    """

    likelihood: Scores
    student_weight: float = 1.0
    teacher_weight: float = 1.0


def fit_combination(student: Scores, teacher: Scores, y: Codes, groups: Codes) -> Combination:
    """The combination of the least log-loss, shrunk towards one teacher for all classes.

    Parameters
    ----------
    student : ndarray of shape (n, K)
        Probabilities of a student that has not seen the rows.
    teacher : ndarray of shape (n, K)
        Scores; NaN where the teacher gave no answer.
    y : ndarray of int, shape (n,)
        Position of the human label among the classes.
    groups : ndarray of int, shape (n,)
        Dialogue of each row; the weights are fitted with the likelihood of other dialogues.

    Returns
    -------
    Combination
    """
    answered = ~np.isnan(teacher[:, 0])
    student, teacher, y, groups = (
        student[answered],
        teacher[answered],
        y[answered],
        groups[answered],
    )
    likelihood = _likelihood(teacher, y)
    if len(np.unique(groups)) < 2:
        return Combination(likelihood)
    evidence = np.empty_like(student)
    for train, test in _folds(groups):
        evidence[test] = _log_evidence(teacher[test], _likelihood(teacher[train], y[train]))
    return Combination(likelihood, *_fit_weights(_log(student), evidence, y))


def _likelihood(teacher: Scores, y: Codes) -> Scores:
    """Shares of the teacher's answers by human class, with prior rows of an overall teacher.

    The overall teacher is right in as many rows, whatever the class, and otherwise names classes
    as often as the teacher does.
    """
    n_classes = teacher.shape[1]
    named = (teacher.sum(axis=0) + 1) / (len(teacher) + n_classes)
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, y, teacher)
    share_right = (np.trace(counts) + 1) / (len(y) + 2)
    by_chance = float(counts.sum(axis=1) @ named) / max(len(y), 1)
    knows = max((share_right - by_chance) / (1 - by_chance), 0.0)
    overall = knows * np.eye(n_classes) + (1 - knows) * named
    rows = counts.sum(axis=1, keepdims=True)
    return np.asarray((counts + PRIOR_ROWS * overall) / (rows + PRIOR_ROWS))


def _log(proba: Scores) -> Scores:
    return np.log(np.maximum(proba, LEAST))


def _log_evidence(teacher: Scores, likelihood: Scores) -> Scores:
    """Logarithm of the likelihood of each class, the mean over answers where several are."""
    return np.asarray(teacher @ np.log(likelihood).T)


def _fit_weights(student: Scores, evidence: Scores, y: Codes) -> Scores:
    """Weights of the two logarithms, by log-loss with a ridge towards 1."""
    rows, logs = np.arange(len(y)), np.stack([student, evidence])

    def objective(weights: Scores) -> tuple[float, Scores]:
        log_proba = log_softmax(np.tensordot(weights, logs, 1), axis=1)
        error = np.exp(log_proba)
        error[rows, y] -= 1
        gradient = (error * logs).sum(axis=(1, 2)) / len(y)
        ridge = PENALTY * ((weights - 1) ** 2).sum()
        return ridge - log_proba[rows, y].mean(), gradient + 2 * PENALTY * (weights - 1)

    bounds = [(0, MOST_WEIGHT)] * 2
    result = minimize(objective, np.ones(2), jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(result.x)


def combine(student: Scores, teacher: Scores, how: Combination) -> Scores:
    """Probabilities after the teacher's answer; NaN where it gave none.

    Parameters
    ----------
    student, teacher : ndarray of shape (n, K)
    how : Combination

    Returns
    -------
    ndarray of shape (n, K)

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dialpref.escalation.combining import Combination, combine
    >>> teacher = Combination(np.array([[0.9, 0.1], [0.4, 0.6]]))
    >>> combine(np.array([[0.4, 0.6]]), np.array([[1.0, 0.0]]), teacher).round(2)
    array([[0.6, 0.4]])
    """
    evidence = _log_evidence(teacher, how.likelihood)
    return softmax(how.student_weight * _log(student) + how.teacher_weight * evidence, axis=1)


def with_answers(student: Scores, teacher: Scores, how: Combination) -> Scores:
    """Probabilities after the teacher's answer; the student's where it gave none.

    Parameters
    ----------
    student, teacher : ndarray of shape (n, K)
    how : Combination

    Returns
    -------
    ndarray of shape (n, K)
    """
    answered = ~np.isnan(teacher[:, 0])
    after = student.copy()
    after[answered] = combine(student[answered], teacher[answered], how)
    return after


def expected_gain(student: Scores, how: Combination) -> Scores:
    """Probability that the teacher's answer turns a wrong label into the right one, net.

    The sum over the teacher's answers, by how likely each is, of what the likeliest class then
    is likelier than the student's. So it is 0 where no answer would change the label.

    Parameters
    ----------
    student : ndarray of shape (n, K)
    how : Combination

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dialpref.escalation.combining import Combination, expected_gain
    >>> teacher = Combination(np.array([[0.9, 0.1], [0.4, 0.6]]))
    >>> expected_gain(np.array([[0.4, 0.6], [0.0, 1.0]]), teacher).round(2)
    array([0.12, 0.  ])
    """
    answers = student @ how.likelihood
    own = student.argmax(axis=1)
    gain = np.zeros(len(student))
    for answer, certain in enumerate(np.eye(len(how.likelihood))):
        after = combine(student, np.tile(certain, (len(student), 1)), how)
        change = after.max(axis=1) - after[np.arange(len(own)), own]
        gain += answers[:, answer] * change
    return gain


def answers_of_others(
    student: Scores, teacher: Scores, y: Codes, groups: Codes
) -> tuple[Codes, Scores]:
    """Classes after asking, and expected gains, by combinations of other dialogues.

    Parameters
    ----------
    student, teacher, y, groups
        As for :func:`fit_combination`.

    Returns
    -------
    answers : ndarray of int, shape (n,)
        The student's where the teacher gave none.
    gain : ndarray of shape (n,)
    """
    answers, gain = np.zeros_like(y), np.zeros(len(y))
    for train, test in _folds(groups):
        how = fit_combination(student[train], teacher[train], y[train], groups[train])
        gain[test] = expected_gain(student[test], how)
        answers[test] = with_answers(student[test], teacher[test], how).argmax(axis=1)
    return answers, gain


def _folds(groups: Codes) -> Iterator[tuple[Codes, Codes]]:
    n_groups = len(np.unique(groups))
    if n_groups < 2:  # nothing to hold out
        yield np.arange(len(groups)), np.arange(len(groups))
        return
    folds = GroupKFold(min(FOLDS, n_groups), shuffle=True, random_state=0)
    yield from folds.split(groups, groups=groups)


def asked_classes(gained: Scores, own: Codes, n_classes: int) -> NDArray[np.bool_]:
    """Classes of the student's answer about which asking has not done clear harm.

    Where it has made more errors than it has mended, by more than the square root of both
    together, which is one standard error.

    Parameters
    ----------
    gained : ndarray of shape (n,)
        Of rows that would be asked about, 1 where the answer mends an error, -1 where it makes
        one.
    own : ndarray of int, shape (n,)
        Class that the student gives them.
    n_classes : int

    Returns
    -------
    ndarray of bool, shape (n_classes,)

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dialpref.escalation.combining import asked_classes
    >>> asked_classes(np.array([1, -1, -1, -1]), np.array([0, 0, 1, 1]), 3)
    array([ True, False,  True])
    """
    net, changed = (np.bincount(own, weights, n_classes) for weights in (gained, abs(gained)))
    return np.asarray(net >= -np.sqrt(changed))

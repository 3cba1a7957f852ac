"""Human labels that are probably slips, and LLM labels that are probably wrong."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, softmax

from sklearn_dialpref._dialogues.validation import warn_of_other_order

from .drawing import to_pandas
from .labelled_rows import LabelledRows, labelled_rows
from .out_of_fold import out_of_fold_proba

__all__ = ["SuspectLabels", "suspect_labels"]

Floats = NDArray[np.float64]
LEAST_PROBA = 1e-4  # a student is never surer than that
CONFUSION_PRIOR = 5.0  # rows that each row of the confusion matrix starts with
CLASS_PRECISION = 10.0  # of the prior of each class constant, around 0
EXPONENT = (np.log(0.7), 0.7)  # prior mean and deviation of the logs of both exponents
SLIPS = (1.5, 12.0)  # prior slips and right labels
LEAST_CONFUSION = 0.02  # share of slips that go to any class alike


@dataclass(frozen=True, eq=False)
class SuspectLabels:
    """Labels in the order of the probability that they are wrong.

    Made by :func:`suspect_labels`. ``suspects[:20]`` are the first 20, and
    ``suspects[suspects.probability_wrong > 0.5]`` those that are probably wrong.

    Attributes
    ----------
    row : ndarray of int64, shape (n_labels,)
        Position of the utterance in `X`.
    source : ndarray of str, shape (n_labels,)
        Whose label it is, "human" or "llm".
    label : ndarray of shape (n_labels,)
        The label. Multilabel: the name of the label and what was given, as in ``"refund=1"``.
    suggestion : ndarray of shape (n_labels,)
        The most probable one of the others.
    probability_wrong : ndarray of float64, shape (n_labels,)
        Probability that the label is wrong, falling.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_dialpref import suspect_labels
    >>> X = np.r_[np.linspace(-3, -1, 20), np.linspace(1, 3, 20)][:, None]
    >>> y = np.where(X[:, 0] > 0, "yes", "no")
    >>> y[3] = "yes"  # a slip
    >>> suspects = suspect_labels(LogisticRegression(), X, y)
    >>> suspects[suspects.probability_wrong > 0.5].row
    array([3])
    """

    row: NDArray[np.int64]
    source: NDArray[np.str_]
    label: NDArray[Any]
    suggestion: NDArray[Any]
    probability_wrong: Floats

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: Any) -> SuspectLabels:
        """Some of the labels, by a slice, a mask or positions."""
        index = np.atleast_1d(np.arange(len(self))[index])
        return SuspectLabels(*(column[index] for column in self._columns().values()))

    def frame(self) -> Any:
        """The labels as a table.

        Returns
        -------
        pandas.DataFrame
            One row per label: ``row``, ``source``, ``label``, ``suggestion`` and
            ``probability_wrong``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return to_pandas(self._columns())

    def _columns(self) -> dict[str, NDArray[Any]]:
        names = ("row", "source", "label", "suggestion", "probability_wrong")
        return {name: getattr(self, name) for name in names}


def suspect_labels(
    estimator: Any,
    X: Any,
    y_human: Any = None,
    y_llm: Any = None,
    *,
    cv: int = 5,
    proba: Any = None,
) -> SuspectLabels:
    r"""Sort all labels by the probability that they are wrong.

    A label is judged by witnesses that do not know it: a student that has not seen its dialogue;
    for a human label also the LLM's label, and for an LLM label also the human one. How much each
    is worth is learned from the rows with a human label.

    Parameters
    ----------
    estimator : classifier
        As for :func:`out_of_fold_proba`: it is cloned, fitted or not. With `proba` only its
        parameter ``classes`` is read.
    X : DataFrame, ndarray or sequence of str, of n rows
        Utterances, in any form that the estimator accepts.
    y_human : array-like of shape (n,) or (n, L), default=None
        Human labels; missing is None, NaN or ``pd.NA``. 2-D: 0, 1 or missing for each of L labels
        (multilabel), each of which is judged on its own.
    y_llm : array-like of shape (n,), (n, A) or (n, K), default=None
        Labels, votes or scores of the LLM. Its label is the class with the highest score, the
        first of several.
    cv : int, default=5
        Number of folds of :func:`out_of_fold_proba`.
    proba : array-like of shape (n, K), default=None
        Probabilities from :func:`out_of_fold_proba`, which then trains nothing here. Its labels
        may be fewer than those given here: a classifier that cannot take `y_llm` can be trained
        without.

    Returns
    -------
    suspects : SuspectLabels
        All labels of both sources, those that are most probably wrong first.

    Raises
    ------
    ValueError
        If labels do not fit, or `proba` does not hold probabilities of these rows and classes; and
        as :func:`out_of_fold_proba`.
    TypeError
        As :func:`out_of_fold_proba`.

    Warns
    -----
    UserWarning
        If no row has both a human and an LLM label. The order of the LLM labels is then still of
        use, but the probabilities are guesses.

    See Also
    --------
    out_of_fold_proba : The student's probabilities.
    teacher_report : How often the LLM is wrong altogether, and with which classes.

    Notes
    -----
    With the student's probabilities :math:`p`, the LLM's scores :math:`s` and its confusion matrix
    :math:`C` on the rows with both labels [1]_, the probability that class :math:`k` is true is

    .. math:: t_k \propto e^{c_k} \, p_k^a \, \prod_j C_{kj}^{\, b s_j}.

    A person gives the true class or, with probability :math:`\varepsilon`, slips to another one,

    .. math:: P(h \mid k) = (1 - \varepsilon) \, [h = k] + \varepsilon \, N_{kh}, \quad
        N_{kh} \propto \sum_i p_{ik} p_{ih} \ (h \ne k),

    so that classes that the student confuses are confused by people too. Exponents, class
    constants and the share of slips :math:`\varepsilon` maximise the likelihood of all human
    labels times weak priors, as in a logistic regression that is robust to label noise [2]_.
    Bayes' rule then gives the true label of each row. An LLM label without a human one beside it
    is called wrong if a person would give another.

    No figure proves a slip. The share of slips is estimated from the human labels that contradict
    what both witnesses are sure of, which takes a few hundred human labels, and it holds the
    labels on which people disagree.

    References
    ----------
    .. [1] Dawid and Skene, "Maximum likelihood estimation of observer error-rates using the EM
       algorithm", Applied Statistics 28 (1979).
    .. [2] Bootkrajang and Kabán, "Label-noise robust logistic regression and its applications",
       ECML PKDD 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_dialpref import suspect_labels
    >>> X = np.r_[np.linspace(-3, -1, 20), np.linspace(1, 3, 20)][:, None]
    >>> y = np.where(X[:, 0] > 0, "yes", "no")
    >>> y[3] = "yes"  # a slip
    >>> suspects = suspect_labels(LogisticRegression(), X, y)
    >>> first = suspects[0]
    >>> first.row, first.label, first.suggestion
    (array([3]), array(['yes'], dtype='<U3'), array(['no'], dtype='<U3'))
    """
    rows = labelled_rows(estimator, X, y_human, y_llm)
    if proba is None:
        proba = out_of_fold_proba(estimator, X, y_human, y_llm, cv=cv)
    else:
        warn_of_other_order(X, y_human=y_human, y_llm=y_llm, proba=proba)
        proba = _check_proba(proba, rows)
    if (
        rows.targets.has_score.any()
        and not (rows.targets.has_score & rows.targets.has_human).any()
    ):
        warnings.warn(
            "no row has both a human and an LLM label, so how often the LLM is wrong is not "
            "known: rely on the order of its labels only, or label some of the same utterances",
            UserWarning,
            stacklevel=2,
        )
    columns = zip(*(_judged(question) for question in _questions(rows, proba)), strict=True)
    place, source, label, suggestion, wrong = (np.concatenate(parts) for parts in columns)
    order = np.lexsort((label, source, place, -wrong))  # places are the same in any order of rows
    return SuspectLabels(
        rows.order[place[order]], source[order], label[order], suggestion[order], wrong[order]
    )


def _check_proba(proba: Any, rows: LabelledRows) -> Floats:
    table = np.asarray(proba, dtype=np.float64)
    shape = (len(rows.unit), len(rows.targets.classes))
    if table.shape != shape:
        raise ValueError(
            f"proba has shape {table.shape}, but X has {shape[0]} rows and there are {shape[1]} "
            f"classes {rows.targets.classes.tolist()}; pass what out_of_fold_proba returns"
        )
    total = np.ones(shape[0]) if rows.targets.multilabel else table.sum(axis=1)
    wrong = ~((table >= 0) & (table <= 1)).all(axis=1) | (np.abs(total - 1) > 1e-3)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"proba must hold probabilities, but row {row} holds {table[row].tolist()}; pass what "
            "out_of_fold_proba returns"
        )
    return table


# -- questions ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Question:
    """What is known of which of K classes each row has.

    Attributes
    ----------
    names : ndarray of shape (K,)
    proba : ndarray of shape (n, K)
        By the student.
    scores : ndarray of shape (n, K)
        Of the LLM, rows of NaN without any.
    human : ndarray of int64, shape (n,)
        Position of the human label in `names`, -1 without any.
    """

    names: NDArray[Any]
    proba: Floats
    scores: Floats
    human: NDArray[np.int64]

    @property
    def llm(self) -> NDArray[np.int64]:
        """Position of the LLM's label in `names`, -1 without any."""
        best = np.nan_to_num(self.scores).argmax(axis=1)
        return np.where(self.has_score, best, -1)

    @property
    def has_score(self) -> NDArray[np.bool_]:
        return np.asarray(~np.isnan(self.scores[:, 0]))


def _questions(rows: LabelledRows, proba: Floats) -> Iterator[_Question]:
    """One question, or one of each label, with the rows in an order of their own."""
    targets, order = rows.targets, rows.order
    scores = np.full(proba.shape, np.nan)
    if targets.scores is not None:
        scores = targets.scores.astype(np.float64)
    proba, scores, human = proba[order], scores[order], targets.human[order]
    if not targets.multilabel:
        yield _Question(targets.classes, proba, scores, human)
        return
    for column, name in enumerate(targets.classes.tolist()):
        yes, score = proba[:, column], scores[:, column]
        yield _Question(
            np.array([f"{name}=0", f"{name}=1"], dtype=object),
            np.column_stack([1 - yes, yes]),
            np.column_stack([1 - score, score]),
            np.nan_to_num(human[:, column], nan=-1).astype(np.int64),
        )


def _judged(question: _Question) -> tuple[NDArray[Any], ...]:
    """Places, sources, labels, suggestions and probabilities to be wrong, of all labels."""
    true, given = _probabilities(question)
    columns = []
    for source, code in (("human", question.human), ("llm", question.llm)):
        place = np.flatnonzero(code >= 0)
        label = code[place]
        # beside a human label what is true; elsewhere what a person would say
        table = np.where((question.human >= 0)[:, None], true, given)[place]
        right = table[np.arange(len(place)), label]
        table[np.arange(len(place)), label] = -1
        suggestion = table.argmax(axis=1)
        names = question.names
        columns.append(
            (place, np.full(len(place), source), names[label], names[suggestion], 1 - right)
        )
    return tuple(np.concatenate(column) for column in zip(*columns, strict=True))


# -- model ----------------------------------------------------------------------------------


def _probabilities(question: _Question) -> tuple[Floats, Floats]:
    """The probability that each class is true, and that a person would give it, (n, K) each.

    The first knows the human label of the row, the second does not.
    """
    known = question.human >= 0
    student = np.log(np.clip(question.proba, LEAST_PROBA, 1))
    confusion = _confusion(question)
    llm = np.where(
        question.has_score[:, None], np.nan_to_num(question.scores) @ np.log(confusion).T, 0
    )
    slips = _slips(question.proba[known])
    human = question.human[known]
    parameters = _fitted(student[known], llm[known], human, slips)
    truth = _truth(parameters, student, llm)
    noise = _noise(expit(parameters[2]), slips)
    posterior = truth.copy()
    posterior[known] *= noise[:, human].T
    return posterior / posterior.sum(axis=1, keepdims=True), truth @ noise


def _confusion(question: _Question) -> Floats:
    """Share of the LLM's scores that each class has, given the human label; smoothed.

    Rows are drawn towards one accuracy, and the LLM's overall shares of the other classes.
    """
    both, n_classes = (question.human >= 0) & question.has_score, len(question.names)
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, question.human[both], question.scores[both])
    accuracy = (np.trace(counts) + 1) / (counts.sum() + 2)
    prior = np.tile(counts.sum(axis=0) + 0.5, (n_classes, 1))
    np.fill_diagonal(prior, 0)
    prior *= (1 - accuracy) / prior.sum(axis=1, keepdims=True)
    np.fill_diagonal(prior, accuracy)
    total = counts.sum(axis=1, keepdims=True)
    return (counts + CONFUSION_PRIOR * prior) / (total + CONFUSION_PRIOR)


def _slips(proba: Floats) -> Floats:
    """To which other class a person slips from each, as the student confuses them."""
    together = proba.T @ proba / np.maximum(proba.sum(axis=0), 1e-9)[:, None]
    together += LEAST_CONFUSION / len(together)
    np.fill_diagonal(together, 0)
    return together / together.sum(axis=1, keepdims=True)


def _noise(share: float, slips: Floats) -> Floats:
    """Probability of each human label, given the true one."""
    return (1 - share) * np.eye(len(slips)) + share * slips


def _truth(parameters: Floats, student: Floats, llm: Floats) -> Floats:
    """Probability that each class is true, as the two witnesses have it."""
    weights = np.exp(parameters[:2])
    return np.asarray(softmax(weights[0] * student + weights[1] * llm + parameters[3:], axis=1))


def _fitted(student: Floats, llm: Floats, human: NDArray[np.int64], slips: Floats) -> Floats:
    """Logs of both exponents, log odds of a slip, and a constant per class."""
    one_of_each = np.arange(len(human))
    mean, deviation = EXPONENT
    slipped, right = SLIPS

    def loss(parameters: Floats) -> tuple[float, Floats]:
        share = expit(parameters[2])
        truth = _truth(parameters, student, llm)
        joint = truth * _noise(share, slips)[:, human].T
        given = joint.sum(axis=1)
        # the gradient by the logits is what the human label changes in the probabilities
        change = joint / given[:, None] - truth
        by_share = ((truth * slips[:, human].T).sum(axis=1) - truth[one_of_each, human]) / given
        gradient = np.r_[
            (change * student).sum() * np.exp(parameters[0]),
            (change * llm).sum() * np.exp(parameters[1]),
            by_share.sum() * share * (1 - share) + slipped * (1 - share) - right * share,
            change.sum(axis=0) - CLASS_PRECISION * parameters[3:],
        ]
        gradient[:2] -= (parameters[:2] - mean) / deviation**2
        value = np.log(given).sum()
        value += slipped * np.log(share) + right * np.log1p(-share)
        value -= ((parameters[:2] - mean) ** 2).sum() / (2 * deviation**2)
        value -= CLASS_PRECISION / 2 * (parameters[3:] ** 2).sum()
        return -float(value), -gradient

    start = np.r_[mean, mean, np.log(slipped / right), np.zeros(len(slips))]
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x)

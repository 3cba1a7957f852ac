"""Scores of a student that is trained with fewer human labels, and with fewer LLM labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from sklearn_dialpref._dialogues.validation import missing_in
from sklearn_dialpref._progress import one_bar
from sklearn_dialpref.metrics.masked import masked_scorer
from sklearn_dialpref.model_selection import LabelledGroupKFold

from .drawing import Display, check_drawing, drawn_at_once, line_style, to_pandas
from .labelled_rows import LabelledRows, clone_with_classes, labelled_rows, take, without
from .out_of_fold import llm_argument

__all__ = ["LabelBudgetCurve", "LabelBudgetDisplay", "label_budget_curve"]


@dataclass(frozen=True, eq=False)
class LabelBudgetCurve:
    """Cross-validated scores of a student over shares of the human and of the LLM labels.

    Made by :func:`label_budget_curve`, shown by :class:`LabelBudgetDisplay`.

    Attributes
    ----------
    source : ndarray of shape (n_points,), str
        Whose labels were cut down to `share`, "human" or "llm"; the others are all kept.
    share : ndarray of shape (n_points,)
        Share of the training dialogues with such labels that kept them.
    n_human, n_llm : ndarray of shape (n_points,)
        Rows trained on with a human, and with an LLM label; mean over the folds.
    scores : ndarray of shape (n_points, n_folds)
        Score of each fold.

    Examples
    --------
    >>> from sklearn_dialpref import DialoguePreferenceClassifier, label_budget_curve
    >>> from sklearn_dialpref.datasets import make_dialogues
    >>> data = make_dialogues(n_dialogues=40, n_features=8, human_fraction=0.5, random_state=0)
    >>> clf = DialoguePreferenceClassifier("precomputed", max_epochs=1, random_state=0)
    >>> curve = label_budget_curve(
    ...     clf, data.X, data.y_human, data.y_llm, budgets=[0.5, 1], cv=2, random_state=0
    ... )
    >>> curve.frame().columns.tolist()
    ['source', 'share', 'n_human', 'n_llm', 'mean_score', 'std_score']
    """

    source: NDArray[np.str_]
    share: NDArray[np.float64]
    n_human: NDArray[np.float64]
    n_llm: NDArray[np.float64]
    scores: NDArray[np.float64]

    def frame(self) -> Any:
        """The curve as a table.

        Returns
        -------
        pandas.DataFrame
            One row per point: ``source``, ``share``, ``n_human``, ``n_llm``, ``mean_score`` and
            ``std_score`` over the folds.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return to_pandas(
            {
                "source": self.source,
                "share": self.share,
                "n_human": self.n_human,
                "n_llm": self.n_llm,
                "mean_score": self.scores.mean(axis=1),
                "std_score": self.scores.std(axis=1),
            }
        )


def label_budget_curve(
    estimator: Any,
    X: Any,
    y_human: Any,
    y_llm: Any,
    *,
    budgets: Sequence[float],
    cv: Any = 5,
    scoring: Any = None,
    random_state: int | np.random.RandomState | None = None,
) -> LabelBudgetCurve:
    """Cross-validate a student with fewer human labels, and with fewer LLM labels.

    For each share in `budgets` the estimator is trained twice per fold: with that share of the
    human labels and all LLM labels, and with all human labels and that share of the LLM labels.
    Labels are taken away from whole dialogues, whose rows stay in ``X`` as context. A smaller
    share is part of every larger one, in all folds, so that points differ by their labels alone.

    Parameters
    ----------
    estimator : estimator
        A student with ``fit(X, y_human, y_llm=…)``, or a pipeline that ends in one; it is cloned.
        If the student's parameter ``classes`` is None, the clones get all classes, since few
        labels can lack one.
    X : DataFrame, ndarray or sequence of str, of n rows
        Utterances, in any form that the estimator accepts.
    y_human : array-like of shape (n,) or (n, L)
        Human labels; missing is None, NaN or ``pd.NA``.
    y_llm : array-like of shape (n,), (n, A) or (n, K)
        Labels, votes or scores of the LLM.
    budgets : sequence of float
        At least two different shares in [0, 1]. At 0 the student learns from the other labels
        alone.
    cv : int or cross-validation splitter, default=5
        An int: number of folds of :class:`LabelledGroupKFold`, which keeps dialogues whole and
        tests on human labels.
    scoring : str, callable or None, default=None
        As for :func:`masked_scorer`; None: ``estimator.score``.
    random_state : int, RandomState instance or None, default=None
        Seed of the order in which dialogues keep their labels. The estimator has its own.

    Returns
    -------
    curve : LabelBudgetCurve
        Its points are those of the human labels and then those of the LLM labels, each by rising
        share.

    Raises
    ------
    ValueError
        If `budgets` are not two or more different shares, the labels do not fit, or either kind
        is missing altogether.

    See Also
    --------
    LabelBudgetDisplay : Draws the curve.
    teacher_report : Gives advice from the curve.

    Notes
    -----
    This takes ``cv * (2 * len(budgets) - 1)`` fits if `budgets` hold 1, the point that both
    curves share. The curve shows what labels have brought so far; what more of them would bring
    can only be guessed from its slope. The folds are not independent.

    Examples
    --------
    >>> from sklearn_dialpref import DialoguePreferenceClassifier, label_budget_curve
    >>> from sklearn_dialpref.datasets import make_dialogues
    >>> data = make_dialogues(n_dialogues=40, n_features=8, human_fraction=0.5, random_state=0)
    >>> clf = DialoguePreferenceClassifier(
    ...     encoder="precomputed", schedule="joint", max_epochs=2, random_state=0
    ... )
    >>> curve = label_budget_curve(
    ...     clf, data.X, data.y_human, data.y_llm, budgets=[0.5, 1], cv=2, random_state=0
    ... )
    >>> curve.source.tolist(), curve.share.tolist(), curve.scores.shape
    (['human', 'human', 'llm', 'llm'], [0.5, 1.0, 0.5, 1.0], (4, 2))
    """
    shares = _check_budgets(budgets)
    if y_human is None or y_llm is None:
        name = "y_human" if y_human is None else "y_llm"
        raise ValueError(f"{name} is None, but a label budget needs both human and LLM labels")
    rows = labelled_rows(estimator, X, y_human, y_llm)
    for name, known in (("y_human", rows.targets.has_human), ("y_llm", rows.targets.has_score)):
        if not known.any():
            raise ValueError(f"no row has a label in {name}; a label budget needs both kinds")
    data = _Rows(rows, check_random_state(random_state))
    score = None if scoring is None else masked_scorer(scoring)
    points = [("human", share, 1.0) for share in shares] + [("llm", 1.0, s) for s in shares]
    folds = list(data.folds(cv))
    scores, counts = [], []
    with one_bar("label_budget_curve", len(folds) * len({(h, m) for _, h, m in points})):
        for train, test in folds:
            fits: dict[tuple[float, float], tuple[float, list[int]]] = {}
            for _, human, llm in points:
                if (human, llm) not in fits:
                    fits[human, llm] = data.fit_and_score(
                        estimator, train, test, human, llm, score
                    )
            results = [fits[human, llm] for _, human, llm in points]
            scores.append([value for value, _ in results])
            counts.append([count for _, count in results])
    n_human, n_llm = np.mean(counts, axis=0).T
    return LabelBudgetCurve(
        source=np.array([source for source, _, _ in points]),
        share=np.tile(shares, 2),
        n_human=n_human,
        n_llm=n_llm,
        scores=np.transpose(scores),
    )


def _check_budgets(budgets: Any) -> NDArray[np.float64]:
    try:
        shares = np.unique(np.asarray(budgets, dtype=np.float64))
    except (TypeError, ValueError):
        shares = np.empty(0)
    if len(shares) < 2 or not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError(
            f"budgets must be at least two different shares in [0, 1], got {budgets!r}; pass for "
            "instance [0.25, 0.5, 1]"
        )
    return shares


class _Rows:
    """All rows, from which training rows with fewer labels are taken."""

    def __init__(self, rows: LabelledRows, rng: np.random.RandomState) -> None:
        self.rows = rows
        self.rank = rng.permutation(int(rows.unit.max()) + 1)

    def folds(self, cv: Any) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Row numbers of the training and the test part of each fold."""
        if not isinstance(cv, Integral):
            yield from cv.split(self.rows.X, self.rows.human)
            return
        order = self.rows.order
        for train, test in LabelledGroupKFold(int(cv)).split(
            take(self.rows.X, order), self.rows.human[order]
        ):
            yield order[train], order[test]

    def fit_and_score(
        self,
        estimator: Any,
        train: NDArray[np.int64],
        test: NDArray[np.int64],
        human: float,
        llm: float,
        score: Any,
    ) -> tuple[float, list[int]]:
        """Score on ``test`` after training with these shares, and the numbers of labels."""
        rows = self.rows
        keep_human = self._kept(train, rows.targets.has_human, human)
        keep_llm = self._kept(train, rows.targets.has_score, llm)
        student = clone_with_classes(estimator, rows.targets)
        assert rows.llm is not None
        y_human = without(rows.human[train], ~keep_human)
        y_llm = without(rows.llm[train], ~keep_llm) if keep_llm.any() else None
        student.fit(take(rows.X, train), y_human, **{llm_argument(student): y_llm})
        X, y = take(rows.X, test), rows.human[test]
        if y.dtype.kind == "O" and not missing_in(y).any():
            y = np.asarray(y.tolist())  # metrics refuse numbers as objects
        value = student.score(X, y) if score is None else score(student, X, y)
        return float(value), [int(keep_human.sum()), int(keep_llm.sum())]

    def _kept(
        self, train: NDArray[np.int64], known: NDArray[np.bool_], share: float
    ) -> NDArray[np.bool_]:
        """Which training rows keep their labels: those of the first dialogues in the order."""
        unit, labelled = self.rows.unit[train], known[train]
        having = np.unique(unit[labelled])
        first = having[np.argsort(self.rank[having])][: int(np.ceil(share * len(having) - 1e-9))]
        return labelled & np.isin(unit, first)


class LabelBudgetDisplay(Display):
    """Plot of a student's score against the share of the human and of the LLM labels.

    Parameters
    ----------
    curve : LabelBudgetCurve
        As :func:`label_budget_curve` makes it.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
        Axes and figure of the plot, after :meth:`plot` was called.

    See Also
    --------
    label_budget_curve : Makes the curve.

    Examples
    --------
    >>> from sklearn_dialpref import DialoguePreferenceClassifier, LabelBudgetDisplay
    >>> from sklearn_dialpref.datasets import make_dialogues
    >>> data = make_dialogues(n_dialogues=40, n_features=8, human_fraction=0.5, random_state=0)
    >>> clf = DialoguePreferenceClassifier(
    ...     encoder="precomputed", schedule="joint", max_epochs=2, random_state=0
    ... )
    >>> display = LabelBudgetDisplay.from_estimator(
    ...     clf, data.X, data.y_human, data.y_llm, budgets=[0.5, 1], cv=2, random_state=0
    ... )
    >>> display.frame()["share"].tolist()
    [0.5, 1.0, 0.5, 1.0]
    """

    def __init__(self, curve: LabelBudgetCurve) -> None:
        self.curve = curve

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y_human: Any,
        y_llm: Any,
        *,
        budgets: Sequence[float],
        cv: Any = 5,
        scoring: Any = None,
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> LabelBudgetDisplay:
        """Cross-validate a student with fewer labels, as :func:`label_budget_curve` does.

        Parameters
        ----------
        estimator : estimator
            A student with ``fit(X, y_human, y_llm=…)``, or a pipeline that ends in one; it is
            cloned.
        X : DataFrame, ndarray or sequence of str, of n rows
            Utterances, in any form that the estimator accepts.
        y_human : array-like of shape (n,) or (n, L)
            Human labels; missing is None, NaN or ``pd.NA``.
        y_llm : array-like of shape (n,), (n, A) or (n, K)
            Labels, votes or scores of the LLM.
        budgets : sequence of float
            At least two different shares in [0, 1].
        cv : int or cross-validation splitter, default=5
            An int: number of folds of :class:`LabelledGroupKFold`.
        scoring : str, callable or None, default=None
            As for :func:`masked_scorer`; None: ``estimator.score``.
        random_state : int, RandomState instance or None, default=None
            Seed of the order in which dialogues keep their labels.
        ax : matplotlib Axes, default=None
            Axes to draw on at once; None draws nothing before :meth:`plot`.
        name : str, default=None
            Name of the student in the plot.
        **kwargs : object
            For :meth:`plot`; only with `ax`.

        Returns
        -------
        display : LabelBudgetDisplay
        """
        check_drawing(cls, ax, kwargs)
        curve = label_budget_curve(
            estimator,
            X,
            y_human,
            y_llm,
            budgets=budgets,
            cv=cv,
            scoring=scoring,
            random_state=random_state,
        )
        return drawn_at_once(cls(curve), ax, name, kwargs)

    def frame(self) -> Any:
        """The curve as a table, as :meth:`LabelBudgetCurve.frame` makes it.

        Returns
        -------
        pandas.DataFrame
        """
        return self.curve.frame()

    def plot(
        self, ax: Any = None, *, name: str | None = None, **kwargs: Any
    ) -> LabelBudgetDisplay:
        """Draw mean scores, with bars of one standard deviation over the folds.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a new figure.
        name : str, default=None
            Name of the student in the plot, by default the one of the display.
        **kwargs : object
            For :meth:`matplotlib.axes.Axes.errorbar`, for both lines.

        Returns
        -------
        self : LabelBudgetDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax, curve = self._axes(ax), self.curve
        for source, source_name, counts, marker, line in (
            ("human", "human", curve.n_human, "o", "-"),
            ("llm", "LLM", curve.n_llm, "s", "--"),
        ):
            points = np.flatnonzero(curve.source == source)
            span = f"{counts[points].min():.0f} to {counts[points].max():.0f}"
            label = self._label(f"{source_name} labels, {span}", name)
            style = {"marker": marker, "linestyle": line, "capsize": 3, "label": label}
            scores = curve.scores[points]
            ax.errorbar(
                curve.share[points],
                scores.mean(axis=1),
                yerr=scores.std(axis=1),
                **line_style(style, kwargs),
            )
        return self._drawn(ax, "Share of the labels trained on", "Score")

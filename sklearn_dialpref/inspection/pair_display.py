"""Plot of the order of pairs against the gap of the teacher's scores."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state, check_scalar

from sklearn_dialpref.pairs import dialogue_pairs

from .drawing import (
    Display,
    ask,
    check_drawing,
    drawn_at_once,
    line_style,
    reference_line,
    to_pandas,
)
from .statistics import Evidence, both_labels, ratio

__all__ = ["PairMarginDisplay"]


class PairMarginDisplay(Display):
    """Share of pairs that the teacher orders rightly, by the gap of their scores.

    Make it with :meth:`from_predictions` or :meth:`from_estimator`.

    Parameters
    ----------
    gap : dict of str to ndarray of shape (n_bins,)
        Mean gap in each bin of equal width on (0, 1], for the pairs "inside" and "across"
        dialogues; NaN in empty bins.
    accuracy : dict of str to ndarray of shape (n_bins,)
        Share of the pairs in each bin that are ordered rightly.
    count : dict of str to ndarray of shape (n_bins,), int64
        Number of pairs in each bin.
    ties : dict of str to float
        Share of all pairs whose scores tie, which are in no bin.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
        Axes and figure of the plot, after :meth:`plot` was called.

    See Also
    --------
    pairwise_accuracy_score : One figure for the pairs inside dialogues.

    Notes
    -----
    A pair for class c is an utterance that humans give c and one that they give another class,
    with the gap :math:`m = s_{ic} - s_{jc}`; it is ordered rightly if :math:`m > 0`, and stands
    in the bin of :math:`|m|`. All classes are pooled. A preference loss with an adaptive margin
    assumes that the share rises with the gap.

    Pairs inside a dialogue are all pairs, or a seeded sample in dialogues of more than 65 labelled
    rows; across dialogues as many are sampled, at least 50 a row. Memory is linear in the rows.

    Examples
    --------
    >>> from sklearn_dialpref import PairMarginDisplay
    >>> from sklearn_dialpref.datasets import load_support_chats
    >>> data = load_support_chats()
    >>> display = PairMarginDisplay.from_predictions(data.X, data.y_human, data.y_llm, n_bins=2)
    >>> bool(display.accuracy["inside"][1] > display.accuracy["inside"][0])
    True
    """

    def __init__(
        self,
        gap: dict[str, NDArray[np.float64]],
        accuracy: dict[str, NDArray[np.float64]],
        count: dict[str, NDArray[np.int64]],
        ties: dict[str, float],
    ) -> None:
        self.gap = gap
        self.accuracy = accuracy
        self.count = count
        self.ties = ties

    @classmethod
    def from_predictions(
        cls,
        X: Any,
        y_human: Any,
        y_llm: Any,
        *,
        classes: Any = None,
        n_bins: int = 10,
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> PairMarginDisplay:
        """Compare the rows that carry both labels.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str, of n rows
            The utterances, for their dialogues.
        y_human : array-like of shape (n,) or (n, L)
            Human labels; missing is None, NaN or ``pd.NA``.
        y_llm : array-like of shape (n,), (n, A) or (n, K)
            Labels, votes or scores.
        classes : array-like of shape (K,), default=None
            All classes; by default those found.
        n_bins : int, default=10
            Number of bins of the gap on (0, 1].
        random_state : int, RandomState instance or None, default=None
            Seed of the sampled pairs.
        ax : matplotlib Axes, default=None
            Axes to draw on at once; None draws nothing before :meth:`plot`.
        name : str, default=None
            Name of the teacher in the plot.
        **kwargs : object
            For :meth:`plot`; only with `ax`.

        Returns
        -------
        display : PairMarginDisplay

        Raises
        ------
        ValueError
            If no row carries both labels, or `n_bins` is below 1.
        """
        check_scalar(n_bins, "n_bins", Integral, min_val=1)
        evidence = both_labels(X, y_human, y_llm, classes)[0]
        rng = check_random_state(random_state)
        i, j = dialogue_pairs(evidence.group, random_state=rng)
        binned = {"inside": _binned(evidence, i, j, n_bins)}
        n = len(evidence.group)
        first = np.repeat(np.arange(n), 50 + len(i) // n)
        second = rng.randint(n, size=len(first))
        apart = evidence.group[first] != evidence.group[second]
        binned["across"] = _binned(evidence, first[apart], second[apart], n_bins)
        gap, accuracy, count, ties = (
            {where: result[part] for where, result in binned.items()} for part in range(4)
        )
        display = cls(gap, accuracy, count, ties)  # type: ignore[arg-type]
        return drawn_at_once(display, ax, name, kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y_human: Any,
        *,
        n_bins: int = 10,
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> PairMarginDisplay:
        """Ask a fitted teacher, such as :class:`LLMAnnotator`, or a student.

        Parameters
        ----------
        estimator : classifier
            Fitted, with ``predict_proba``.
        X : DataFrame, ndarray or sequence of str, of n rows
            Utterances. `estimator` predicts all of them.
        y_human : array-like of shape (n,) or (n, L)
            Human labels; missing is None, NaN or ``pd.NA``.
        n_bins : int, default=10
            Number of bins of the gap on (0, 1].
        random_state : int, RandomState instance or None, default=None
            Seed of the sampled pairs.
        ax : matplotlib Axes, default=None
            Axes to draw on at once; None draws nothing before :meth:`plot`.
        name : str, default=None
            Name of the teacher in the plot.
        **kwargs : object
            For :meth:`plot`; only with `ax`.

        Returns
        -------
        display : PairMarginDisplay
        """
        check_drawing(cls, ax, kwargs)
        scores, classes = ask(estimator, X, y_human)
        kwargs |= {"ax": ax, "name": name, "n_bins": n_bins, "random_state": random_state}
        return cls.from_predictions(X, y_human, scores, classes=classes, **kwargs)

    def frame(self) -> Any:
        """The bins as a table.

        Returns
        -------
        pandas.DataFrame
            One row per kind of pairs and bin: ``pairs`` ("inside" or "across"), ``low``,
            ``high``, ``gap``, ``accuracy``, ``count``.
        """
        n_bins = len(self.count["inside"])
        edges, kinds = np.linspace(0, 1, n_bins + 1), ["inside", "across"]
        return to_pandas(
            {
                "pairs": np.repeat(kinds, n_bins),
                "low": np.tile(edges[:-1], 2),
                "high": np.tile(edges[1:], 2),
                "gap": np.concatenate([self.gap[kind] for kind in kinds]),
                "accuracy": np.concatenate([self.accuracy[kind] for kind in kinds]),
                "count": np.concatenate([self.count[kind] for kind in kinds]),
            }
        )

    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> PairMarginDisplay:
        """Draw a line for the pairs inside dialogues and one for those across.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a new figure.
        name : str, default=None
            Name of the teacher in the plot, by default the one of the display.
        **kwargs : object
            For :meth:`matplotlib.axes.Axes.plot`, for both lines.

        Returns
        -------
        self : PairMarginDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = self._axes(ax)
        for kind, marker, line in (("inside", "o", "-"), ("across", "s", "--")):
            full = self.count[kind] > 0
            label = self._label(f"{kind} dialogues", name)
            style = line_style({"marker": marker, "linestyle": line, "label": label}, kwargs)
            if full.any():
                ax.plot(self.gap[kind][full], self.accuracy[kind][full], **style)
        reference_line(ax, [0, 1.05], [0.5, 0.5], "chance")
        ax.set(xlim=(0, 1.05), ylim=(0, 1.05))
        return self._drawn(ax, "Gap of the teacher's scores", "Share of pairs ordered rightly")


def _binned(
    evidence: Evidence, i: NDArray[np.int64], j: NDArray[np.int64], n_bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], float]:
    """Mean gap, share ordered rightly and number of the pairs in each bin; share of ties."""
    sums, n_pairs = np.zeros((3, n_bins)), 0
    edges = np.linspace(0, 1, n_bins + 1)[1:-1]
    for truth, score in zip(evidence.truth.T, evidence.scores.T, strict=True):
        sign = truth[i] - truth[j]
        pair = np.abs(sign) == 1
        margin = (score[i] - score[j])[pair] * sign[pair]
        n_pairs += len(margin)
        margin = margin[margin != 0]
        gap = np.abs(margin)
        place = np.searchsorted(edges, gap.round(6))  # the nearest float32 to 0.2 is above 0.2
        for row, weights in enumerate((gap, (margin > 0).astype(float), np.ones(len(gap)))):
            sums[row] += np.bincount(place, weights=weights, minlength=n_bins)
    gap, right = (ratio(total, sums[2]) for total in sums[:2])
    ties = 1 - sums[2].sum() / n_pairs if n_pairs else float("nan")
    return gap, right, sums[2].astype(np.int64), float(ties)

"""Accuracy of the answers, against the share that is asked about or answered."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from sklearn_dialpref._dialogues.validation import label_array, wholly_known
from sklearn_dialpref.inspection.drawing import (
    REFERENCE,
    Display,
    check_drawing,
    drawn_at_once,
    line_style,
    to_pandas,
)

from .asking import ask_teacher, student_proba
from .combining import with_answers
from .rules import Rule

__all__ = ["CoverageAccuracyDisplay"]

POINTS = 21  # shares from 0 to 1, for the curves


class CoverageAccuracyDisplay(Display):
    """Plot of accuracy and macro-F1 against the share of utterances that are asked about.

    Without a teacher, against the share that is answered. Make it with :meth:`from_estimator`
    or :meth:`from_predictions`.

    Parameters
    ----------
    share : ndarray of shape (n_points,)
        Share of the labelled rows that are asked about or, abstaining, answered.
    accuracy, f1_macro : ndarray of shape (n_points,)
        Of the answers; NaN where there are none.
    chosen : float or None, default=None
        Share at the threshold of an estimator.
    abstains : bool, default=False
        Whether `share` is that of the answered.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
        Axes and figure of the plot, after :meth:`plot` was called.

    See Also
    --------
    EscalatingClassifier : Chooses the share.

    Examples
    --------
    >>> from sklearn_dialpref import CoverageAccuracyDisplay
    >>> display = CoverageAccuracyDisplay.from_predictions(
    ...     ["a", "b", "b", None],
    ...     y_student=["a", "a", "a", "a"],
    ...     y_asked=["a", "b", "a", "b"],
    ...     need=[0.1, 0.9, 0.2, 0.3],
    ... )
    >>> display.share.tolist(), display.accuracy.round(2).tolist()
    ([0.0, 0.3333333333333333, 0.6666666666666666, 1.0], [0.33, 0.67, 0.67, 0.67])
    """

    def __init__(
        self,
        share: NDArray[np.float64],
        accuracy: NDArray[np.float64],
        f1_macro: NDArray[np.float64],
        *,
        chosen: float | None = None,
        abstains: bool = False,
    ) -> None:
        self.share = share
        self.accuracy = accuracy
        self.f1_macro = f1_macro
        self.chosen = chosen
        self.abstains = abstains

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y_human: Any,
        *,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> CoverageAccuracyDisplay:
        """Ask the teacher of an estimator about all utterances with a human label.

        Parameters
        ----------
        estimator : EscalatingClassifier
            Fitted. Its share is marked in the plot.
        X : DataFrame, ndarray or sequence of str, of n rows
            Utterances of dialogues that the student was not trained on.
        y_human : array-like of shape (n,)
            Human labels; missing is None, NaN or ``pd.NA``.
        ax : matplotlib Axes, default=None
            Axes to draw on at once; None draws nothing before :meth:`plot`.
        name : str, default=None
            Name of the classifier in the plot.
        **kwargs : object
            For :meth:`plot`; only with `ax`.

        Returns
        -------
        display : CoverageAccuracyDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If no row has a human label.
        """
        check_drawing(cls, ax, kwargs)
        check_is_fitted(estimator, "student_")
        classes, known, y_asked = estimator.classes_, _known(y_human), None
        proba = student_proba(estimator.student_, X, classes)
        asks = np.isin(classes, estimator.asks_classes_)
        rule = Rule(asks, estimator.combination_, estimator.threshold_)
        if rule.combination is not None:
            answers = ask_teacher(estimator.teacher, X, known)
            y_asked = classes[with_answers(proba, answers, rule.combination).argmax(axis=1)]
        display = cls.from_predictions(
            y_human,
            y_student=classes[proba.argmax(axis=1)],
            y_asked=y_asked,
            need=rule.need(proba),
        )
        escalated = float(rule.escalates(proba)[known].mean())
        display.chosen = 1 - escalated if display.abstains else escalated
        return drawn_at_once(display, ax, name, kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_human: Any,
        *,
        y_student: Any,
        y_asked: Any = None,
        need: Any,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> CoverageAccuracyDisplay:
        """Pass on the rows of the greatest need first.

        Parameters
        ----------
        y_human : array-like of shape (n,)
            Human labels; missing is None, NaN or ``pd.NA``.
        y_student : array-like of shape (n,)
            Labels by the student alone.
        y_asked : array-like of shape (n,), default=None
            Labels after asking. None: rows passed on get none, and the others are scored.
        need : array-like of shape (n,)
            The higher, the earlier a row is passed on.
        ax : matplotlib Axes, default=None
            Axes to draw on at once; None draws nothing before :meth:`plot`.
        name : str, default=None
            Name of the classifier in the plot.
        **kwargs : object
            For :meth:`plot`; only with `ax`.

        Returns
        -------
        display : CoverageAccuracyDisplay

        Raises
        ------
        ValueError
            If no row has a human label, or lengths differ.
        """
        check_consistent_length(y_human, y_student, y_asked, need)
        known = _known(y_human)
        y, own = (np.asarray(label_array(a)[known].tolist()) for a in (y_human, y_student))
        asked = None if y_asked is None else np.asarray(label_array(y_asked)[known].tolist())
        first = np.argsort(-np.asarray(need, dtype=np.float64)[known], kind="stable")
        counts = np.unique(np.linspace(0, len(y), POINTS).round().astype(int))
        scores = np.array([_scores(y, own, asked, first, count) for count in counts])
        share = counts / len(y)
        if asked is None:
            scores, share = scores[::-1], 1 - share[::-1]
        display = cls(share, *scores.T, abstains=asked is None)
        return drawn_at_once(display, ax, name, kwargs)

    def frame(self) -> Any:
        """The curves as a table.

        Returns
        -------
        pandas.DataFrame
            One row per point: ``share``, ``accuracy``, ``f1_macro``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return to_pandas(
            {"share": self.share, "accuracy": self.accuracy, "f1_macro": self.f1_macro}
        )

    def plot(
        self, ax: Any = None, *, name: str | None = None, **kwargs: Any
    ) -> CoverageAccuracyDisplay:
        """Draw both curves, and the share of the estimator.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a new figure.
        name : str, default=None
            Name of the classifier in the plot, by default the one of the display.
        **kwargs : object
            For :meth:`matplotlib.axes.Axes.plot`, for both curves.

        Returns
        -------
        self : CoverageAccuracyDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = self._axes(ax)
        for measure, scores, line in (
            ("Accuracy", self.accuracy, "-"),
            ("Macro-F1", self.f1_macro, "--"),
        ):
            style = {"linestyle": line, "label": self._label(measure, name)}
            ax.plot(self.share, scores, **line_style(style, kwargs))
        if self.chosen is not None:
            ax.axvline(self.chosen, label=self._label("Threshold", name), **REFERENCE)
        word = "answered" if self.abstains else "asked about"
        return self._drawn(ax, f"Share {word}", "Score of the answers")


def _known(y_human: Any) -> NDArray[np.bool_]:
    known = wholly_known(y_human)
    if known.ndim != 1 or not known.any():
        raise ValueError(
            "CoverageAccuracyDisplay needs a human label in some row, but all of y_human is "
            "missing; pass labelled dialogues"
        )
    return known


def _scores(
    y: NDArray[Any],
    own: NDArray[Any],
    asked: NDArray[Any] | None,
    first: NDArray[np.int64],
    count: int,
) -> tuple[float, float]:
    """Accuracy and macro-F1, with so many rows passed on."""
    if asked is None:
        y, labels = y[first[count:]], own[first[count:]]
    else:
        labels = own.astype(np.result_type(own, asked))
        labels[first[:count]] = asked[first[:count]]
    if not len(y):
        return np.nan, np.nan
    f1 = f1_score(y, labels, average="macro", labels=np.unique(y), zero_division=0)
    return float((y == labels).mean()), float(f1)

"""Plots of a teacher against human labels."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.utils import check_scalar

from sklearn_dialpref._dialogues.validation import label_array

from .drawing import (
    Display,
    as_legend_text,
    ask,
    check_drawing,
    drawn_at_once,
    fit_cells,
    line_style,
    name_classes,
    reference_line,
    to_pandas,
)
from .statistics import Evidence, both_labels, decisions, reliability_bins

__all__ = ["ReliabilityDisplay", "TeacherConfusionDisplay"]

MOST_INCHES = 14  # of a new figure
MOST_WITH_NUMBERS = 40  # classes, beyond which numbers in cells are too small to read


class TeacherConfusionDisplay(Display):
    """Confusion matrix of the teacher's classes against human labels.

    Make it with :meth:`from_predictions` or :meth:`from_estimator`.

    Parameters
    ----------
    confusion_matrix : ndarray of shape (K, K)
        A row for each class of the human labels, a column for each class of the teacher's.
    classes : ndarray of shape (K,)
        Names of the classes.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
        Axes and figure of the plot, after :meth:`plot` was called.

    See Also
    --------
    teacher_report : The figures behind it, with intervals.

    Examples
    --------
    >>> from sklearn_dialpref import TeacherConfusionDisplay
    >>> display = TeacherConfusionDisplay.from_predictions(
    ...     ["a", "b", "b", None], ["a", "b", "a", "b"]
    ... )
    >>> display.confusion_matrix
    array([[1, 0],
           [1, 1]])
    """

    def __init__(self, confusion_matrix: NDArray[Any], *, classes: NDArray[Any]) -> None:
        self.confusion_matrix = confusion_matrix
        self.classes = classes

    @classmethod
    def from_predictions(
        cls,
        y_human: Any,
        y_llm: Any,
        *,
        classes: Any = None,
        normalize: Literal["true", "pred", "all"] | None = None,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> TeacherConfusionDisplay:
        """Count the rows that carry both labels.

        Parameters
        ----------
        y_human : array-like of shape (n,)
            Human labels; missing is None, NaN or ``pd.NA``.
        y_llm : array-like of shape (n,), (n, A) or (n, K)
            Labels, votes or scores; the class with the highest score counts, the first of
            several.
        classes : array-like of shape (K,), default=None
            All classes; by default those found.
        normalize : {"true", "pred", "all"} or None, default=None
            Shares of the rows, of the columns or of all rows, in place of counts.
        ax : matplotlib Axes, default=None
            Axes to draw on at once; None draws nothing before :meth:`plot`.
        name : str, default=None
            Name of the teacher in the plot.
        **kwargs : object
            For :meth:`plot`; only with `ax`.

        Returns
        -------
        display : TeacherConfusionDisplay

        Raises
        ------
        ValueError
            If no row carries both labels, or `y_human` is multilabel.
        """
        if normalize not in ("true", "pred", "all", None):
            raise ValueError(f"normalize must be 'true', 'pred', 'all' or None, got {normalize!r}")
        evidence = _without_dialogues(y_human, y_llm, classes)
        if evidence.multilabel:
            raise ValueError(
                f"y_human is multilabel with {len(evidence.classes)} labels, which have no common "
                "confusion matrix; use teacher_report, or pass one label as a 1-D y_human and its "
                "scores as np.column_stack([1 - score, score])"
            )
        n_classes = len(evidence.classes)
        cell = evidence.truth.argmax(axis=1) * n_classes + evidence.scores.argmax(axis=1)
        matrix = np.bincount(cell, minlength=n_classes**2).reshape(n_classes, n_classes)
        if normalize is not None:
            axis = {"true": 1, "pred": 0, "all": None}[normalize]
            matrix = matrix / np.maximum(matrix.sum(axis=axis, keepdims=True), 1)
        return drawn_at_once(cls(matrix, classes=evidence.classes), ax, name, kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y_human: Any,
        *,
        normalize: Literal["true", "pred", "all"] | None = None,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> TeacherConfusionDisplay:
        """Ask a fitted teacher, such as :class:`LLMAnnotator`, or a student.

        Parameters
        ----------
        estimator : classifier
            Fitted, with ``predict_proba``.
        X : DataFrame, ndarray or sequence of str, of n rows
            Utterances. `estimator` predicts all of them.
        y_human : array-like of shape (n,)
            Human labels; missing is None, NaN or ``pd.NA``.
        normalize : {"true", "pred", "all"} or None, default=None
            Shares of the rows, of the columns or of all rows, in place of counts.
        ax : matplotlib Axes, default=None
            Axes to draw on at once; None draws nothing before :meth:`plot`.
        name : str, default=None
            Name of the teacher in the plot.
        **kwargs : object
            For :meth:`plot`; only with `ax`.

        Returns
        -------
        display : TeacherConfusionDisplay
        """
        check_drawing(cls, ax, kwargs)
        scores, classes = ask(estimator, X, y_human)
        kwargs |= {"ax": ax, "name": name, "normalize": normalize}
        return cls.from_predictions(y_human, scores, classes=classes, **kwargs)

    def frame(self) -> Any:
        """The matrix as a table.

        Returns
        -------
        pandas.DataFrame of shape (K, K)
            Index ``human``, columns the teacher's classes.
        """
        index = self.classes.tolist()
        columns = dict(zip(index, self.confusion_matrix.T, strict=True))
        return to_pandas(columns, index, "human")

    def plot(
        self, ax: Any = None, *, name: str | None = None, **kwargs: Any
    ) -> TeacherConfusionDisplay:
        """Draw the matrix.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a new figure.
        name : str, default=None
            Name of the teacher in the plot, by default the one of the display.
        **kwargs : object
            For :meth:`sklearn.metrics.ConfusionMatrixDisplay.plot`, such as ``cmap``. By
            default, ``include_values`` is True with up to 40 classes.

        Returns
        -------
        self : TeacherConfusionDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        n_classes, rotation = len(self.classes), kwargs.pop("xticks_rotation", None)
        side = min(max(0.3 * n_classes + 2, 4.8), MOST_INCHES)
        ax = self._axes(ax, figsize=(side + 1.6, side))
        kwargs.setdefault("include_values", n_classes <= MOST_WITH_NUMBERS)
        # square cells would waste the room of narrow axes
        kwargs["im_kw"] = {"aspect": "auto", **(kwargs.get("im_kw") or {})}
        drawn = ConfusionMatrixDisplay(self.confusion_matrix, display_labels=[""] * n_classes)
        drawn.plot(ax=ax, **kwargs)
        cells = [] if drawn.text_ is None else drawn.text_.ravel()
        for text in cells:
            text.set_in_layout(False)  # thousands of them make layouts slow
        name_classes(ax, self.classes.tolist(), rotation)
        fit_cells(ax, cells, n_classes)
        return self._drawn(ax, self._title(name) or "Teacher", "Human")


class ReliabilityDisplay(Display):
    """Reliability diagram: how often the teacher is right, by its top score.

    Make it with :meth:`from_predictions` or :meth:`from_estimator`.

    Parameters
    ----------
    confidence, accuracy : ndarray of shape (n_bins,)
        Mean top score and share of right decisions in each bin of equal width; NaN in empty bins.
    count : ndarray of shape (n_bins,), int64
        Number of decisions in each bin.

    Attributes
    ----------
    calibration_error : float
        Expected calibration error of these bins.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
        Axes and figure of the plot, after :meth:`plot` was called.

    See Also
    --------
    expected_calibration_error : The measure, and what it counts.
    sklearn.calibration.CalibrationDisplay : The same for the probability of one class.

    Examples
    --------
    >>> from sklearn_dialpref import ReliabilityDisplay
    >>> y_llm = [[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.25, 0.75]]
    >>> display = ReliabilityDisplay.from_predictions(["a", "a", "b", "a"], y_llm, n_bins=2)
    >>> display.accuracy.tolist(), display.calibration_error
    ([nan, 0.5], 0.25)
    """

    def __init__(
        self,
        confidence: NDArray[np.float64],
        accuracy: NDArray[np.float64],
        count: NDArray[np.int64],
    ) -> None:
        self.confidence = confidence
        self.accuracy = accuracy
        self.count = count

    @property
    def calibration_error(self) -> float:
        """Mean gap of accuracy and confidence, weighted by the rows of each bin."""
        return float(np.nansum(np.abs(self.accuracy - self.confidence) * self.count)) / float(
            self.count.sum()
        )

    @classmethod
    def from_predictions(
        cls,
        y_human: Any,
        y_llm: Any,
        *,
        classes: Any = None,
        n_bins: int = 15,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> ReliabilityDisplay:
        """Bin the rows that carry both labels by their top score.

        Parameters
        ----------
        y_human : array-like of shape (n,) or (n, L)
            Human labels; missing is None, NaN or ``pd.NA``. Multilabel: each label of a row
            counts as a decision, with confidence max(score, 1 − score).
        y_llm : array-like of shape (n,), (n, A) or (n, K)
            Labels, votes or scores.
        classes : array-like of shape (K,), default=None
            All classes; by default those found.
        n_bins : int, default=15
            Number of bins on [0, 1].
        ax : matplotlib Axes, default=None
            Axes to draw on at once; None draws nothing before :meth:`plot`.
        name : str, default=None
            Name of the teacher in the plot.
        **kwargs : object
            For :meth:`plot`; only with `ax`.

        Returns
        -------
        display : ReliabilityDisplay

        Raises
        ------
        ValueError
            If no row carries both labels, or `n_bins` is below 1.
        """
        check_scalar(n_bins, "n_bins", Integral, min_val=1)
        confidence, right, _, _ = decisions(_without_dialogues(y_human, y_llm, classes))
        return drawn_at_once(cls(*reliability_bins(confidence, right, n_bins)), ax, name, kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y_human: Any,
        *,
        n_bins: int = 15,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> ReliabilityDisplay:
        """Ask a fitted teacher, such as :class:`LLMAnnotator`, or a student.

        Parameters
        ----------
        estimator : classifier
            Fitted, with ``predict_proba``.
        X : DataFrame, ndarray or sequence of str, of n rows
            Utterances. `estimator` predicts all of them.
        y_human : array-like of shape (n,) or (n, L)
            Human labels; missing is None, NaN or ``pd.NA``.
        n_bins : int, default=15
            Number of bins on [0, 1].
        ax : matplotlib Axes, default=None
            Axes to draw on at once; None draws nothing before :meth:`plot`.
        name : str, default=None
            Name of the teacher in the plot.
        **kwargs : object
            For :meth:`plot`; only with `ax`.

        Returns
        -------
        display : ReliabilityDisplay
        """
        check_drawing(cls, ax, kwargs)
        scores, classes = ask(estimator, X, y_human)
        kwargs |= {"ax": ax, "name": name, "n_bins": n_bins}
        return cls.from_predictions(y_human, scores, classes=classes, **kwargs)

    def frame(self) -> Any:
        """The bins as a table.

        Returns
        -------
        pandas.DataFrame
            One row per bin: ``low``, ``high``, ``confidence``, ``accuracy``, ``count``.
        """
        edges = np.linspace(0, 1, len(self.count) + 1)
        return to_pandas(
            {
                "low": edges[:-1],
                "high": edges[1:],
                "confidence": self.confidence,
                "accuracy": self.accuracy,
                "count": self.count,
            }
        )

    def plot(
        self, ax: Any = None, *, name: str | None = None, **kwargs: Any
    ) -> ReliabilityDisplay:
        """Draw the curve and the diagonal of perfect calibration.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a new figure.
        name : str, default=None
            Name of the teacher in the plot, by default the one of the display.
        **kwargs : object
            For :meth:`matplotlib.axes.Axes.plot`, such as ``color``.

        Returns
        -------
        self : ReliabilityDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax, full = self._axes(ax), self.count > 0
        reference_line(ax, [0, 1], [0, 1], "perfectly calibrated")
        label = as_legend_text(self._title(name) or "teacher")
        defaults = {"marker": "s", "label": label}
        ax.plot(self.confidence[full], self.accuracy[full], **line_style(defaults, kwargs))
        return self._drawn(ax, "Mean top score", "Share right")


def _without_dialogues(y_human: Any, y_llm: Any, classes: Any) -> Evidence:
    """The doubly labelled rows where dialogues do not matter."""
    rows = 1 if y_human is None else len(label_array(y_human))
    return both_labels(np.full(rows, "utterance", dtype=object), y_human, y_llm, classes)[0]

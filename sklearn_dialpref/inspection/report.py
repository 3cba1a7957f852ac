"""The result of judging a teacher, as figures and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .drawing import to_pandas
from .report_html import report_html
from .report_plot import TeacherReportDisplay
from .statistics import Floats


@dataclass(frozen=True, eq=False)
class TeacherReport:
    """The result of :func:`teacher_report`; ``print(report)`` shows it as text.

    Notebooks show it as HTML, and :meth:`plot` draws it.

    An attribute ``…_interval`` is the 95 % bootstrap interval, over dialogues, of the attribute
    of that name; its last axis holds the low and the high end. A figure that the data cannot
    give is NaN.

    Attributes
    ----------
    classes : ndarray of shape (K,)
        Classes, or the labels of a multilabel problem.
    multilabel : bool
        Whether each utterance can have several labels.
    n_rows, n_dialogues : int
        Rows that carry both labels, and their dialogues.
    accuracy, macro_f1 : float
        Of the teacher's top class against humans; multilabel: share of right decisions, a label
        being given above 0.5, and the mean F1 of the labels. A class that neither gives has no F1.
    accuracy_interval, macro_f1_interval : ndarray of shape (2,)
        Their intervals.
    majority_accuracy : float
        Accuracy of always answering the most frequent human class.
    accuracy_gain_interval : ndarray of shape (2,)
        The interval of accuracy − majority_accuracy.
    teacher_share, human_share, class_bias : ndarray of shape (K,)
        Mean score, share of the human labels, and the former minus the latter.
    class_bias_interval : ndarray of shape (K, 2)
        The interval of each bias.
    between_variance, within_variance : ndarray of shape (K,)
        Variance of the score errors between and within dialogues.
    class_icc, class_dialogue_pvalue : ndarray of shape (K,)
        Their share between dialogues, and the permutation p-value of none.
    dialogue_icc, dialogue_bias_pvalue : float
        The same for all classes together.
    calibration_error : float
        Expected calibration error in 15 bins.
    overconfidence : float
        Mean top score minus accuracy.
    overconfidence_interval : ndarray of shape (2,)
        Its interval.
    reliability_confidence, reliability_accuracy, reliability_count : ndarray of shape (15,)
        Mean top score, share right and number of the decisions in each bin of [0, 1].
    pair_accuracy_inside, pair_accuracy_across : float
        Share of the pairs inside a dialogue, and across dialogues, that are ordered rightly;
        mean over classes.
    pair_accuracy_inside_interval, pair_accuracy_across_interval : ndarray of shape (2,)
        Their intervals.
    pair_accuracy_difference : float
        Inside − across, mean over the classes that have both.
    pair_accuracy_difference_interval : ndarray of shape (2,)
        Its interval.
    class_pair_accuracy_inside, class_pair_accuracy_across : ndarray of shape (K,)
        The two shares for each class.
    n_voted_rows : int
        Rows with two votes or more, labelled by humans or not; 0 where `y_llm` holds no votes.
    votes_per_row : float
        Their mean number.
    vote_agreement : float
        Share of the pairs of votes on a row that agree, mean over rows.
    vote_agreement_interval : ndarray of shape (2,)
        Its interval.
    vote_alpha : float
        Krippendorff's alpha of nominal labels: 1 is full agreement, 0 is chance.
    vote_alpha_interval : ndarray of shape (2,)
        Its interval.
    vote_correlation, effective_votes : float
        How far votes on a row agree beyond what its human label explains, and the number of
        votes without such correlation that would be worth as much.
    vote_level, vote_level_accuracy, vote_level_count : ndarray of shape (n_levels,)
        Share of the votes for the top class; the accuracy and the number of rows at that share.
    advice : tuple of str
        What to do, each sentence with its figure.

    Examples
    --------
    >>> from sklearn_dialpref import teacher_report
    >>> from sklearn_dialpref.datasets import load_support_chats
    >>> data = load_support_chats(n_human=300)
    >>> report = teacher_report(data.X, data.y_human, data.y_llm, random_state=0)
    >>> report.n_rows, bool(report.accuracy > report.majority_accuracy)
    (304, True)
    """

    classes: NDArray[Any]
    multilabel: bool
    n_rows: int
    n_dialogues: int
    accuracy: float
    accuracy_interval: Floats
    macro_f1: float
    macro_f1_interval: Floats
    majority_accuracy: float
    accuracy_gain_interval: Floats
    teacher_share: Floats
    human_share: Floats
    class_bias: Floats
    class_bias_interval: Floats
    between_variance: Floats
    within_variance: Floats
    class_icc: Floats
    class_dialogue_pvalue: Floats
    dialogue_icc: float
    dialogue_bias_pvalue: float
    calibration_error: float
    overconfidence: float
    overconfidence_interval: Floats
    reliability_confidence: Floats
    reliability_accuracy: Floats
    reliability_count: NDArray[np.int64]
    pair_accuracy_inside: float
    pair_accuracy_inside_interval: Floats
    pair_accuracy_across: float
    pair_accuracy_across_interval: Floats
    pair_accuracy_difference: float
    pair_accuracy_difference_interval: Floats
    class_pair_accuracy_inside: Floats
    class_pair_accuracy_across: Floats
    n_voted_rows: int
    votes_per_row: float
    vote_agreement: float
    vote_agreement_interval: Floats
    vote_alpha: float
    vote_alpha_interval: Floats
    vote_correlation: float
    effective_votes: float
    vote_level: Floats
    vote_level_accuracy: Floats
    vote_level_count: NDArray[np.int64]
    advice: tuple[str, ...] = ()

    def frame(self) -> Any:
        """The figures of each class as a table.

        Returns
        -------
        pandas.DataFrame of K rows
            Index ``class``; shares, bias with its interval, dialogue bias, pair accuracy.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return to_pandas(self._columns(), self.classes.tolist(), "class")

    def plot(
        self, figure: Any = None, *, name: str | None = None, **kwargs: Any
    ) -> TeacherReportDisplay:
        """Draw the figures with their intervals: reliability, class shares, bias, votes.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, default=None
            The figure to draw on, as for :meth:`TeacherReportDisplay.plot`.
        name : str, default=None
            Name of the teacher, for the title and the legends.
        **kwargs : object
            Further arguments, as for :meth:`TeacherReportDisplay.plot`.

        Returns
        -------
        display : TeacherReportDisplay
            Its ``figure_`` is the matplotlib Figure, and ``axes_`` the panels by name:
            ``"figures"``, ``"reliability"``, ``"shares"``, ``"bias"``, and ``"votes"`` if
            there are votes.

        Raises
        ------
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> from sklearn_dialpref import teacher_report
        >>> from sklearn_dialpref.datasets import load_support_chats
        >>> data = load_support_chats(n_human=300)
        >>> report = teacher_report(data.X, data.y_human, data.y_llm, random_state=0)
        >>> sorted(report.plot().axes_)
        ['bias', 'figures', 'reliability', 'shares', 'votes']
        """
        return TeacherReportDisplay(self).plot(figure, name=name, **kwargs)

    def _repr_html_(self) -> str:
        return report_html(self)

    def _columns(self) -> dict[str, Floats]:
        return {
            "teacher_share": self.teacher_share,
            "human_share": self.human_share,
            "bias": self.class_bias,
            "bias_low": self.class_bias_interval[:, 0],
            "bias_high": self.class_bias_interval[:, 1],
            "icc": self.class_icc,
            "dialogue_pvalue": self.class_dialogue_pvalue,
            "pairs_inside": self.class_pair_accuracy_inside,
            "pairs_across": self.class_pair_accuracy_across,
        }

    def __str__(self) -> str:
        lines = [
            f"Teacher against humans: {self.n_rows} rows of {self.n_dialogues} dialogues carry "
            "both labels (in brackets: 95 % intervals over dialogues)",
            "",
            f"accuracy            {self.accuracy:.2f} ({span(self.accuracy_interval)}), always "
            f"the most frequent class {self.majority_accuracy:.2f}",
            f"macro-F1            {self.macro_f1:.2f} ({span(self.macro_f1_interval)})",
            f"calibration error   {self.calibration_error:.2f}, scores minus accuracy "
            f"{self.overconfidence:+.2f} ({span(self.overconfidence_interval, '+')})",
            f"dialogue bias       {self.dialogue_icc:.2f} of the variance of errors, "
            f"p = {self.dialogue_bias_pvalue:.3f}",
            f"pairs inside        {self.pair_accuracy_inside:.2f} "
            f"({span(self.pair_accuracy_inside_interval)})",
            f"pairs across        {self.pair_accuracy_across:.2f} "
            f"({span(self.pair_accuracy_across_interval)}), inside minus across "
            f"{self.pair_accuracy_difference:+.2f} "
            f"({span(self.pair_accuracy_difference_interval, '+')})",
        ]
        if self.n_voted_rows:
            lines += [
                f"votes               {self.votes_per_row:.1f} on each of {self.n_voted_rows} "
                f"rows, worth {self.effective_votes:.1f} independent ones",
                f"vote agreement      {self.vote_agreement:.2f} "
                f"({span(self.vote_agreement_interval)}), Krippendorff's alpha "
                f"{self.vote_alpha:.2f} ({span(self.vote_alpha_interval)})",
            ]
        return "\n".join(
            [*lines, "", *self._table(), "", *(f"- {sentence}" for sentence in self.advice)]
        )

    def _table(self) -> list[str]:
        columns = self._columns()
        names = [str(name) for name in self.classes]
        width = max(len("class"), *map(len, names))
        head = " ".join(f"{name:>{max(7, len(name))}}" for name in columns)
        rows = [f"{'class':<{width}} {head}"]
        for name, values in zip(names, zip(*columns.values(), strict=True), strict=True):
            cells = (
                f"{value:>{max(7, len(column))}.{3 if column.endswith('pvalue') else 2}f}"
                for column, value in zip(columns, values, strict=True)
            )
            rows.append(f"{name:<{width}} {' '.join(cells)}")
        return rows


def span(interval: NDArray[np.float64], sign: str = "") -> str:
    """An interval in words."""
    low, high = interval
    return f"{low:{sign}.2f} to {high:{sign}.2f}"

"""The plot of a teacher report."""

from __future__ import annotations

from typing import Any

import numpy as np

from .drawing import MOST_LINES, REFERENCE, Display, as_legend_text, pyplot, shorten, shorten_all

__all__ = ["TeacherReportDisplay"]

LINE = 24  # columns of a class's name
INCHES = 0.18  # of a line
HUMAN, TEACHER, WARNING = REFERENCE["color"], "C0", "C1"


class TeacherReportDisplay(Display):
    """Plot of the figures of a teacher report; :meth:`TeacherReport.plot` makes it.

    Parameters
    ----------
    report : TeacherReport
        Report, as :func:`teacher_report` makes it.

    Attributes
    ----------
    name : str or None
        Name of the teacher in the plot.
    axes_ : dict of str to matplotlib Axes
        Panels of the plot, after :meth:`plot` was called: ``"figures"``, ``"reliability"``,
        ``"shares"``, ``"bias"``, and ``"votes"`` if there are votes.
    figure_ : matplotlib Figure or SubFigure
        Figure of the panels.

    See Also
    --------
    teacher_report : Makes the report.

    Examples
    --------
    >>> from sklearn_dialpref import TeacherReportDisplay, teacher_report
    >>> from sklearn_dialpref.datasets import load_support_chats
    >>> data = load_support_chats(n_human=300)
    >>> report = teacher_report(data.X, data.y_human, data.y_llm, random_state=0)
    >>> display = TeacherReportDisplay(report).plot(name="small LLM")
    >>> sorted(display.axes_)
    ['bias', 'figures', 'reliability', 'shares', 'votes']
    """

    def __init__(self, report: Any) -> None:
        self.report = report

    def frame(self) -> Any:
        """The figures of each class as a table, as :meth:`TeacherReport.frame` makes it.

        Returns
        -------
        pandas.DataFrame of K rows
        """
        return self.report.frame()

    def plot(
        self, figure: Any = None, *, name: str | None = None, **kwargs: Any
    ) -> TeacherReportDisplay:
        """Draw the panels, which need a figure rather than axes.

        Parameters
        ----------
        figure : matplotlib Figure or SubFigure, default=None
            An empty figure to draw on, which keeps its size and layout; ``"constrained"`` layout
            makes room for the names of the classes. None makes a new figure.
        name : str, default=None
            Name of the teacher in the plot, by default the one of the display.
        **kwargs : object
            For the teacher's dots and lines: ``color`` or ``alpha``.

        Returns
        -------
        self : TeacherReportDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        report, plt = self.report, pyplot(self)
        style = {"color": TEACHER, **kwargs}
        names = shorten_all(report.classes.tolist(), LINE, MOST_LINES)
        heights = np.array([INCHES * (text.count("\n") + 1.8) for text in names])
        sizes = [3.3, 1.1 + heights.sum()]
        if figure is None:
            figure = plt.figure(figsize=(11, sum(sizes)), layout="constrained")
        self.figure_ = figure
        upper, lower = figure.subfigures(2, 1, height_ratios=sizes)
        panels = ["figures", "reliability"] + ["votes"] * (len(report.vote_level) > 0)
        self.axes_ = dict(zip(panels, upper.subplots(1, len(panels)), strict=True))
        self.axes_["shares"], self.axes_["bias"] = lower.subplots(1, 2, sharey=True)
        middle = heights.cumsum() - heights / 2  # a class of more lines has more room
        teacher = shorten(self._title(name) or "teacher", LINE, MOST_LINES)
        _draw_figures(self.axes_["figures"], report, style)
        _draw_reliability(self.axes_["reliability"], report, style)
        if "votes" in self.axes_:
            _draw_votes(self.axes_["votes"], report, style)
        _draw_shares(self.axes_["shares"], report, middle, style, as_legend_text(teacher))
        _draw_bias(self.axes_["bias"], report, middle, style)
        self.axes_["shares"].set_yticks(middle, names, parse_math=False)
        self.axes_["shares"].set_ylim(heights.sum(), 0)
        for part in (upper, lower):
            legend = part.legend(
                loc="outside lower left", ncols=2, frameon=False, fontsize="small"
            )
            for text in legend.get_texts():
                text.set_parse_math(False)
        return self


def _draw_figures(ax: Any, report: Any, style: dict[str, Any]) -> None:
    rows = [
        ("accuracy", report.accuracy, report.accuracy_interval),
        ("macro-F1", report.macro_f1, report.macro_f1_interval),
        ("pairs inside", report.pair_accuracy_inside, report.pair_accuracy_inside_interval),
        ("pairs across", report.pair_accuracy_across, report.pair_accuracy_across_interval),
    ]
    places = np.arange(len(rows))
    values, intervals = [value for _, value, _ in rows], [interval for *_, interval in rows]
    _intervals(ax, places, values, intervals, style)
    ax.plot(report.majority_accuracy, 0, "|", color=HUMAN, ms=16, mew=2, label="majority class")
    ax.plot([0.5, 0.5], [1.6, 3.4], ":", color=HUMAN, label="chance, of pairs")
    ax.set_yticks(places, [name for name, *_ in rows])
    ax.set(xlim=(-0.04, 1.04), ylim=(len(rows) - 0.4, -0.6), title="Teacher against humans")
    ax.set_xlabel(f"{report.n_rows} rows, {report.n_dialogues} dialogues, 95 % intervals")


def _draw_reliability(ax: Any, report: Any, style: dict[str, Any]) -> None:
    full = report.reliability_count > 0
    ax.plot([0, 1], [0, 1], ":", color=HUMAN)
    confidence, accuracy = report.reliability_confidence[full], report.reliability_accuracy[full]
    ax.plot(confidence, accuracy, linewidth=1, **style)
    _dots(ax, confidence, accuracy, report.reliability_count[full], style)
    ax.set(xlabel="Mean top score", ylabel="Share right", ylim=(-0.04, 1.04), xlim=(-0.04, 1.04))
    ax.set_title(f"Reliability (error {report.calibration_error:.2f})")


def _draw_votes(ax: Any, report: Any, style: dict[str, Any]) -> None:
    ax.plot(report.vote_level, report.vote_level_accuracy, linewidth=1, **style)
    _dots(ax, report.vote_level, report.vote_level_accuracy, report.vote_level_count, style)
    ax.set(xlabel="Share of votes for the top class", ylabel="Share right", ylim=(-0.04, 1.04))
    ax.set(xlim=(min(0.5, report.vote_level.min()) - 0.04, 1.04))
    ax.set_title(f"Votes (alpha {report.vote_alpha:.2f})")


def _draw_shares(ax: Any, report: Any, places: Any, style: dict[str, Any], teacher: str) -> None:
    ax.hlines(places, report.human_share, report.teacher_share, color=HUMAN, lw=1)
    ax.plot(report.human_share, places, "o", color=HUMAN, label="humans")
    ax.plot(report.teacher_share, places, "D", markersize=5, label=teacher, **style)
    ax.set(xlabel="Share of the class", title="Classes", xlim=(0, None))


def _draw_bias(ax: Any, report: Any, places: Any, style: dict[str, Any]) -> None:
    _intervals(ax, places, report.class_bias, report.class_bias_interval, style, zero=True)
    ax.locator_params(axis="x", nbins=6)
    ax.axvline(0, color=HUMAN, ls=":")
    ax.set(xlabel="Teacher's share minus humans'", title="Bias, with 95 % intervals")


def _intervals(
    ax: Any, places: Any, values: Any, intervals: Any, style: dict[str, Any], zero: bool = False
) -> None:
    """A dot and a line in each row; a square of another colour if the interval excludes 0."""
    for row, value, (low, high) in zip(places, values, intervals, strict=True):
        excludes = zero and (low > 0 or high < 0)
        shown = {**style, "color": WARNING} if excludes else style
        ax.plot([low, high], [row, row], linewidth=2, solid_capstyle="butt", **shown)
        ax.plot(value, row, "s" if excludes else "o", **shown)


def _dots(ax: Any, x: Any, y: Any, count: Any, style: dict[str, Any]) -> None:
    """Dots whose area says how many rows they stand for."""
    ax.scatter(x, y, s=12 + 120 * count / count.max(), zorder=3, **{"alpha": 0.7, **style})

"""The plot of a teacher report."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import numpy as np

from .displays import new_axes

__all__ = ["TeacherReportDisplay"]

LINE, MOST_LINES = 24, 3  # characters and lines of a class's name
INCHES = 0.18  # of a line
HUMAN, TEACHER, WARNING = "#7f7f7f", "C0", "C3"


class TeacherReportDisplay:
    """The figures of a teacher report in one plot; :meth:`TeacherReport.plot` makes it.

    Parameters
    ----------
    report : TeacherReport

    Attributes
    ----------
    axes_ : dict of str to matplotlib Axes
        Panels of the plot, after :meth:`plot` was called: ``"figures"``, ``"reliability"``,
        ``"shares"``, ``"bias"``, and ``"votes"`` if there are votes.
    figure_ : matplotlib Figure
    """

    def __init__(self, report: Any) -> None:
        self.report = report

    def plot(self) -> TeacherReportDisplay:
        """Draw the panels into a new figure.

        Returns
        -------
        self : TeacherReportDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        report = self.report
        self.figure_ = new_axes(None, self).figure
        self.figure_.clear()
        names = [_name(label) for label in report.classes.tolist()]
        heights = np.array([INCHES * (name.count("\n") + 1.8) for name in names])
        sizes = [3.3, 1.1 + heights.sum()]
        self.figure_.set_size_inches(11, sum(sizes))
        self.figure_.set_layout_engine("constrained")
        upper, lower = self.figure_.subfigures(2, 1, height_ratios=sizes)
        panels = ["figures", "reliability"] + ["votes"] * (len(report.vote_level) > 0)
        self.axes_ = dict(zip(panels, upper.subplots(1, len(panels)), strict=True))
        self.axes_["shares"], self.axes_["bias"] = lower.subplots(1, 2, sharey=True)
        middle = heights.cumsum() - heights / 2  # a class of more lines has more room
        _draw_figures(self.axes_["figures"], report)
        _draw_reliability(self.axes_["reliability"], report)
        if "votes" in self.axes_:
            _draw_votes(self.axes_["votes"], report)
        _draw_shares(self.axes_["shares"], report, middle)
        _draw_bias(self.axes_["bias"], report, middle)
        self.axes_["shares"].set_yticks(middle, names, parse_math=False)
        self.axes_["shares"].set_ylim(heights.sum(), 0)
        for part in (upper, lower):
            part.legend(loc="outside lower left", ncols=2, frameon=False, fontsize="small")
        return self


def _name(label: Any) -> str:
    """The name of a class in lines that leave room for the plot."""
    return "\n".join(wrap(str(label), LINE, max_lines=MOST_LINES, placeholder=" …"))


def _draw_figures(ax: Any, report: Any) -> None:
    rows = [
        ("accuracy", report.accuracy, report.accuracy_interval),
        ("macro-F1", report.macro_f1, report.macro_f1_interval),
        ("pairs inside", report.pair_accuracy_inside, report.pair_accuracy_inside_interval),
        ("pairs across", report.pair_accuracy_across, report.pair_accuracy_across_interval),
    ]
    places = np.arange(len(rows))
    _intervals(ax, places, [value for _, value, _ in rows], [interval for *_, interval in rows])
    ax.plot(report.majority_accuracy, 0, "|", color=HUMAN, ms=16, mew=2, label="majority class")
    ax.plot([0.5, 0.5], [1.6, 3.4], ":", color=HUMAN, label="chance, of pairs")
    ax.set_yticks(places, [name for name, *_ in rows])
    ax.set(xlim=(-0.04, 1.04), ylim=(len(rows) - 0.4, -0.6), title="Teacher against humans")
    ax.set_xlabel(f"{report.n_rows} rows, {report.n_dialogues} dialogues, 95 % intervals")


def _draw_reliability(ax: Any, report: Any) -> None:
    full = report.reliability_count > 0
    ax.plot([0, 1], [0, 1], ":", color=HUMAN)
    ax.plot(
        report.reliability_confidence[full], report.reliability_accuracy[full], color=TEACHER, lw=1
    )
    _dots(
        ax,
        report.reliability_confidence[full],
        report.reliability_accuracy[full],
        report.reliability_count[full],
    )
    ax.set(xlabel="Mean top score", ylabel="Share right", ylim=(-0.04, 1.04), xlim=(-0.04, 1.04))
    ax.set_title(f"Reliability (error {report.calibration_error:.2f})")


def _draw_votes(ax: Any, report: Any) -> None:
    ax.plot(report.vote_level, report.vote_level_accuracy, color=TEACHER, lw=1)
    _dots(ax, report.vote_level, report.vote_level_accuracy, report.vote_level_count)
    ax.set(xlabel="Share of votes for the top class", ylabel="Share right", ylim=(-0.04, 1.04))
    ax.set(xlim=(min(0.5, report.vote_level.min()) - 0.04, 1.04))
    ax.set_title(f"Votes (alpha {report.vote_alpha:.2f})")


def _draw_shares(ax: Any, report: Any, places: Any) -> None:
    ax.hlines(places, report.human_share, report.teacher_share, color=HUMAN, lw=1)
    ax.plot(report.human_share, places, "o", color=HUMAN, label="humans")
    ax.plot(report.teacher_share, places, "D", color=TEACHER, ms=5, label="teacher")
    ax.set(xlabel="Share of the class", title="Classes", xlim=(0, None))


def _draw_bias(ax: Any, report: Any, places: Any) -> None:
    _intervals(ax, places, report.class_bias, report.class_bias_interval, zero=True)
    ax.locator_params(axis="x", nbins=6)
    ax.axvline(0, color=HUMAN, ls=":")
    ax.set(xlabel="Teacher's share minus humans'", title="Bias, with 95 % intervals")


def _intervals(ax: Any, places: Any, values: Any, intervals: Any, zero: bool = False) -> None:
    """A dot and a line in each row; of another colour where an interval leaves out 0."""
    for row, value, (low, high) in zip(places, values, intervals, strict=True):
        color = WARNING if zero and (low > 0 or high < 0) else TEACHER
        ax.plot([low, high], [row, row], color=color, lw=2, solid_capstyle="butt")
        ax.plot(value, row, "o", color=color)


def _dots(ax: Any, x: Any, y: Any, count: Any) -> None:
    """Dots whose area says how many rows they stand for."""
    ax.scatter(x, y, s=12 + 120 * count / count.max(), color=TEACHER, alpha=0.7, zorder=3)

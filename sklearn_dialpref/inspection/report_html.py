"""A teacher report as HTML, for notebooks."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

# Colours of the page around it and greys that can be seen through suit light and dark alike.
STYLE = """
.dialpref-report{color:inherit;font-size:.9em;line-height:1.4;max-width:60em;min-width:0}
.dialpref-report ul{margin:.4em 0 .8em;padding-left:1.3em}
.dialpref-report li{margin:.2em 0;overflow-wrap:anywhere}
.dialpref-report .title{font-weight:bold;margin:.2em 0}
.dialpref-report .note{opacity:.75;margin:.2em 0}
.dialpref-report .wide{overflow-x:auto;max-width:100%;margin:.4em 0}
.dialpref-report table{border-collapse:collapse;margin:0;width:auto;font-size:inherit;
 font-variant-numeric:tabular-nums}
.dialpref-report :is(th,td){color:inherit;background:none;text-align:right;padding:.2em .6em;
 vertical-align:top;border:0;border-bottom:1px solid rgba(128,128,128,.35);white-space:nowrap}
.dialpref-report thead th{vertical-align:bottom;white-space:normal;min-width:4.5em}
.dialpref-report :is(th,td):first-child{text-align:left}
.dialpref-report tbody th{font-weight:normal;white-space:normal;min-width:7em;max-width:16em;
 overflow-wrap:anywhere}
.dialpref-report .text{text-align:left;white-space:normal;min-width:11em}
.dialpref-report .off{font-weight:bold;text-decoration:underline dotted}
""".strip()

HEADINGS = (
    "Class",
    "Teacher’s share",
    "Human share",
    "Bias",
    "95 % interval",
    "Dialogue bias",
    "p",
    "Pairs inside",
    "Pairs across",
)


def report_html(report: Any) -> str:
    """Advice, figures with intervals, and the table of classes; all text is escaped.

    Parameters
    ----------
    report : TeacherReport

    Returns
    -------
    str
    """
    advice = "".join(f"<li>{escape(sentence)}</li>" for sentence in report.advice)
    return (
        f'<div class="dialpref-report"><style>{STYLE}</style>'
        f'<p class="title">Teacher against humans: {report.n_rows} rows of {report.n_dialogues} '
        "dialogues carry both labels</p>"
        f"{f'<ul>{advice}</ul>' if advice else ''}"
        f"{_table(('Figure', 'Value', '95 % interval', ''), _figures(report))}"
        f"{_table(HEADINGS, _classes(report))}"
        '<p class="note">Intervals are over dialogues; a bias whose interval excludes 0 is '
        "underlined.</p></div>"
    )


def _table(headings: tuple[str, ...], rows: list[str]) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(name: str, *cells: str, remark: str | None = None) -> str:
    columns = "".join(f"<td>{cell}</td>" for cell in cells)
    if remark is not None:
        columns += f'<td class="text">{escape(remark)}</td>'
    return f'<tr><th scope="row" dir="auto">{escape(name)}</th>{columns}</tr>'


def _figures(report: Any) -> list[str]:
    p_value = _number(report.dialogue_bias_pvalue, digits=3)
    between = f"of the variance of errors lies between dialogues, p = {p_value}"
    difference = (
        f"inside minus across: {_number(report.pair_accuracy_difference, '+')} "
        f"({_interval(report.pair_accuracy_difference_interval, '+')})"
    )
    majority = f"{_number(report.majority_accuracy)} by always answering the most frequent class"
    figures = [
        ("Accuracy", "accuracy", "", majority),
        ("Macro-F1", "macro_f1", "", ""),
        ("Calibration error", "calibration_error", "", ""),
        ("Scores minus accuracy", "overconfidence", "+", "above 0: overconfident"),
        ("Dialogue bias", "dialogue_icc", "", between),
        ("Pairs inside dialogues", "pair_accuracy_inside", "", "ordered rightly"),
        ("Pairs across dialogues", "pair_accuracy_across", "", difference),
    ]
    if report.n_voted_rows:
        worth = (
            f"{report.votes_per_row:.1f} votes on each of {report.n_voted_rows} rows, worth "
            f"{_number(report.effective_votes, digits=1)} independent ones"
        )
        figures += [
            ("Vote agreement", "vote_agreement", "", worth),
            ("Krippendorff’s alpha", "vote_alpha", "", ""),
        ]
    return [_figure(report, *figure) for figure in figures]


def _figure(report: Any, name: str, field: str, sign: str, remark: str) -> str:
    interval = getattr(report, f"{field}_interval", None)
    ends = "" if interval is None else _interval(interval, sign)
    return _row(name, _number(getattr(report, field), sign), ends, remark=remark)


def _classes(report: Any) -> list[str]:
    return [
        _row(
            str(name),
            _number(report.teacher_share[place]),
            _number(report.human_share[place]),
            _bias(report.class_bias[place], report.class_bias_interval[place]),
            _interval(report.class_bias_interval[place], "+"),
            _number(report.class_icc[place]),
            _number(report.class_dialogue_pvalue[place], digits=3),
            _number(report.class_pair_accuracy_inside[place]),
            _number(report.class_pair_accuracy_across[place]),
        )
        for place, name in enumerate(report.classes.tolist())
    ]


def _bias(bias: float, interval: Any) -> str:
    is_off = interval[0] > 0 or interval[1] < 0
    number = _number(bias, "+")
    return f'<span class="off">{number}</span>' if is_off else number


def _number(value: float, sign: str = "", digits: int = 2) -> str:
    """A figure; a dash where the data cannot give it."""
    return "–" if np.isnan(value) else f"{value:{sign}z.{digits}f}"


def _interval(interval: Any, sign: str = "") -> str:
    return "–" if np.isnan(interval).any() else " to ".join(_number(end, sign) for end in interval)

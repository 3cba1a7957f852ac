"""What all displays share: axes, names that fit, legends and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from textwrap import wrap
from typing import Any, Self, TypeVar
from unicodedata import east_asian_width

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import label_array

__all__ = [
    "MOST_LINES",
    "REFERENCE",
    "Display",
    "as_legend_text",
    "ask",
    "check_drawing",
    "drawn_at_once",
    "fit_cells",
    "line_style",
    "name_classes",
    "pyplot",
    "reference_line",
    "shorten",
    "shorten_all",
    "to_pandas",
]

REFERENCE = {"color": "#7f7f7f", "linestyle": ":"}  # a grey that shows on white and on black
SCALES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the usual size of a font
WIDTHS = (24, 18, 14, 10, 8, 6, 4)  # columns of a class's name
MOST_LINES = 3
SMALLEST = 3  # points of a font that can be read when enlarged
LINE_HEIGHT = 1.25  # of the size of a font
PADDING = (13, 11)  # points of ticks and gaps beside names and label, below and to the left


class Display:
    """A plot of figures that are also a table.

    ``from_estimator`` and ``from_predictions`` compute the figures, and draw them at once if they
    are given `ax`. ``plot`` draws them later, ``frame`` makes them a table.
    """

    name: str | None = None
    plot: Any  # each class has its own

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: plot() draws it, frame() gives its figures>"

    def _axes(self, ax: Any, **kwargs: Any) -> Any:
        """Return `ax`, or the axes of a new figure that makes room for all texts."""
        plt = pyplot(self)
        return plt.subplots(layout="constrained", **kwargs)[1] if ax is None else ax

    def _title(self, name: str | None) -> str | None:
        return self.name if name is None else name

    def _label(self, text: str, name: str | None) -> str:
        """What the legend calls a line."""
        name = self._title(name)
        return text if name is None else f"{text} ({name})"

    def _drawn(self, ax: Any, xlabel: str, ylabel: str) -> Self:
        """The display, with its axes and figure as attributes."""
        most_lines = 1 if _root(ax).get_layout_engine() is None else MOST_LINES
        for _ in range(2):  # one label takes room from the other
            settle(ax)
            box, points = ax.get_window_extent(), 72 / ax.figure.dpi
            fit_text(ax.xaxis.label, xlabel, box.width * points, most_lines)
            fit_text(ax.yaxis.label, ylabel, box.height * points, most_lines)
        settle(ax)
        fit_legend(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self


D = TypeVar("D", bound=Display)


def check_drawing(kind: type[Display], ax: Any, kwargs: dict[str, Any]) -> None:
    """Refuse arguments that would draw nothing, before anything is computed."""
    if ax is None and kwargs:
        raise TypeError(
            f"{kind.__name__} has no parameters {sorted(kwargs)}; if they are meant for the "
            "plot, pass them together with ax, or to plot()"
        )


def drawn_at_once(display: D, ax: Any, name: str | None, kwargs: dict[str, Any]) -> D:
    """The new display, drawn if there are axes."""
    check_drawing(type(display), ax, kwargs)
    display.name = name
    if ax is not None:
        display.plot(ax, **kwargs)
    return display


def pyplot(display: Any) -> Any:
    """Import matplotlib, or say how to get it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{type(display).__name__}.plot needs matplotlib, which is not installed; run "
            "`pip install 'sklearn-dialpref[plot]'`, or use frame()"
        ) from error
    return plt


def as_legend_text(text: str) -> str:
    """Keep what starts with an underscore, which matplotlib leaves out."""
    return f" {text}" if text.startswith("_") else text


def line_style(defaults: dict[str, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The defaults, except for what the user asks for, in long or in short names."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    return {**defaults, **normalize_kwargs(kwargs, Line2D)}


def reference_line(ax: Any, x: Any, y: Any, label: str) -> None:
    """Draw a line to compare with, once per axes."""
    if label not in ax.get_legend_handles_labels()[1]:
        ax.plot(x, y, label=label, **REFERENCE)


# -- texts that fit -------------------------------------------------------------------------


def shorten_all(names: Sequence[Any], width: int, lines: int = 1) -> list[str]:
    """The names in so many lines of so many columns; their ends tell cut ones apart."""
    texts = [shorten(str(name), width, lines) for name in names]
    counts = Counter(texts)
    return [
        text if counts[text] == 1 else shorten(str(name), width, lines, tail=width // 2)
        for name, text in zip(names, texts, strict=True)
    ]


@lru_cache(2**14)
def shorten(name: str, width: int, lines: int = 1, tail: int = 0) -> str:
    """The name in so many lines of so many columns; characters as wide as tall take two.

    A longer one is cut at its end, or before its last `tail` columns.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    text = "".join(c + "\0" if east_asian_width(c) in "WF" else c for c in text)
    parts = wrap(text, width)
    if len(parts) > lines:
        last = " ".join(parts[lines - 1 :])
        end = last[len(last) - tail :].strip(" \0")
        parts[lines - 1 :] = [last[: width - 1 - tail].rstrip(" \0") + "…" + end]
    return "\n".join(parts).replace("\0", "")


def settle(ax: Any) -> None:
    """Let the figure's own layout, if it has one, give the axes their place."""
    figure = _root(ax)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    ax.apply_aspect()


def _root(ax: Any) -> Any:
    """The figure that a subfigure is a part of."""
    figure = ax.figure
    while figure.figure is not figure:
        figure = figure.figure
    return figure


def fit_text(text: Any, value: str, length: float, most_lines: int) -> None:
    """Write an axis's label smaller, in lines or shorter if it is longer than the axis."""
    size, upright = _font_size("axes.labelsize"), text.get_rotation() == 90
    text.set_parse_math(False)
    whole = [(scale, len(value) + 1, 1) for scale in SCALES[:4]]
    half = [(scale, len(value) // 2 + 6, 2) for scale in SCALES[3:]] * (most_lines > 1)
    cut = [(SCALES[3], width, most_lines) for width in WIDTHS]
    for scale, width, lines in [*whole, *half, *cut]:
        text.set_fontsize(scale * size)
        text.set_text(shorten(value, width, lines))
        box = text.get_window_extent()
        if (box.height if upright else box.width) * 72 / text.figure.dpi <= length:
            return


def fit_legend(ax: Any) -> None:
    """A legend within the axes, without formulas."""
    room = ax.get_window_extent()
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    for scale, columns in ((1, 40), (0.8, 40), (0.8, 24), (0.7, 18), (0.6, 14), (0.5, 10)):
        names = map(as_legend_text, shorten_all(labels, columns, MOST_LINES))
        legend = ax.legend(handles, list(names), fontsize=scale * _font_size("legend.fontsize"))
        for text in legend.get_texts():
            text.set_parse_math(False)
        box = legend.get_window_extent()
        if box.width <= 0.9 * room.width and box.height <= 0.6 * room.height:
            return


def _font_size(parameter: Any) -> float:
    import matplotlib
    from matplotlib.font_manager import FontProperties

    return float(FontProperties(size=matplotlib.rcParams[parameter]).get_size_in_points())


# -- names of classes beside an axis --------------------------------------------------------


def name_classes(ax: Any, names: Sequence[Any], rotation: Any = None) -> None:
    """Name the classes below and to the left, at 0, 1, …, as far as there is room.

    A figure with a layout of its own makes that room, up to a third of what the axes have; in
    others it is what the axes leave free.
    """
    settle(ax)
    rooms = [_free(ax, upright) for upright in (True, False)]
    for _ in range(2):  # the names of one axis take room from the other
        _name_axis(ax.yaxis, names, 0, rooms[0])
        turned = _name_axis(ax.xaxis, names, rotation, rooms[1])
        ax.tick_params(axis="x", rotation=turned)
        settle(ax)


def _free(ax: Any, upright: bool) -> float:
    """Points to the left of the axes, or below, for the names of the classes."""
    box, points = ax.get_window_extent(), 72 / ax.figure.dpi
    if _root(ax).get_layout_engine() is not None:
        return 0.35 * points * float(box.width if upright else box.height)
    low, high = (box.y0, box.y1) if upright else (box.x0, box.x1)
    start = box.x0 if upright else box.y0
    edge = ax.figure.bbox.x0 if upright else ax.figure.bbox.y0
    for other in ax.figure.axes:
        far = other.get_tightbbox()
        if other is ax or far is None:
            continue
        span = (far.y0, far.y1) if upright else (far.x0, far.x1)
        end = far.x1 if upright else far.y1
        if end <= start and span[0] < high and span[1] > low:
            edge = max(edge, end)
    label = LINE_HEIGHT * (ax.yaxis if upright else ax.xaxis).label.get_fontsize()
    return max((start - edge) * points - label - PADDING[upright], PADDING[upright])


def _name_axis(axis: Any, names: Sequence[Any], rotation: Any, room: float) -> Any:
    """Write the names; return by how much they are turned."""
    ax, upright = axis.axes, axis.axis_name == "y"
    box, points = ax.get_window_extent(), 72 / ax.figure.dpi
    step = 0.95 * points * (box.height if upright else box.width) / len(names)
    size = _font_size(f"{axis.axis_name}tick.labelsize")
    probe = ax.text(0, 0, "", parse_math=False, in_layout=False)
    if upright:
        fitted, rotation = _fit(probe, names, size, room, step, _ways(names)), 0
    elif rotation is None:
        fitted, rotation = _fit(probe, names, size, step, room, _whole_words(names)), 0
        if fitted is None:
            fitted, rotation = _fit(probe, names, size, room, step, _ways(names)), 90
    else:
        fitted = _fit(probe, names, size, room, step, _ways(names))
    probe.remove()
    texts, font = fitted or _some_names(names, size, step)
    axis.set_ticks(np.arange(len(names)), texts, parse_math=False, fontsize=font)
    return rotation


Way = tuple[float, int, int, bool]  # scale of the font, columns, lines, whether names are whole


def _ways(names: Sequence[Any]) -> Iterator[Way]:
    """From names in full to a few letters."""
    lines = range(1, MOST_LINES + 1)
    yield from _whole_words(names, WIDTHS[1])
    for scales, widths in ((SCALES[:3], WIDTHS[:3]), (SCALES, WIDTHS[:5]), (SCALES, WIDTHS)):
        yield from ((s, w, n, False) for s in scales for n in reversed(lines) for w in widths)


def _whole_words(names: Sequence[Any], longest: int | None = None) -> Iterator[Way]:
    """Names in full, whose words, up to this length, stay whole."""
    length = max((_columns(word) for name in names for word in str(name).split()), default=1)
    length = length if longest is None else min(length, longest)
    for scale in SCALES[:5]:
        for lines in range(1, MOST_LINES + 1):
            yield from ((scale, w, lines, True) for w in WIDTHS if w >= length)


def _fit(
    probe: Any,
    names: Sequence[Any],
    size: float,
    length: float,
    thickness: float,
    ways: Iterator[Way],
) -> tuple[list[str], float] | None:
    """The first way in which all names are within this length and thickness, in points."""
    points = 72 / probe.figure.dpi
    for scale, width, lines, whole in ways:
        texts = shorten_all(names, width, lines)
        if whole and any("…" in text for text in texts):
            continue
        most = max(text.count("\n") for text in texts) + 1
        if most * LINE_HEIGHT * scale * size > thickness:
            continue
        parts = {part for text in texts for part in text.split("\n")}
        probe.set_fontsize(scale * size)
        probe.set_text("\n".join(sorted(parts, key=_columns)[-5:]))
        if probe.get_window_extent().width * points <= length:
            return texts, scale * size
    return None


def _columns(text: str) -> int:
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def _some_names(names: Sequence[Any], size: float, step: float) -> tuple[list[str], float]:
    """Every second, third, … name in the smallest font, where there is no room for all."""
    font = SCALES[-1] * size
    every = int(np.ceil(LINE_HEIGHT * font / step))
    texts = shorten_all(names, WIDTHS[-1])
    return [text if at % every == 0 else "" for at, text in enumerate(texts)], font


def fit_cells(ax: Any, texts: Sequence[Any], n_classes: int) -> None:
    """Make the numbers in a matrix as small as they must be, or hide them."""
    if not len(texts):
        return
    longest = max(texts, key=lambda text: len(text.get_text())).get_window_extent().width
    step = ax.get_window_extent().width / n_classes
    scale = min(1.0, 0.9 * step / longest)
    for text in texts:
        text.set_fontsize(scale * text.get_fontsize())
        text.set_visible(text.get_fontsize() >= SMALLEST)


# -- scores and tables ---------------------------------------------------------------------


def ask(estimator: Any, X: Any, y_human: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores of an estimator and their classes, sorted unless they are labels."""
    scores, classes = np.asarray(estimator.predict_proba(X)), np.asarray(estimator.classes_)
    if label_array(y_human).ndim == 2:
        return scores, classes
    order = np.argsort(classes, kind="stable")
    return scores[:, order], classes[order]


def to_pandas(columns: dict[str, Any], index: Any = None, index_name: str | None = None) -> Any:
    """Make a pandas DataFrame, or say how to get pandas."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "frame() needs pandas, which is not installed; run `pip install pandas`, or read the "
            "attributes, which are arrays"
        ) from error
    frame = pd.DataFrame(columns, index=index)
    frame.index.name = index_name
    return frame

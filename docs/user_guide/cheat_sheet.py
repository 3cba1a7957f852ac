"""Draw cheat_sheet.svg, one A4 page, from cheat_sheet.rst.

python docs/user_guide/cheat_sheet.py
"""

import re
import textwrap
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
WIDTH, HEIGHT, MARGIN, GAP = 794, 1123, 30, 12  # A4 at 96 dots per inch
COLUMN = (WIDTH - 2 * MARGIN - GAP) / 2
TOP, LINE, PADDING = 80, 15.7, 10
LONGEST = 57  # characters of a line of code, with its prompt
SANS = "font-family='Helvetica, Arial, sans-serif'"
MONO = "font-family='DejaVu Sans Mono, Menlo, Consolas, monospace'"
BLUE, ORANGE, INK, PALE = "#0b5c8c", "#b34700", "#1f2328", "#f3f6f9"
SUBTITLE = "Labels for every utterance, from few human and many LLM labels: the calls that matter"
HEADING = re.compile(r"^(.+)\n=+\n", re.MULTILINE)


def sections(rst: str) -> list[tuple[str, str]]:
    """Titles and bodies of the sections below the page's own title."""
    parts = HEADING.split(rst)[1:]
    return list(zip(parts[2::2], parts[3::2], strict=True))


def lines_of(body: str) -> list[tuple[str, str]]:
    """Kind ("words", "code" or "item") and text of each line to draw."""
    lines = []
    for line in filter(None, body.splitlines()):
        if line.startswith((">>> ", "... ")):
            if len(line.split("  # doctest")[0]) > LONGEST:
                raise ValueError(f"{line!r} is too long for a column; break it")
            lines.append(("code", line[4:].split("  # doctest")[0]))
        elif line.startswith("- "):
            name, what = re.fullmatch(r"- ``(.+)``: (.+)", line).groups()
            lines += [("code", name), ("item", what)]
        else:
            lines += [("words", part) for part in textwrap.wrap(line.replace("``", ""), 62)]
    return lines


def text(x: float, y: float, words: str, font: str, size: float, color: str, extra="") -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {font} font-size='{size}' fill='{color}' "
        f"xml:space='preserve' {extra}>{escape(words)}</text>"
    )


def code(x: float, y: float, line: str) -> str:
    """A line of code, its comment in another colour."""
    before, mark, comment = line.partition("  #")
    parts = escape(before)
    if mark:
        parts += f"<tspan fill='{ORANGE}'>{escape(mark + comment)}</tspan>"
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {MONO} font-size='10.7' fill='{INK}' "
        f"xml:space='preserve'>{parts}</text>"
    )


def panel(x: float, y: float, title: str, lines: list[tuple[str, str]]) -> str:
    height = panel_height(lines)
    shapes = [
        f"<rect x='{x:.1f}' y='{y:.1f}' width='{COLUMN:.1f}' height='{height:.1f}' rx='6' "
        f"fill='{PALE}' stroke='#d0d7de'/>",
        text(x + PADDING, y + 20, title, SANS, 14, BLUE, "font-weight='bold'"),
    ]
    at = y + 23
    for kind, line in lines:
        at += LINE
        if kind == "code":
            shapes.append(code(x + PADDING, at, line))
        else:
            shapes.append(text(x + PADDING + 12 * (kind == "item"), at, line, SANS, 11, INK))
    return "\n".join(shapes)


def panel_height(lines: list[tuple[str, str]]) -> float:
    return 23 + LINE * len(lines) + PADDING


def draw(rst: str) -> str:
    """The page as SVG."""
    panels = [(title, lines_of(body)) for title, body in sections(rst)]
    heights = [panel_height(lines) + GAP for _, lines in panels]
    # the first column takes what makes both most alike
    cut = min(range(1, len(panels)), key=lambda n: abs(sum(heights[:n]) - sum(heights[n:])))
    shapes = [
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>",
        text(MARGIN, 44, "sklearn-dialpref", SANS, 24, BLUE, "font-weight='bold'"),
        text(
            MARGIN,
            64,
            SUBTITLE,
            SANS,
            12,
            INK,
        ),
    ]
    for number, column in enumerate((panels[:cut], panels[cut:])):
        y = float(TOP)
        for title, lines in column:
            shapes.append(panel(MARGIN + number * (COLUMN + GAP), y, title, lines))
            y += panel_height(lines) + GAP
        if y - GAP > HEIGHT - MARGIN / 2:
            raise ValueError(f"column {number} ends at {y:.0f} of {HEIGHT}; shorten the page")
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='210mm' height='297mm' "
        f"viewBox='0 0 {WIDTH} {HEIGHT}'>\n" + "\n".join(shapes) + "\n</svg>\n"
    )


if __name__ == "__main__":
    page = draw((HERE / "cheat_sheet.rst").read_text(encoding="utf-8"))
    (HERE / "cheat_sheet.svg").write_text(page, encoding="utf-8")

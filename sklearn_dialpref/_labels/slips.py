"""Labels that can be read as they stand, but look like a slip."""

from __future__ import annotations

import warnings
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

# what an empty cell becomes where labels are made text
LOOK_MISSING = {"", "nan", "NaN", "None", "<NA>", "NaT"}
MEANT = "name all of them as classes=… if they are meant"
SHOWN = 5


def refuse_numbers_as_text(
    llm: NDArray[Any], votes: NDArray[Any], known: NDArray[Any] | None
) -> None:
    """Refuse scores that came as text, whose numbers would become classes."""
    if votes.dtype.kind != "U":
        return
    human = [] if known is None else known.tolist()
    others = set(votes.tolist()).difference(human)
    fractions = sorted(text for text in others if _is_number(text) and float(text) % 1 > 0)
    one_hot = others == {"0", "1"} and llm.ndim == 2 and _one_per_row(llm == "1")
    if one_hot or (fractions and all(map(_is_number, others))):
        raise ValueError(
            f"y_llm holds numbers as text, such as {fractions[0] if fractions else '1'!r}: if "
            "they are scores, make them floats (.astype(float)); if they are labels, "
            "name all classes as classes=…"
        )


def _one_per_row(table: NDArray[np.bool_]) -> bool:
    return bool((table.sum(axis=1) == 1).all())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def folded(label: Any) -> Any:
    """A label without its case and its outer and repeated blanks."""
    return " ".join(label.split()).casefold() if isinstance(label, str) else label


def warn_of_slips(
    classes: NDArray[Any], known: NDArray[Any] | None, votes: NDArray[Any] | None
) -> None:
    """Warn of classes that look like another class or like none, and of labels of two kinds."""
    labels = classes.tolist()
    twins = defaultdict(list)
    for label in labels:
        twins[folded(label)].append(label)
    alike = [group for group in twins.values() if len(group) > 1]
    blank = [label for label in labels if isinstance(label, str) and label.strip() in LOOK_MISSING]
    parts = []
    if alike:
        parts.append(
            f"the classes {alike[:SHOWN]} differ in case or blanks only: make them one "
            "(such as with .str.strip().str.lower())"
        )
    if blank:
        parts.append(
            f"the strings {blank} count as classes, not as missing: replace them by None or NaN"
        )
    if known is not None and votes is not None and len(known) and len(votes):
        human, llm = known.tolist(), votes.tolist()
        if not set(human) & set(llm):
            parts.append(
                f"y_human and y_llm have no label in common: {human[:SHOWN]} and {llm[:SHOWN]}; "
                "use the same names in both"
            )
    if parts:
        warnings.warn(f"{'; '.join(parts)}; or {MEANT}", UserWarning, stacklevel=5)


def near_misses(unknown: list[Any], classes: list[Any]) -> str:
    """What to add to an error on labels that are not among the classes."""
    by_folded = {folded(label): label for label in classes}
    pairs = [(label, by_folded[folded(label)]) for label in unknown if folded(label) in by_folded]
    if pairs:
        label, name = pairs[0]
        return (
            f". {label!r} differs from {name!r} in case or blanks only: make them one (such as "
            "with .str.strip().str.lower())"
        )
    texts = [label for label in unknown if isinstance(label, str)]
    if texts and all(map(_is_number, texts)):
        return ". If these are scores, make them floats (.astype(float))"
    return ""

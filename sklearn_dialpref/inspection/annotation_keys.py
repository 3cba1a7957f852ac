"""How an utterance is recognised when its label comes back, and cells that are no formulas."""

from __future__ import annotations

import json
import re
from collections import Counter
from hashlib import blake2b
from typing import Any

import numpy as np

from sklearn_dialpref._dialogues.columns import Dialogues
from sklearn_dialpref._dialogues.containers import EXACT
from sklearn_dialpref._dialogues.validation import check_dialogues

KEY = re.compile("u([0-9a-f]{16})-([0-9a-f]{16})")
# what spreadsheets take for a formula at the start of a cell; the quote marks that there was one
FORMULA = tuple("=+-@\t\r\n＝＋－＠'")
LABEL, LABEL_OF = "label", "label: "  # columns: of the class, and of each label of several


def check_texts(X: Any) -> Dialogues:
    """The utterances of ``X``; a ValueError if it has none, or if ids look alike in a file."""
    dialogues = check_dialogues(X)
    if dialogues.text is None:
        raise ValueError(
            "people label texts, but X holds features; pass the utterances that the features are "
            "of, in the same order"
        )
    names = {str(name) for name in set(dialogues.dialogue_id.tolist())}
    if len(names) <= dialogues.group.max():
        raise ValueError(
            "dialogue_id holds values that are the same as text, such as 1 and '1'; make them one "
            "type"
        )
    return dialogues


def utterance_keys(dialogues: Dialogues) -> list[str]:
    """A key for each row: where it stands, and what it says.

    Where it stands is the dialogue and the turn. Without numbers as turns, it is the dialogue
    and the text, and how many times it was said there before; without dialogues, the text.
    """
    assert dialogues.text is not None
    texts = dialogues.text.tolist()
    return [
        f"u{_digest(place)}-{_digest([text])}"
        for place, text in zip(_places(dialogues, texts), texts, strict=True)
    ]


def _places(dialogues: Dialogues, texts: list[str]) -> list[list[Any]]:
    if not dialogues.has_dialogues:
        return [[text] for text in texts]
    names = [str(name) for name in dialogues.dialogue_id.tolist()]
    turns = dialogues.turn_number
    if turns is not None and np.abs(turns).max() < EXACT:
        return [[name, int(turn)] for name, turn in zip(names, turns, strict=True)]
    places: list[list[Any]] = [[]] * len(texts)
    before: Counter[tuple[str, str]] = Counter()
    for row in np.lexsort((dialogues.turn, dialogues.group)).tolist():
        said = names[row], texts[row]
        places[row] = [*said, before[said]]
        before[said] += 1
    return places


def _digest(parts: list[Any]) -> str:
    return blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()


def neutral(cell: str) -> str:
    """The cell so that no spreadsheet takes it for a formula; :func:`restored` undoes it.

    Examples
    --------
    >>> from sklearn_dialpref.inspection.annotation_keys import neutral, restored
    >>> neutral("=1+1"), restored("'=1+1"), neutral("plain")
    ("'=1+1", '=1+1', 'plain')
    """
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def restored(cell: str) -> str:
    """What :func:`neutral` was given."""
    return cell.removeprefix("'")

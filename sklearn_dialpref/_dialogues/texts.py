"""Texts of utterances and their contexts; without scikit-learn and torch, for serving."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Dialogues


def check_unicode(texts: Iterable[Any], name: str = "X") -> None:
    r"""Refuse texts that no file, network or tokenizer can take: they hold a lone surrogate.

    Parameters
    ----------
    texts : iterable of str
        Entries of another type are not looked at.
    name : str, default="X"
        What the texts are called in the error.

    Raises
    ------
    ValueError
        If a text holds half of a surrogate pair; the error names the first such row.

    Examples
    --------
    >>> from sklearn_dialpref._dialogues.texts import check_unicode
    >>> check_unicode(["Hi!", "I am fine \U0001f600"])
    >>> check_unicode(["Hi!", "I am fine \ud83d"])
    Traceback (most recent call last):
    ...
    ValueError: row 1 of X has a lone surrogate ('\ud83d'), which cannot be encoded as UTF-8, ...
    """
    for row, text in enumerate(texts):
        try:
            if isinstance(text, str):
                text.encode()
        except UnicodeEncodeError:
            check_encodable(text, f"row {row} of {name}")


def check_encodable(text: str, name: str) -> None:
    r"""Refuse a single text that holds a lone surrogate, as :func:`check_unicode` does.

    Examples
    --------
    >>> from sklearn_dialpref._dialogues.texts import check_encodable
    >>> check_encodable("I am fine \ud83d", "the task")
    Traceback (most recent call last):
    ...
    ValueError: the task has a lone surrogate ('\ud83d'), which cannot be encoded as UTF-8, ...
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = ascii(text[max(0, error.start - 20) : error.end + 20])
        raise ValueError(
            f"{name} has a lone surrogate ({text[error.start]!r}), which cannot be encoded as "
            f"UTF-8, at position {error.start}: {around}; read the file again with "
            "errors='replace', or repair it by "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from None


def text_slots(dialogues: Dialogues, context_turns: int) -> list[NDArray[Any]]:
    """The texts of each row: the utterance and, if there is any, its context."""
    if dialogues.text is None:
        if context_turns:
            raise ValueError(
                f"context_turns={context_turns} needs text, but encoder='precomputed' "
                "has features; put the context into the features"
            )
        return []
    if not context_turns:
        context = dialogues.context
        return [dialogues.text] if context is None else [dialogues.text, context]
    if dialogues.context is not None:
        raise ValueError(
            f"X has a column 'context', but context_turns={context_turns} would make "
            "one: set context_turns=0, or drop the column"
        )
    return [dialogues.text, neighbours(dialogues, range(-context_turns, 0))]


def fitted_slots(dialogues: Dialogues, context_turns: int, n_slots: int) -> list[NDArray[Any]]:
    """As :func:`text_slots`, for an estimator that was fitted to ``n_slots`` of them."""
    slots = text_slots(dialogues, context_turns)
    if len(slots) != n_slots:
        had, has = ("with", "without") if n_slots > 1 else ("without", "with")
        raise ValueError(
            f"the estimator was fitted {had} a column 'context' but X comes {has} one; "
            "prepare X as for fit"
        )
    return slots


def distinct_texts(slots: list[NDArray[Any]]) -> tuple[list[str], NDArray[np.int64]]:
    """Distinct texts, sorted, and each row's places among them; -1 for an empty text.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dialpref._dialogues.texts import distinct_texts
    >>> texts, index = distinct_texts([np.array(["b", "a"], object), np.array(["", "b"], object)])
    >>> texts, index.tolist()
    (['a', 'b'], [[1, -1], [0, 1]])
    """
    texts, index = np.unique(np.concatenate(slots), return_inverse=True)
    index = index.reshape(len(slots), -1).T
    if texts[0] == "":
        texts, index = texts[1:], index - 1
    return texts.tolist(), np.ascontiguousarray(index)


def row_of(slots: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """As :func:`distinct_texts`, of a single row and unsorted, in a fraction of the time."""
    texts = [text for text in slots if text]
    index = [[0] if len(slots) == 1 else [0, 1 if len(texts) == 2 else -1]]
    return texts, np.array(index)


def neighbours(
    dialogues: Dialogues, offsets: range, speakers: np.ndarray | None = None
) -> np.ndarray:
    """Join the utterances some places before or after each one, in the same dialogue.

    Parameters
    ----------
    dialogues : Dialogues
        Utterances as :func:`check_dialogues` returns them, with text.
    offsets : range
        Places relative to the utterance in turn order, such as ``range(-2, 0)``.
    speakers : ndarray of shape (n,), dtype object, or None
        Names that come before the utterances.

    Returns
    -------
    joined : ndarray of shape (n,), dtype object
        Lines; ``""`` where the dialogue has none of them.

    Raises
    ------
    ValueError
        If the dialogues have no text.

    Examples
    --------
    >>> from sklearn_dialpref._dialogues.validation import check_dialogues
    >>> from sklearn_dialpref._dialogues.texts import neighbours
    >>> neighbours(check_dialogues([["a", "Hi"], ["a", "Hello"]]), range(-1, 0)).tolist()
    ['', 'Hi']
    """
    if dialogues.text is None:
        raise ValueError(
            "Context is made of text, but X holds precomputed features; give a column 'text'"
        )
    utterances = dialogues.text if speakers is None else speakers + ": " + dialogues.text
    order = np.lexsort((dialogues.turn, dialogues.group))
    utterances, group = utterances[order], dialogues.group[order]
    longest = dialogues.turn.max(initial=0)
    joined = np.full(len(utterances), "", dtype=object)
    for offset in offsets:
        if abs(offset) > longest:
            continue
        rows = np.arange(max(0, -offset), len(utterances) - max(0, offset))
        rows = rows[group[rows] == group[rows + offset]]
        joined[rows] = lines(joined[rows], utterances[rows + offset])
    context = np.empty_like(joined)
    context[order] = joined
    return context


def lines(above: np.ndarray, below: Any) -> np.ndarray:
    """Texts one above the other, without an empty line."""
    return above + np.where(above == "", "", "\n").astype(object) + below

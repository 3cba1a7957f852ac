"""Tables that come one after the other, each of whole dialogues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .validation import dialogue_ids


def checked_batches(batches: Iterable[Any]) -> Iterator[Any]:
    """The same tables; a ValueError where a dialogue goes on in the next one.

    Parameters
    ----------
    batches : iterable of DataFrame, ndarray or sequence of str

    Yields
    ------
    DataFrame, ndarray or sequence of str

    Examples
    --------
    >>> from sklearn_dialpref._dialogues.batches import checked_batches
    >>> list(checked_batches([[["a", "Hi!"], ["a", "Hello."]], [["b", "Hi!"]]]))
    [[['a', 'Hi!'], ['a', 'Hello.']], [['b', 'Hi!']]]
    >>> list(checked_batches([[["a", "Hi!"]], [["a", "Hello."]]]))
    Traceback (most recent call last):
    ...
    ValueError: dialogue 'a' is in batch 0 and in batch 1, so that utterances lack their ...
    """
    before: set[Any] = set()
    for number, batch in enumerate(batches):
        ids = dialogue_ids(batch)
        names = set() if ids is None else set(ids.tolist())
        # dialogues that are farther apart are not looked for: their names would fill the memory
        for name in before & names:
            raise ValueError(
                f"dialogue {name!r} is in batch {number - 1} and in batch {number}, so that "
                "utterances lack their context; put the rows of a dialogue into one batch"
            )
        before = names
        yield batch

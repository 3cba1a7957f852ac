"""Preparation of the input: preceding utterances as context, annotators' votes as scores."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import narwhals as nw
import numpy as np
from sklearn.utils import check_scalar

from ._dialogues.texts import lines, neighbours
from ._dialogues.validation import Dialogues, check_dialogues, label_array, missing_in
from ._labels.scores import vote_shares
from ._labels.targets import class_names

__all__ = ["votes_to_scores", "with_context"]


def with_context(X: Any, turns: int = 1, *, following: int = 0, speakers: bool = False) -> Any:
    r"""Add a column ``context``: the utterances before each one, in the same dialogue.

    Do this before a split takes rows out of their dialogue: cross-validation on human-labelled
    rows hands over an utterance without its unlabelled neighbours.

    Parameters
    ----------
    X : DataFrame of n rows
        pandas, polars or any other that narwhals reads, with columns ``dialogue_id`` and
        ``text``, and optionally ``turn`` (default: row order).
    turns : int, default=1
        How many preceding utterances to take, at most; 0 gives empty contexts.
    following : int, default=0
        How many utterances after it to take as well, at most. A live dialogue has none of
        them yet: only for dialogues that are over.
    speakers : bool, default=False
        Whether each line begins with its speaker, as in a transcript, and a last one names that
        of the utterance itself. `X` then needs a column ``speaker``.

    Returns
    -------
    X_context : DataFrame of n rows
        `X` in its own kind, with its rows, their order and their index, and a column
        ``context``: the preceding utterances in turn order, joined by a line feed, empty at
        the start of a dialogue; then, after a line with "…", those that follow.

    Raises
    ------
    TypeError
        If `X` is not a DataFrame, or `turns` or `following` no integer.
    ValueError
        If `X` has a column ``context`` already, `turns` or `following` is negative, or speakers
        are asked for and missing.

    See Also
    --------
    LabelledGroupKFold : Folds that test on human-labelled rows.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_dialpref.preprocessing import with_context
    >>> X = pd.DataFrame({
    ...     "dialogue_id": ["a", "b", "a", "a"],
    ...     "text": ["Hi", "Hello", "How are you?", "Fine"],
    ... })
    >>> with_context(X, turns=2)["context"].tolist()
    ['', '', 'Hi', 'Hi\nHow are you?']
    >>> X["speaker"] = ["Ann", "Ann", "Bob", "Ann"]
    >>> with_context(X, turns=1, speakers=True)["context"].tolist()
    ['Ann:', 'Ann:', 'Ann: Hi\nBob:', 'Bob: How are you?\nAnn:']
    """
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if not isinstance(frame, nw.DataFrame):
        raise TypeError(
            "with_context needs a DataFrame (pandas, polars, ...) with the columns dialogue_id"
            f" and text, got {type(X).__name__}; build one first"
        )
    if "context" in frame.columns:
        raise ValueError(
            "X has a column 'context' already; drop or rename it to have it made anew"
        )
    dialogues = check_dialogues(X, precomputed=False)
    for name, number in (("turns", turns), ("following", following)):
        check_scalar(number, name, Integral, min_val=0)
    names = _speakers(dialogues) if speakers else None
    context = neighbours(dialogues, range(-int(turns), 0), names)
    if names is not None:
        context = lines(context, names + ":")
    if following:
        after = neighbours(dialogues, range(1, int(following) + 1), names)
        context = np.where(after == "", context, lines(lines(context, "…"), after))
    column = nw.new_series(
        "context", context.tolist(), dtype=nw.String, backend=frame.implementation
    )
    return frame.with_columns(column).to_native()


def _speakers(dialogues: Dialogues) -> np.ndarray:
    if dialogues.speaker is None:
        raise ValueError("speakers=True needs a column 'speaker' in X; add it, or leave it out")
    if (missing := missing_in(dialogues.speaker)).any():
        raise ValueError(
            f"speaker is missing in row {np.argmax(missing)}; name it, such as 'unknown'"
        )
    return np.array([str(name) for name in dialogues.speaker], dtype=object)


def votes_to_scores(votes: Any, classes: Any) -> np.ndarray:
    r"""Turn the votes of annotators or prompts into scores: the share of votes for each class.

    Parameters
    ----------
    votes : array-like or DataFrame of shape (n, A) or (n,)
        The label that each of A annotators gave to each utterance, strings, numbers or
        booleans; missing is None, NaN or ``pd.NA``.
    classes : array-like of shape (K,)
        The class labels, in the order wanted for the columns.

    Returns
    -------
    scores : ndarray of shape (n, K), dtype float64
        In [0, 1], rows summing to 1; NaN throughout a row without any vote.

    Raises
    ------
    ValueError
        If a vote is not among the classes, `classes` is empty, repeats itself or has missing
        values, or `votes` is neither 1-D nor 2-D.

    Notes
    -----
    The score of utterance i for class c is its share of the votes given,

    .. math:: s_{ic} = \frac{|\{a : v_{ia} = c\}|}{|\{a : v_{ia} \text{ is given}\}|},

    the averaged ensemble score of a prompt bank whose prompts answer with a label. Votes of
    multilabel annotators are not of this form: average each label's 0/1 votes instead.

    Examples
    --------
    >>> from sklearn_dialpref.preprocessing import votes_to_scores
    >>> votes_to_scores([["neg", "pos"], ["pos", None], [None, None]], classes=["neg", "pos"])
    array([[0.5, 0.5],
           [0. , 1. ],
           [nan, nan]])
    """
    names = class_names(classes)
    table = label_array(votes, "votes")
    if table.ndim not in (1, 2):
        raise ValueError(f"votes must have shape (n,) or (n, A), got {table.shape}")
    return vote_shares(table, names, name="votes")

"""What an LLM's labels, votes and scores say of each class."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal, InvalidOperation
from reprlib import repr as short_repr
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.containers import (
    EXACT,
    is_number,
    label_array,
    loses_digits,
    missing_in,
)

from .slips import near_misses

ONE_TYPE = "use one type (all str, bool or numbers) and None where a label is missing"
FLOATS = (
    "float columns count as scores: if these are votes that became floats beside missing ones, "
    "use .astype('Int64') on their DataFrame"
)


# -- labels ---------------------------------------------------------------------------------


def plain_labels(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Known labels as an array of str, bool or number, refusing all else."""
    if values.dtype.kind == "O":
        values = _as_one_type(values, name)
    if values.dtype.kind not in "Ubiuf":
        raise ValueError(
            f"{name} holds {values.ravel()[:1].tolist()} of the type {values.dtype}, which are "
            f"not labels; {ONE_TYPE}"
        )
    floats = values if values.dtype.kind == "f" else np.zeros(0)
    if (rounded := np.isfinite(floats) & (np.abs(floats) >= EXACT)).any():
        raise ValueError(
            f"{name} holds the float {floats[rounded][0]}: from 2**53 on floats round whole "
            "numbers, so that classes can become one; use text, or the type Int64 beside missing "
            "ones"
        )
    return values


def _as_one_type(values: NDArray[Any], name: str) -> NDArray[Any]:
    kinds = {
        str if isinstance(v, str) else bool if isinstance(v, bool | np.bool_) else
        float if is_number(v) else type(v)
        for v in values
    }  # fmt: skip
    if len(kinds) > 1:
        shown = sorted(kind.__name__ for kind in kinds)
        raise ValueError(f"{name} mixes labels of the types {shown}; {ONE_TYPE}")
    labels = values.tolist()
    if not kinds <= {str, bool, float}:
        raise ValueError(
            f"{name} holds {short_repr(labels[0])} of the type {kinds.pop().__name__}, which is "
            f"not a label; {ONE_TYPE}"
        )
    if kinds == {float} and loses_digits(labels):
        raise ValueError(
            f"{name} holds whole numbers that numpy would round, such as "
            f"{max(labels, key=abs)}; use text"
        )
    return np.asarray(labels)


def encode(labels: NDArray[Any], classes: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Positions of ``labels`` in the sorted or given ``classes``."""
    order = np.argsort(classes, kind="stable")
    index = np.searchsorted(classes, labels, sorter=order).clip(max=len(classes) - 1)
    codes = order[index]
    if (strange := classes[codes] != labels).any():
        unknown = sorted(set(labels[strange].tolist()))[:5]
        raise ValueError(
            f"{name} holds {unknown} which are not among the classes {classes.tolist()}; correct "
            "them, mark them as missing (None), or pass all classes as classes=…"
            f"{near_misses(unknown, classes.tolist())}"
        )
    return codes


# -- votes or scores ------------------------------------------------------------------------


def kind_of_scores(llm: NDArray[Any]) -> str:
    """Whether these are "votes" or "scores"; what could be either is refused."""
    if llm.ndim == 1:
        _refuse_fractions(llm)
        return "votes"
    if llm.dtype.kind == "f":
        return "scores"
    if llm.dtype.kind == "O":
        known = llm[~missing_in(llm)]
        # ints beside floats are the 0 and 1 of a table of scores
        numbers = all(_is_real(v) for v in known)
        if numbers and any(isinstance(v, float | np.floating) for v in known):
            return "scores"
    if _is_one_hot(llm):
        raise ValueError(
            "each row of y_llm holds a single 1 beside zeros, as ints or bools, which can be "
            "scores or votes: for scores, with a column per class, make them floats "
            "(.astype(float)); for votes pass votes_to_scores(y_llm, classes)"
        )
    return "votes"


def _refuse_fractions(labels: NDArray[Any]) -> None:
    known = labels[~missing_in(labels)].tolist()
    fractions = [v for v in known if isinstance(v, float | np.floating) and v % 1 != 0]
    if fractions:
        raise ValueError(
            f"y_llm is 1-D and holds {fractions[0]!r}, which is not a label: pass scores with a "
            "column per class, for two classes np.column_stack([1 - y_llm, y_llm])"
        )


def _is_one_hot(llm: NDArray[Any]) -> bool:
    answered = llm[~missing_in(llm).all(axis=1)]
    if not len(answered) or missing_in(answered).any():
        return False
    ones = answered == 1
    return bool((ones | (answered == 0)).all() and (ones.sum(axis=1) == 1).all())


def _is_real(value: Any) -> bool:
    return is_number(value) and not isinstance(value, bool)


def votes_given(llm: NDArray[Any], name: str = "y_llm") -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The votes that are there, flat, and where they stand in the (n, A) table."""
    table = llm[:, None] if llm.ndim == 1 else llm
    given = ~missing_in(table)
    known = table[given]
    return plain_labels(known, name), given


# -- scores ---------------------------------------------------------------------------------


def column_names(y: Any) -> list[Any] | None:
    """The names of the columns of a DataFrame; None for anything else."""
    native = nw.from_native(y, pass_through=True, allow_series=True)
    if not isinstance(native, nw.DataFrame):
        return None
    return label_array(list(native.columns), "names of columns").tolist()


def cast_columns_to_label_type(
    columns: list[Any], labels: NDArray[Any] | None
) -> NDArray[Any] | None:
    """The columns as labels of the type of ``labels``: frames often turn names to text."""
    if labels is None or not len(labels) or labels.dtype.kind == "U":
        return None
    if all(not isinstance(column, str) for column in columns):
        return None
    keys = [_name_key(column, numeric=labels.dtype.kind != "b") for column in columns]
    try:
        if labels.dtype.kind == "b":
            return np.array([{"True": True, "False": False}[str(key)] for key in keys])
        return np.array(keys).astype(labels.dtype)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _aligned(y_llm: Any, llm: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float64]:
    """Float scores with one column per class, in the order of ``classes``."""
    try:
        table = np.where(missing_in(llm), np.nan, llm).astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"y_llm must hold numbers in [0, 1] as scores: {error}") from None
    names = column_names(y_llm)
    if names is None:
        if table.shape[1] != len(classes):
            raise ValueError(
                f"y_llm has {table.shape[1]} columns but there are {len(classes)} classes "
                f"{classes.tolist()}; pass a DataFrame with the class names as columns, "
                f"classes=…, or votes_to_scores(…) if these are votes; {FLOATS}"
            )
        return table
    advice = f"name the score columns after the classes, one each; {FLOATS}"
    return table[:, column_places(names, classes, "y_llm", advice)]


def column_places(names: list[Any], classes: NDArray[Any], table: str, advice: str) -> list[int]:
    """Where each of ``classes`` stands among the column ``names`` of a table."""
    numeric = classes.dtype.kind in "iuf"
    place_of = {_name_key(column, numeric): place for place, column in enumerate(names)}
    wanted = [_name_key(label, numeric) for label in classes.tolist()]
    if set(place_of) != set(wanted) or len(names) != len(wanted):
        raise ValueError(
            f"{table} has the columns {names} but the classes are {classes.tolist()}; {advice}"
        )
    return [place_of[label] for label in wanted]


def _name_key(name: Any, numeric: bool) -> Decimal | str:
    """A label as text, or 1 and 1.0 and "1" alike: ints beside NaN have become floats."""
    text = str(name)
    if numeric:
        with suppress(InvalidOperation):
            number = Decimal(text)  # a float would round large numbers
            return number if number.is_finite() else text
    return text


def _check_range(table: NDArray[np.float64]) -> None:
    outside = (table < -1e-6) | (table > 1 + 1e-6) | np.isinf(table)
    if outside.any():
        row = int(np.argmax(outside.any(axis=1)))
        raise ValueError(
            f"scores in y_llm must lie in [0, 1], but row {row} holds {table[row].tolist()}; "
            f"turn logits into probabilities first; {FLOATS}"
        )


def single_label_scores(
    y_llm: Any, llm: NDArray[Any] | None, kind: str, classes: NDArray[Any]
) -> NDArray[np.float32] | None:
    """Scores whose rows sum to 1, from votes or scores; NaN rows where there are none."""
    if llm is None:
        return None
    if kind == "votes":
        return vote_shares(llm, classes).astype(np.float32)
    table = _aligned(y_llm, llm, classes)
    _check_range(table)
    total = table.sum(axis=1)
    partly = np.isnan(table).any(axis=1) & ~np.isnan(table).all(axis=1)
    wrong = partly | (np.abs(total - 1) > 1e-3)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"each row of scores in y_llm must sum to 1 or be all NaN, but row {row} holds "
            f"{table[row].tolist()}; divide by the row sums, use votes_to_scores(…) if these are "
            f"votes, or pass a 2-D y_human if several labels can hold at once; {FLOATS}"
        )
    return (table / total[:, None]).astype(np.float32)


def vote_shares(
    llm: NDArray[Any], classes: NDArray[Any], name: str = "y_llm"
) -> NDArray[np.float64]:
    """Share of the given votes that each class has, (n, K); NaN rows where nobody voted."""
    votes, given = votes_given(llm, name)
    shares = np.zeros((len(llm), len(classes)))
    if len(votes):
        np.add.at(shares, (np.nonzero(given)[0], encode(votes, classes, name)), 1.0)
    with np.errstate(invalid="ignore"):
        return shares / given.sum(axis=1, keepdims=True)


def multilabel_scores(y_llm: Any, llm: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float32]:
    """Scores of each label on its own; NaN where there is none."""
    if llm.ndim != 2:
        raise ValueError(
            f"y_human is multilabel with {len(classes)} labels but y_llm is 1-D; pass scores "
            f"of shape (n, {len(classes)}) in [0, 1]"
        )
    table = _aligned(y_llm, llm, classes)
    _check_range(table)
    return table.astype(np.float32)

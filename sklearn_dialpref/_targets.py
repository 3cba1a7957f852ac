"""The only door for labels and scores, and the order of rows that follows from all of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from ._validation import Dialogues, codes_of, label_array, missing_in

__all__ = ["Targets", "canonical_order", "check_targets", "class_weights", "vote_shares"]


@dataclass(frozen=True)
class Targets:
    """What is known of each row's class.

    Attributes
    ----------
    classes : ndarray of shape (K,)
        Sorted class labels, or the label columns of a multilabel problem.
    multilabel : bool
    human : ndarray
        Single-label: (n,) int64, position in ``classes``, -1 where missing.
        Multilabel: (n, K) float32 of 0, 1 or NaN.
    scores : ndarray of shape (n, K), float32, or None
        The teacher's scores; NaN where there is none.
    """

    classes: NDArray[Any]
    multilabel: bool
    human: NDArray[Any]
    scores: NDArray[np.float32] | None

    @property
    def has_human(self) -> NDArray[np.bool_]:
        """Rows with at least one human label, shape (n,)."""
        if self.multilabel:
            return np.asarray(~np.isnan(self.human).all(axis=1))
        return np.asarray(self.human >= 0)

    @property
    def has_score(self) -> NDArray[np.bool_]:
        """Rows that the teacher scored, shape (n,)."""
        if self.scores is None:
            return np.zeros(len(self.human), dtype=bool)
        return np.asarray(~np.isnan(self.scores).all(axis=1))


def check_targets(y_human: Any, y_llm: Any, n_rows: int, classes: Any = None) -> Targets:
    """Read human labels and the LLM's labels, votes or scores.

    Parameters
    ----------
    y_human : None, or array-like of shape (n,) or (n, L)
        Labels, missing where None, NaN or pd.NA; 2-D: 0, 1 or missing per label (multilabel).
    y_llm : None, or array-like of shape (n,), (n, A) or (n, K)
        Labels, votes (not of a float type), or float scores.
    n_rows : int
        Rows of ``X``.
    classes : array-like, default=None
        All classes; by default those found in the labels, votes and score columns.

    Returns
    -------
    Targets

    Raises
    ------
    ValueError
        If anything is of another length or form, out of range or ambiguous, or nothing is known.

    Examples
    --------
    >>> from sklearn_dialpref._targets import check_targets
    >>> targets = check_targets(["b", None], [["a", "b"], ["b", "b"]], 2)
    >>> targets.human.tolist(), targets.scores.tolist()
    ([1, -1], [[0.5, 0.5], [0.0, 1.0]])
    """
    if y_human is None and y_llm is None:
        raise ValueError(
            "fit requires y to be passed, but the target y is None: no row has a label, y_human "
            "and y_llm are both missing; label some utterances, or pass the labels of an LLM"
        )
    human = None if y_human is None else _column_or_table(label_array(y_human))
    if human is not None:
        _check_length(human, n_rows, "y_human")
    multilabel = human is not None and human.ndim == 2
    llm = None if y_llm is None else label_array(y_llm)
    if llm is not None:
        _check_length(llm, n_rows, "y_llm")
        if llm.ndim > 2:
            raise ValueError(f"y_llm must be 1-D or 2-D, got shape {llm.shape}")

    if multilabel:
        assert human is not None
        names, table = _multilabel_human(y_human, human, classes)
        scores = None if llm is None else _multilabel_scores(y_llm, llm, names)
        targets = Targets(names, True, table, scores)
    else:
        known = None if human is None else _known_labels(human)
        kind = "none" if llm is None else _kind_of_scores(llm)
        names = _single_label_classes(known, y_llm, llm, kind, classes)
        codes = np.full(n_rows, -1, dtype=np.int64)
        if human is not None and known is not None and len(known):
            codes[~missing_in(human)] = _encode(known, names, "y_human")
        targets = Targets(names, False, codes, _single_label_scores(y_llm, llm, kind, names))
    if not (targets.has_human.any() or targets.has_score.any()):
        raise ValueError(
            "no row has a label: y_human and y_llm are all missing; label some utterances, or "
            "pass the labels of an LLM as y_llm"
        )
    return targets


def _check_length(values: NDArray[Any], n_rows: int, name: str) -> None:
    if values.ndim == 0 or len(values) != n_rows:
        got = "a scalar" if values.ndim == 0 else f"{len(values)} rows"
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: X has {n_rows} rows "
            f"but {name} has {got}; one entry per utterance is needed, None where missing"
        )


def _column_or_table(human: NDArray[Any]) -> NDArray[Any]:
    if human.ndim == 2 and human.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected. Please change the shape "
            "of y_human to (n_samples, ), for example using ravel().",
            DataConversionWarning,
            stacklevel=4,
        )
        return human.ravel()
    if human.ndim > 2:
        raise ValueError(f"y_human must be 1-D or 2-D (multilabel), got shape {human.shape}")
    return human


def _known_labels(human: NDArray[Any]) -> NDArray[Any]:
    """The labels that are there, in a type of their own."""
    known = human[~missing_in(human)]
    if known.dtype.kind == "O":
        known = _tight(known, "y_human")
    if known.dtype.kind == "f" and not np.isfinite(known).all():
        raise ValueError(
            "Input y_human contains infinity or a value too large for dtype('float64')."
        )
    if len(known):
        check_classification_targets(known)
    return known


def _tight(values: NDArray[Any], name: str) -> NDArray[Any]:
    """An object array as an array of str, bool or number, refusing a mixture."""
    kinds = {
        str if isinstance(v, str) else bool if isinstance(v, bool | np.bool_) else
        float if isinstance(v, int | float | np.number) else type(v)
        for v in values
    }  # fmt: skip
    if len(kinds) > 1 or not kinds <= {str, bool, float}:
        shown = sorted(kind.__name__ for kind in kinds)
        raise ValueError(
            f"{name} mixes labels of the types {shown}; use one type (all str, bool or numbers) "
            "and None where a label is missing"
        )
    return np.asarray(values.tolist())


def _encode(labels: NDArray[Any], classes: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Positions of ``labels`` in the sorted or given ``classes``."""
    order = np.argsort(classes, kind="stable")
    at = np.searchsorted(classes, labels, sorter=order).clip(max=len(classes) - 1)
    codes = order[at]
    if (unknown := classes[codes] != labels).any():
        raise ValueError(
            f"{name} holds {sorted(set(labels[unknown].tolist()))[:5]} which are not among the "
            f"classes {classes.tolist()}; correct them, mark them as missing (None), or pass "
            "all classes as classes=…"
        )
    return codes


def _kind_of_scores(llm: NDArray[Any]) -> str:
    if llm.ndim == 1:
        return "votes"
    if llm.dtype.kind == "f":
        return "scores"
    if llm.dtype.kind == "O":
        known = llm[~missing_in(llm)]
        # ints beside floats are the 0 and 1 of a table of scores
        numbers = all(_is_real(v) for v in known)
        if numbers and any(isinstance(v, float | np.floating) for v in known):
            return "scores"
    return "votes"


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _votes(llm: NDArray[Any], name: str = "y_llm") -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The votes that are there, flat, and where they stand in the (n, A) table."""
    table = llm.reshape(len(llm), -1)
    given = ~missing_in(table)
    known = table[given]
    return (_tight(known, name) if known.dtype.kind == "O" and len(known) else known), given


def _single_label_classes(
    known: NDArray[Any] | None, y_llm: Any, llm: NDArray[Any] | None, kind: str, classes: Any
) -> NDArray[Any]:
    if classes is not None:
        names = label_array(classes)
        names = _tight(names, "classes") if names.dtype.kind == "O" else names
        if names.ndim != 1 or len(np.unique(names)) != len(names):
            raise ValueError(f"classes must be distinct labels in a 1-D sequence, got {classes!r}")
        given, names = names, np.sort(names)
        if kind == "scores" and _column_names(y_llm) is None and (given != names).any():
            raise ValueError(
                f"the columns of y_llm have no names and classes={given.tolist()} are not sorted, "
                "so which column is which class is ambiguous: pass y_llm as a DataFrame with the "
                "class names as columns, or sort classes and the columns of y_llm alike"
            )
    else:
        found = [known] if known is not None and len(known) else []
        if kind == "votes" and llm is not None and len(votes := _votes(llm)[0]):
            found.append(votes)
        column_names = _column_names(y_llm) if kind == "scores" else None
        if column_names is not None:
            matched = _matching(column_names, known)
            found.append(matched if matched is not None else np.asarray(column_names))
        if not found:
            if kind == "scores":
                raise ValueError(
                    "the classes of the columns of y_llm are unknown, as y_human has no label: "
                    "pass classes=…, or a DataFrame with the class names as columns"
                )
            raise ValueError(
                "no row has a label: y_human and y_llm are all missing; label some utterances, "
                "or pass the labels of an LLM as y_llm"
            )
        if len({"U" if f.dtype.kind == "U" else "b" if f.dtype.kind == "b" else "n"
                for f in found}) > 1:  # fmt: skip
            raise ValueError(
                f"y_human holds labels such as {found[0][0]!r} but y_llm such as "
                f"{found[1][0]!r}; use the same type in both"
            )
        names = np.unique(np.concatenate(found))
    if len(names) < 2:
        raise ValueError(
            f"Classifier can't train when only one class is present: {names.tolist()}; label "
            "utterances of at least one more class, or name all of them as classes=…"
        )
    return names


def _column_names(y: Any) -> list[Any] | None:
    native = nw.from_native(y, pass_through=True, allow_series=True)
    return list(native.columns) if isinstance(native, nw.DataFrame) else None


def _matching(columns: list[Any], labels: NDArray[Any] | None) -> NDArray[Any] | None:
    """The columns as labels of the type of ``labels``: frames often turn names to text."""
    if labels is None or not len(labels) or labels.dtype.kind == "U":
        return None
    if all(not isinstance(column, str) for column in columns):
        return None
    kind = labels.dtype.kind
    try:
        if kind == "b":
            return np.array([{"True": True, "False": False}[str(c)] for c in columns])
        return np.array([float(c) for c in columns]).astype(labels.dtype)
    except (KeyError, ValueError):
        return None


def _aligned(y_llm: Any, llm: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float64]:
    """Float scores with one column per class, in the order of ``classes``."""
    try:
        table = np.where(missing_in(llm), np.nan, llm).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"y_llm must hold numbers in [0, 1] as scores: {error}") from None
    names = _column_names(y_llm)
    if names is None:
        if table.shape[1] != len(classes):
            raise ValueError(
                f"y_llm has {table.shape[1]} columns but there are {len(classes)} classes "
                f"{classes.tolist()}; pass a DataFrame with the class names as columns, "
                "classes=…, or votes_to_scores(…) if these are votes"
            )
        return table
    numeric = classes.dtype.kind in "iuf"
    at = {_name_key(name, numeric): position for position, name in enumerate(names)}
    wanted = [_name_key(label, numeric) for label in classes.tolist()]
    if set(at) != set(wanted):
        raise ValueError(
            f"y_llm has the columns {names} but the classes are {classes.tolist()}; name the "
            "score columns after the classes, one each"
        )
    return table[:, [at[label] for label in wanted]]


def _name_key(name: Any, numeric: bool) -> str:
    """A label as text, 1 and 1.0 and "1" alike: ints beside NaN have become floats."""
    try:
        return str(float(name)) if numeric else str(name)
    except (TypeError, ValueError):
        return str(name)


def _check_range(table: NDArray[np.float64]) -> None:
    outside = (table < -1e-6) | (table > 1 + 1e-6) | np.isinf(table)
    if outside.any():
        row = int(np.argmax(outside.any(axis=1)))
        raise ValueError(
            f"scores in y_llm must lie in [0, 1], but row {row} holds {table[row].tolist()}; "
            "turn logits into probabilities first"
        )


def _single_label_scores(
    y_llm: Any, llm: NDArray[Any] | None, kind: str, classes: NDArray[Any]
) -> NDArray[np.float32] | None:
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
            "votes, or pass a 2-D y_human if several labels can hold at once"
        )
    return (table / total[:, None]).astype(np.float32)


def vote_shares(
    llm: NDArray[Any], classes: NDArray[Any], name: str = "y_llm"
) -> NDArray[np.float64]:
    """Share of the given votes that each class has, (n, K); NaN rows where nobody voted."""
    votes, given = _votes(llm, name)
    shares = np.zeros((len(llm), len(classes)))
    if len(votes):
        np.add.at(shares, (np.nonzero(given)[0], _encode(votes, classes, name)), 1.0)
    with np.errstate(invalid="ignore"):
        return shares / given.sum(axis=1, keepdims=True)


def _multilabel_human(
    y_human: Any, human: NDArray[Any], classes: Any
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    try:
        table = np.where(missing_in(human), np.nan, human).astype(np.float32)
    except (TypeError, ValueError):
        table = np.full(human.shape, 2.0, dtype=np.float32)
    bad = ~np.isnan(table) & (table != 0) & (table != 1)
    if bad.any():
        row = int(np.argmax(bad.any(axis=1)))
        raise ValueError(
            f"Unknown label type: a 2-D y_human means multilabel and must hold 0, 1 or missing, "
            f"but row {row} holds {human[row].tolist()}; pass 1-D labels for one class per row"
        )
    names = _column_names(y_human) if classes is None else list(classes)
    names = list(range(human.shape[1])) if names is None else names
    if len(names) != human.shape[1]:
        raise ValueError(f"y_human has {human.shape[1]} columns but classes names {len(names)}")
    return np.asarray(names), table


def _multilabel_scores(
    y_llm: Any, llm: NDArray[Any], classes: NDArray[Any]
) -> NDArray[np.float32]:
    if llm.ndim != 2:
        raise ValueError(
            f"y_human is multilabel with {len(classes)} labels but y_llm is 1-D; pass scores "
            f"of shape (n, {len(classes)}) in [0, 1]"
        )
    table = _aligned(y_llm, llm, classes)
    _check_range(table)
    return table.astype(np.float32)


# -- order ----------------------------------------------------------------------------------


def canonical_order(dialogues: Dialogues, targets: Targets) -> NDArray[np.int64]:
    """An order of the rows that depends on what they hold, not on where they stood.

    By dialogue and turn where the input names them, and by content where it does not.
    """
    keys: list[NDArray[Any]] = [_digest(targets.human), _content(dialogues)]
    if targets.scores is not None:
        keys.insert(0, _digest(targets.scores))
    if dialogues.has_turns:
        keys.append(dialogues.turn)
    if dialogues.has_dialogues:
        keys.append(dialogues.group)
    return np.lexsort(keys)


def _content(dialogues: Dialogues) -> NDArray[Any]:
    if dialogues.features is not None:
        return _digest(dialogues.features)
    assert dialogues.text is not None
    if dialogues.context is None:
        return codes_of(dialogues.text)
    contexts = codes_of(dialogues.context)
    return codes_of(dialogues.text) * (contexts.max() + 1) + contexts


def _digest(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """A 64-bit hash of each row: its numbers' bits times fixed random odd multipliers."""
    table = rows.reshape(len(rows), -1)
    multipliers = np.random.RandomState(0).randint(2**62, size=table.shape[1], dtype=np.int64)
    odd = 2 * multipliers.astype(np.uint64) + np.uint64(1)
    hashes = np.empty(len(table), dtype=np.uint64)
    for start in range(0, len(table), 4096):  # the copies in here stay small
        bits = table[start : start + 4096].astype(np.float64).view(np.uint64)
        mixed = bits * odd
        mixed ^= mixed >> np.uint64(29)
        hashes[start : start + 4096] = np.bitwise_xor.reduce(mixed, axis=1)
    return hashes


def class_weights(
    targets: Targets, class_weight: dict[Any, float] | str | None
) -> NDArray[np.float64] | None:
    """Weight of each class in the cross-entropy on human labels.

    Multilabel: weights of the positive examples; "balanced" is negatives / positives.
    """
    if class_weight is None or not targets.has_human.any():
        return None
    if not targets.multilabel:
        found = np.unique(targets.human[targets.has_human])
        weights = np.ones(len(targets.classes))
        weights[found] = compute_class_weight(
            class_weight,
            classes=targets.classes[found],
            y=targets.classes[targets.human[targets.has_human]],
        )
        return weights
    if isinstance(class_weight, dict):
        return np.array([class_weight.get(c, 1.0) for c in targets.classes.tolist()])
    positive, negative = ((targets.human == value).sum(axis=0) for value in (1, 0))
    return np.where(positive > 0, negative / np.maximum(positive, 1), 1.0)

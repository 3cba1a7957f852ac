"""Input validation for y_human and y_llm."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from sklearn_dialpref._dialogues.texts import check_unicode
from sklearn_dialpref._dialogues.validation import (
    Dialogues,
    codes_of,
    indicator_table,
    label_array,
    missing_in,
)

from .scores import (
    FLOATS,
    cast_columns_to_label_type,
    column_names,
    column_places,
    encode,
    kind_of_scores,
    multilabel_scores,
    plain_labels,
    single_label_scores,
    votes_given,
)
from .slips import refuse_numbers_as_text, warn_of_slips


@dataclass(frozen=True)
class Targets:
    """Human labels and teacher scores of each row, as positions in the sorted classes.

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
    possible : ndarray of bool, shape (n, K), or None
        Single-label: classes that a row can have, None where that is all of them.
    """

    classes: NDArray[Any]
    multilabel: bool
    human: NDArray[Any]
    scores: NDArray[np.float32] | None
    possible: NDArray[np.bool_] | None = None

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
    >>> from sklearn_dialpref._labels.targets import check_targets
    >>> targets = check_targets(["b", None], [["a", "b"], ["b", "b"]], 2)
    >>> targets.human.tolist(), targets.scores.tolist()
    ([1, -1], [[0.5, 0.5], [0.0, 1.0]])
    """
    if y_human is None and y_llm is None:
        raise ValueError(
            "fit requires y to be passed, but the target y is None: no row has a label, y_human "
            "and y_llm are both missing; label some utterances, or pass the labels of an LLM"
        )
    human = None if y_human is None else _column_or_table(label_array(y_human, "y_human"))
    if human is not None:
        _check_length(human, n_rows, "y_human")
    multilabel = human is not None and human.ndim == 2
    llm = None if y_llm is None else label_array(y_llm, "y_llm")
    if llm is not None:
        _check_length(llm, n_rows, "y_llm")
        if llm.ndim > 2:
            raise ValueError(f"y_llm must be 1-D or 2-D, got shape {llm.shape}")

    if multilabel:
        assert human is not None
        names, table = _multilabel_human(y_human, human, classes, y_llm)
        scores = None if llm is None else multilabel_scores(y_llm, llm, names)
        targets = Targets(names, True, table, scores)
    else:
        targets = _single_label(human, y_llm, llm, classes, n_rows)
    if not (targets.has_human.any() or targets.has_score.any()):
        raise ValueError(
            "no row has a label: y_human and y_llm are all missing; label some utterances, or "
            "pass the labels of an LLM as y_llm"
        )
    if multilabel:
        _check_no_label_is_unknown(targets)
    return targets


def _single_label(
    human: NDArray[Any] | None, y_llm: Any, llm: NDArray[Any] | None, classes: Any, n_rows: int
) -> Targets:
    known = None if human is None else _known_labels(human)
    kind = "none" if llm is None else kind_of_scores(llm)
    if classes is None:
        # the distinct ones, as there can be millions
        votes = np.unique(votes_given(llm)[0]) if llm is not None and kind == "votes" else None
        distinct = None if known is None else np.unique(known)
        columns = column_names(y_llm) if kind == "scores" else None
        if llm is not None and votes is not None:
            refuse_numbers_as_text(llm, votes, distinct)
        names = _single_label_classes(distinct, votes, columns, kind)
        warn_of_slips(names, distinct, votes)
    else:
        names = _given_classes(class_names(classes), y_llm, kind)
    if len(names) < 2:
        raise ValueError(
            f"Classifier can't train when only one class is present: {names.tolist()}; label "
            "utterances of at least one more class, or name all of them as classes=…"
        )
    codes = np.full(n_rows, -1, dtype=np.int64)
    if human is not None and known is not None and len(known):
        codes[~missing_in(human)] = encode(known, names, "y_human")
    return Targets(names, False, codes, single_label_scores(y_llm, llm, kind, names))


def _check_no_label_is_unknown(targets: Targets) -> None:
    unknown = np.isnan(targets.human).all(axis=0)
    if targets.scores is not None:
        unknown &= np.isnan(targets.scores).all(axis=0)
    if unknown.any():
        raise ValueError(
            f"the labels {targets.classes[unknown].tolist()} have neither a human label nor an "
            "LLM score in any row; label some utterances for them, or leave their columns out"
        )


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
    known = plain_labels(human[~missing_in(human)], "y_human")
    if known.dtype.kind == "f" and not np.isfinite(known).all():
        raise ValueError(
            "Input y_human contains infinity or a value too large for dtype('float64')."
        )
    if len(known):
        check_classification_targets(known)
    return known


def class_names(classes: Any) -> NDArray[Any]:
    """The names of the classes that a user gives, in the order given.

    Raises
    ------
    ValueError
        If they are no 1-D sequence of distinct labels.
    """
    names = label_array(classes, "classes")
    usable = names.ndim == 1 and not missing_in(names).any()
    names = plain_labels(names, "classes") if usable else names
    if not (usable and 0 < len(np.unique(names)) == len(names)):
        raise ValueError(
            "classes must name each class once, as distinct labels in a 1-D sequence without "
            f"missing values, got {classes!r}"
        )
    check_unicode(names, "classes")
    return names


def _given_classes(names: NDArray[Any], y_llm: Any, kind: str) -> NDArray[Any]:
    given, names = names, np.sort(names)
    if kind == "scores" and column_names(y_llm) is None and (given != names).any():
        raise ValueError(
            f"the columns of y_llm have no names and classes={given.tolist()} are not sorted, "
            "so which column is which class is ambiguous: pass y_llm as a DataFrame with the "
            "class names as columns, or sort classes and the columns of y_llm alike"
        )
    return names


def _single_label_classes(
    known: NDArray[Any] | None, votes: NDArray[Any] | None, columns: list[Any] | None, kind: str
) -> NDArray[Any]:
    """All labels that people or the LLM gave, or the names of the columns of scores."""
    sources = [known] if known is not None and len(known) else []
    if votes is not None and len(votes):
        sources.append(votes)
    if columns is not None:
        matched = cast_columns_to_label_type(columns, known)
        sources.append(matched if matched is not None else class_names(columns))
    if not sources:
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
            for f in sources}) > 1:  # fmt: skip
        human, llm_label = (values.tolist()[0] for values in sources)
        raise ValueError(
            f"y_human holds labels such as {human!r} but y_llm such as {llm_label!r}; use the "
            "same type in both. Where scikit-learn has numbered the classes of y_human (in "
            "VotingClassifier, CalibratedClassifierCV or cross_val_predict), pass y_llm as an "
            f"array of scores{f'. Also, {FLOATS}' if kind == 'scores' else ''}"
        )
    names = plain_labels(np.unique(np.concatenate(sources)), "y_human with y_llm")
    check_unicode(names, "the classes")
    return names


def _multilabel_human(
    y_human: Any, human: NDArray[Any], classes: Any, y_llm: Any
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    table = indicator_table(human, "y_human").astype(np.float32)
    named = column_names(y_human)
    if classes is None:
        return np.arange(table.shape[1]) if named is None else class_names(named), table
    names = class_names(classes)
    if len(names) != table.shape[1]:
        raise ValueError(f"y_human has {table.shape[1]} columns but classes names {len(names)}")
    if named is None:
        return names, table
    advice = "name the label columns after the classes, one each"
    places = column_places(named, names, "y_human", advice)
    if y_llm is not None and column_names(y_llm) is None and places != sorted(places):
        raise ValueError(
            f"the columns of y_llm have no names, and those of y_human stand in another order "
            f"than classes={names.tolist()}: pass y_llm as a DataFrame with the class names as "
            "columns, or give all the same order"
        )
    return names, table[:, places]


# -- order ----------------------------------------------------------------------------------


def canonical_order(dialogues: Dialogues, targets: Targets) -> NDArray[np.int64]:
    """An order of the rows that depends on what they hold, not on where they stood.

    By dialogue and turn where the input names them, and by content where it does not.
    """
    keys: list[NDArray[Any]] = [_digest(targets.human), _content(dialogues)]
    if targets.scores is not None:
        keys.insert(0, _digest(targets.scores))
    if targets.possible is not None:
        keys.insert(0, _digest(targets.possible))
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
    """A 64-bit hash of each row: its numbers' bits, mixed by fixed random odd multipliers."""
    table = rows.reshape(len(rows), -1)
    multipliers = np.random.RandomState(0).randint(2**62, size=table.shape[1], dtype=np.int64)
    odd = 2 * multipliers.astype(np.uint64) + np.uint64(1)
    hashes = np.empty(len(table), dtype=np.uint64)
    for start in range(0, len(table), 4096):  # the copies in here stay small
        bits = table[start : start + 4096].astype(np.float64).view(np.uint64)
        bits ^= bits >> np.uint64(32)  # small whole numbers have no low bits
        mixed = (bits + odd) * odd
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
        hashes[start : start + 4096] = np.add.reduce(mixed, axis=1)
    return hashes


def class_weights(
    targets: Targets, class_weight: dict[Any, float] | str | None
) -> NDArray[np.float64] | None:
    """Weight of each class in the cross-entropy on human labels.

    Multilabel: weights of the positive examples; "balanced" is negatives / positives.
    """
    if class_weight is None or not targets.has_human.any():
        return None
    if isinstance(class_weight, dict):
        classes = targets.classes.tolist()
        if unknown := [key for key in class_weight if key not in classes]:
            raise ValueError(
                f"class_weight names {unknown}, which are not among the classes {classes}; "
                "correct them, or pass all classes as classes=…"
            )
        return np.array([class_weight.get(c, 1.0) for c in classes], dtype=np.float64)
    if not targets.multilabel:
        present = np.unique(targets.human[targets.has_human])
        weights = np.ones(len(targets.classes))
        weights[present] = compute_class_weight(
            class_weight, classes=present, y=targets.human[targets.has_human]
        )
        return weights
    positive, negative = ((targets.human == value).sum(axis=0) for value in (1, 0))
    return np.where(positive > 0, negative / np.maximum(positive, 1), 1.0)

"""What humans, the LLM and the student say of the utterances that are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import indicator_table, label_array, missing_in
from sklearn_dialpref._labels.scores import (
    cast_columns_to_label_type,
    column_names,
    kind_of_scores,
    multilabel_scores,
    plain_labels,
    single_label_scores,
    vote_shares,
    votes_given,
)
from sklearn_dialpref._labels.targets import class_names
from sklearn_dialpref.metrics._state_values import read_state, spellings, state_column

HUMAN, LLM, STUDENT = "human", "LLM", "student"
ARGUMENT = {HUMAN: "y_human", LLM: "y_llm", STUDENT: "predicted"}
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Answer:
    """What one source says of one utterance.

    Attributes
    ----------
    source : str
    labels : dict
        The labels that hold, each with its probability, or None where it has none.
    denied : frozenset
        Multilabel: the labels that do not hold. Of those in neither, nothing is known.
    differs_from : str
        The source that says something else; "" for none.
    """

    source: str
    labels: dict[Any, float | None]
    denied: frozenset[Any] = frozenset()
    differs_from: str = ""

    def contradicts(self, other: Answer) -> bool:
        """Whether both cannot be right; who gives no label contradicts nobody."""
        if self.denied or other.denied:
            return bool(self.labels.keys() & other.denied or other.labels.keys() & self.denied)
        return bool(self.labels and other.labels and self.labels.keys() != other.labels.keys())


Column = list[Answer | None]
_ABSTAINS = Answer(STUDENT, {})


class Labels(NamedTuple):
    """The arguments of :func:`show_dialogue` that say something of each utterance."""

    y_human: Any
    y_llm: Any
    predicted: Any
    proba: Any
    classes: Any


def answers_of(labels: Labels, n_rows: int, rows: Rows) -> list[tuple[Answer, ...]]:
    """For each of ``rows`` what each source says, human first; silent sources are left out."""
    given = {HUMAN: labels.y_human, LLM: labels.y_llm, STUDENT: labels.predicted}
    arrays = {
        source: _array(values, ARGUMENT[source], n_rows)
        for source, values in given.items()
        if values is not None
    }
    if any(map(_holds_states, arrays.values())):
        if labels.proba is not None:
            raise ValueError("proba cannot be shown beside states; leave it out")
        columns = _states({source: given[source] for source in arrays}, rows)
    elif any(array.ndim == 2 for source, array in arrays.items() if source != LLM):
        columns = _multilabel(labels, arrays, n_rows, rows)
    else:
        columns = _single_label(labels, arrays, n_rows, rows)
    return [_compared(row) for row in zip(*columns, strict=True)] or [()] * len(rows)


def _compared(answers: tuple[Answer | None, ...]) -> tuple[Answer, ...]:
    """The answers that there are, each compared with the first."""
    known = [answer for answer in answers if answer is not None]
    return tuple(
        replace(answer, differs_from=known[0].source) if answer.contradicts(known[0]) else answer
        for answer in known
    )


def _array(values: Any, name: str, n_rows: int) -> NDArray[Any]:
    array = label_array(values, name)
    if len(array) != n_rows:
        raise ValueError(
            f"{name} has {len(array)} rows but X has {n_rows}; pass one entry per utterance of "
            "all of X, None where missing"
        )
    if array.ndim > 2:
        raise ValueError(f"{name} must be 1-D or 2-D, got shape {array.shape}")
    return array.ravel() if array.ndim == 2 and array.shape[1] == 1 and name != "y_llm" else array


# -- states -------------------------------------------------------------------------------


def _holds_states(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "O" and any(isinstance(value, Mapping) for value in array.flat)


def _states(given: dict[str, Any], rows: Rows) -> list[Column]:
    table = {
        source: _read_states(values, ARGUMENT[source], rows) for source, values in given.items()
    }
    known = [
        (slot, options)
        for states in table.values()
        for state in states
        for slot, options in (state or {}).items()
    ]
    first = {
        (slot, option): options[0]
        for slot, options in sorted(known, key=lambda entry: len(entry[1]))  # longer lists win
        for option in options
    }
    return [
        [None if state is None else _state_answer(source, state, first) for state in states]
        for source, states in table.items()
    ]


def _read_states(values: Any, name: str, rows: Rows) -> list[dict[Any, list[Any]] | None]:
    """States whose slots have the list of the spellings of their value."""
    column = state_column(values, name)
    states = [read_state(column[row], int(row), name) for row in rows]
    return [
        None if state is None else {slot: spellings(value) for slot, value in state.items()}
        for state in states
    ]


def _state_answer(
    source: str, state: dict[Any, list[Any]], first: dict[tuple[Any, Any], Any]
) -> Answer:
    """A state as one label, its values in the spelling that another source may have too."""
    values = {slot: first[slot, options[0]] for slot, options in state.items()}
    slots = sorted(f"{_slot_name(slot)} = {value}" for slot, value in values.items())
    return Answer(source, {"; ".join(slots) or "(empty state)": None})


def _slot_name(slot: Any) -> str:
    return " ".join(map(str, slot)) if isinstance(slot, tuple) else str(slot)


# -- one label per utterance ----------------------------------------------------------------


def _single_label(
    labels: Labels, arrays: dict[str, NDArray[Any]], n_rows: int, rows: Rows
) -> list[Column]:
    known = {
        source: plain_labels(array[~missing_in(array)], ARGUMENT[source])
        for source, array in arrays.items()
        if source != LLM
    }
    columns, names = [], dict(known)
    if HUMAN in arrays:
        columns.append(_labels_alone(HUMAN, arrays[HUMAN][rows]))
    if LLM in arrays:
        human = known.get(HUMAN)
        answers, names[LLM] = _llm_labels(labels, arrays[LLM], human, rows)
        columns.append(answers)
    if labels.proba is not None:
        classes = _proba_classes(labels)
        table = _proba_table(labels.proba, n_rows, len(classes))[rows]
        names["proba"] = classes
        columns.append(_student_labels(arrays.get(STUDENT), table, classes.tolist(), rows))
    elif STUDENT in arrays:
        columns.append(_labels_alone(STUDENT, arrays[STUDENT][rows], _ABSTAINS))
    _check_one_type(names)
    return columns


def _labels_alone(source: str, array: NDArray[Any], silent: Answer | None = None) -> Column:
    """Labels without probabilities; ``silent`` is what a missing one says."""
    return [
        silent if missing else Answer(source, {value: None})
        for value, missing in zip(array.tolist(), missing_in(array), strict=True)
    ]


def _llm_labels(
    labels: Labels, llm: NDArray[Any], human: NDArray[Any] | None, rows: Rows
) -> tuple[Column, NDArray[Any]]:
    if kind_of_scores(llm) == "scores":
        classes = _score_classes(labels, human)
        scores = single_label_scores(labels.y_llm, llm, "scores", classes)
        assert scores is not None
        return _top_labels(LLM, scores[rows], classes.tolist()), classes
    votes = np.unique(votes_given(llm)[0])
    if llm.ndim == 1 or not len(votes):
        return _labels_alone(LLM, llm[rows].reshape(len(rows), -1)[:, 0]), votes
    return _top_labels(LLM, vote_shares(llm[rows], votes), votes.tolist()), votes


def _score_classes(labels: Labels, human: NDArray[Any] | None) -> NDArray[Any]:
    columns = column_names(labels.y_llm)
    if columns is not None:
        matched = cast_columns_to_label_type(columns, human)
        return class_names(columns) if matched is None else matched
    if labels.classes is not None:
        return class_names(labels.classes)
    if human is None or not len(human):
        raise ValueError(
            "the classes of the columns of y_llm are unknown; pass classes=…, or a DataFrame "
            "with the class names as columns"
        )
    return np.unique(human)


def _top_labels(source: str, table: NDArray[Any], names: list[Any]) -> Column:
    answered = ~np.isnan(table).any(axis=1)
    top = np.where(answered[:, None], table, 0).argmax(axis=1)
    return [
        Answer(source, {names[best]: float(row[best])}) if known else None
        for row, best, known in zip(table, top, answered, strict=True)
    ]


def _student_labels(
    predicted: NDArray[Any] | None, table: NDArray[Any], names: list[Any], rows: Rows
) -> Column:
    if predicted is None:
        return _top_labels(STUDENT, table, names)
    place = {name: index for index, name in enumerate(names)}
    answers: Column = []
    for label, missing, row in zip(
        predicted[rows].tolist(), missing_in(predicted[rows]), rows, strict=True
    ):
        if missing:
            answers.append(_ABSTAINS)
        elif label in place:
            answers.append(Answer(STUDENT, {label: _number(table[len(answers), place[label]])}))
        else:
            raise ValueError(
                f"predicted holds {label!r} in row {row}, which is not among the classes {names} "
                "of proba; pass the classes of the estimator that made both"
            )
    return answers


def _check_one_type(names: dict[str, NDArray[Any]]) -> None:
    first: dict[str, tuple[str, Any]] = {}
    for source, values in names.items():
        if len(values):
            kind = values.dtype.kind if values.dtype.kind in "Ub" else "number"
            first.setdefault(kind, (ARGUMENT.get(source, source), values[0].item()))
    if len(first) > 1:
        (one, label), (other, strange) = list(first.values())[:2]
        raise ValueError(
            f"{one} holds labels such as {label!r} but {other} such as {strange!r}; use the same "
            "type in both"
        )


# -- several labels per utterance -------------------------------------------------------------


def _multilabel(
    labels: Labels, arrays: dict[str, NDArray[Any]], n_rows: int, rows: Rows
) -> list[Column]:
    for source, array in arrays.items():
        if array.ndim == 1:
            raise ValueError(
                f"{ARGUMENT[source]} is 1-D beside labels in a 2-D table (multilabel); pass "
                f"{'scores' if source == LLM else '0, 1 or missing'} with a column per label"
            )
    names = _label_names(labels)
    columns: list[Column] = []
    if HUMAN in arrays:
        classes = _columns_of(labels.y_human, names, arrays[HUMAN].shape[1])
        truth = indicator_table(arrays[HUMAN], "y_human")[rows]
        columns.append([_decisions(HUMAN, row, row, classes, shown=False) for row in truth])
    if LLM in arrays:
        classes = _columns_of(labels.y_llm, names, arrays[LLM].shape[1])
        scores = multilabel_scores(labels.y_llm, arrays[LLM], np.array(classes))[rows]
        columns.append([_decisions(LLM, row, row, classes) for row in scores])
    if STUDENT in arrays or labels.proba is not None:
        columns.append(_student_decisions(labels, arrays.get(STUDENT), names, n_rows, rows))
    return columns


def _label_names(labels: Labels) -> list[Any] | None:
    """The names of the labels where a table has none of its own."""
    if labels.classes is not None:
        return class_names(labels.classes).tolist()
    tables = (labels.y_human, labels.predicted, labels.y_llm, labels.proba)
    named = (column_names(table) for table in tables if table is not None)
    return next((names for names in named if names is not None), None)


def _columns_of(table: Any, names: list[Any] | None, width: int) -> list[Any]:
    own = column_names(table)
    if own is not None or names is None:
        return list(range(width)) if own is None else own
    if len(names) != width:
        raise ValueError(f"a table of labels has {width} columns but the labels are {names}")
    return names


def _student_decisions(
    labels: Labels, predicted: NDArray[Any] | None, names: list[Any] | None, n: int, rows: Rows
) -> Column:
    table = None
    if labels.proba is not None:
        table = _proba_table(labels.proba, n, None)
        classes = _columns_of(labels.proba, names, table.shape[1])
        table = table[rows]
    if predicted is None:
        assert table is not None
        return [_decisions(STUDENT, row, row, classes) for row in table]
    own = _columns_of(labels.predicted, names, predicted.shape[1])
    decided = indicator_table(predicted, "predicted")[rows]
    if table is None:
        return [_decisions(STUDENT, row, row, own, shown=False) for row in decided]
    if set(own) != set(classes):
        raise ValueError(f"predicted has the labels {own} but proba {classes}; pass the same")
    aligned = table[:, [classes.index(name) for name in own]]
    return [_decisions(STUDENT, *pair, own) for pair in zip(decided, aligned, strict=True)]


def _decisions(
    source: str,
    decided: NDArray[Any],
    shares: NDArray[Any],
    names: Sequence[Any],
    shown: bool = True,
) -> Answer | None:
    """The labels above 0.5, with their shares if these are shown; None if nothing is known."""
    denied = frozenset(name for name, value in zip(names, decided, strict=True) if value <= 0.5)
    holds: dict[Any, float | None] = {
        name: _number(share) if shown else None
        for name, value, share in zip(names, decided, shares, strict=True)
        if value > 0.5
    }
    return Answer(source, holds, denied) if holds or denied else None


# -- probabilities ----------------------------------------------------------------------------


def _proba_classes(labels: Labels) -> NDArray[Any]:
    columns = column_names(labels.proba)
    if columns is None and labels.classes is None:
        raise ValueError(
            "which column of proba is which class is unknown; pass classes=clf.classes_, or a "
            "DataFrame with the class names as columns"
        )
    if columns is None:
        return class_names(labels.classes)
    known = None if labels.predicted is None else label_array(labels.predicted)
    known = None if known is None else plain_labels(known[~missing_in(known)], "predicted")
    matched = cast_columns_to_label_type(columns, known)
    return class_names(columns) if matched is None else matched


def _proba_table(proba: Any, n_rows: int, n_classes: int | None) -> NDArray[np.float64]:
    array = label_array(proba, "proba")
    width = array.shape[1] if n_classes is None and array.ndim == 2 else n_classes
    if array.shape != (n_rows, width):
        raise ValueError(
            f"proba must have a row per utterance and a column per class, {(n_rows, width)}, but "
            f"has the shape {array.shape}; pass clf.predict_proba(X) and classes=clf.classes_"
        )
    try:
        table = np.where(missing_in(array), np.nan, array).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"proba must hold probabilities: {error}") from None
    if (outside := (table < -1e-6) | (table > 1 + 1e-6)).any():
        row = int(np.argmax(outside.any(axis=1)))
        raise ValueError(f"proba must lie in [0, 1], but row {row} holds {table[row].tolist()}")
    return table


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)

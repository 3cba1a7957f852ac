"""Labels that people wrote into files, as rows of the utterances."""

from __future__ import annotations

import csv
import io
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.columns import Dialogues
from sklearn_dialpref._dialogues.containers import missing_in, series_array
from sklearn_dialpref._dialogues.texts import check_unicode
from sklearn_dialpref._labels.slips import folded
from sklearn_dialpref._labels.targets import class_names

from .annotation_keys import KEY, LABEL, LABEL_OF, check_texts, restored, utterance_keys
from .annotation_tasks import AnnotationTasks

__all__ = ["from_annotations"]

YES = {"1", "1.0", "true", "yes", "x"}
NO = {"0", "0.0", "false", "no"}
SHOWN = 5


@dataclass(frozen=True)
class Answer:
    """What one person said of one utterance: labels that it has (True) or has not (False)."""

    where: str
    key: str
    text: Any
    given: dict[Any, bool]
    complete: bool = False  # whether labels that are not named are ones that it has not


def from_annotations(
    annotations: Any, X: Any, *, classes: Any = None, multilabel: bool = False
) -> NDArray[Any]:
    """Read the labels that people gave to the tasks of :func:`to_annotation_tasks`.

    A spreadsheet saved as CSV is read, with commas, semicolons or tabs between its cells, and
    Label Studio's exports JSON and JSON-MIN. Labels are matched to the rows of `X` by the
    column ``key``, never by position.

    Parameters
    ----------
    annotations : str, path-like, AnnotationTasks, list of dict or DataFrame
        Path of the file, or what is in it.
    X : DataFrame, ndarray or sequence of str, of n rows
        The utterances that the tasks were made from, in any order; others may be among them.
    classes : array-like of shape (K,), default=None
        All classes: labels come back in their type, and others are an error. By default every
        label counts, as text.
    multilabel : bool, default=False
        Whether an utterance can have several labels; then `classes` is needed.

    Returns
    -------
    y_human : ndarray of shape (n,), object, or of shape (n, K), float64
        The label of each row, None where it has none. `multilabel`: 0, 1 or NaN for each of
        `classes`.

    Raises
    ------
    ValueError
        If the file is damaged, a label is not among `classes`, an utterance in `X` is not the
        one that was labelled, or none of the labelled ones is in `X`.

    Warns
    -----
    UserWarning
        If people disagree, edited a text, labelled utterances that `X` lacks, or gave no label.

    See Also
    --------
    to_annotation_tasks : Write the tasks.

    Notes
    -----
    Where several people labelled an utterance, the label of most of them counts; None if two
    labels have equally many. Skipped tasks, drafts and predictions of Label Studio are no
    labels. A submitted task without a choice has none of the labels if `multilabel`, and no
    label otherwise; an empty cell is missing, never 0.

    Blanks around a label and its case do not matter if only one class is meant. Without
    dialogues, all utterances of the same text get its label.

    Examples
    --------
    >>> from sklearn_dialpref import from_annotations
    >>> from sklearn_dialpref import to_annotation_tasks
    >>> tasks = to_annotation_tasks(["Hi!", "My parcel is late."], classes=[0, 1])
    >>> tasks.tasks[1]["label"] = "1"
    >>> from_annotations(tasks, ["My parcel is late.", "Hi!"], classes=[0, 1]).tolist()
    [1, None]
    """
    if multilabel and classes is None:
        raise ValueError(
            "multilabel=True needs classes=…, so that a label that nobody gave has a column"
        )
    dialogues = check_texts(X)
    answers = _answers(annotations, multilabel)
    if classes is None:
        names = np.array(
            sorted({str(label).strip() for answer in answers for label in answer.given})
        )
        check_unicode(names, "the labels")
    else:
        names = class_names(classes)
    codes, matched = _Codes(names), _matched(answers, dialogues)
    labelled = np.array(sorted({row for _, rows in matched for row in rows}), dtype=np.int64)
    # how many people said no, and yes
    counts = np.zeros((2, len(labelled), len(names)), dtype=np.int64)
    for answer, rows in matched:
        given = {codes.of(label, answer.where): yes for label, yes in answer.given.items()}
        places = np.searchsorted(labelled, rows)
        for column in range(len(names)) if answer.complete else given:
            counts[int(given.get(column, False)), places, column] += 1
    y_human: NDArray[Any]
    if multilabel:
        y_human = np.full((len(dialogues), len(names)), np.nan)
        y_human[labelled], tied = _several_labels(*counts)
    else:
        y_human = np.full(len(dialogues), None, dtype=object)
        y_human[labelled], tied = _single_label(counts[1], names)
    if tied.any():
        warnings.warn(
            f"people disagree on {tied.sum()} utterances of X, without a majority: rows "
            f"{labelled[tied][:SHOWN].tolist()} stay without a label; have one more person label "
            "them",
            UserWarning,
            stacklevel=2,
        )
    return y_human


# -- labels ---------------------------------------------------------------------------------


class _Codes:
    """Positions of labels, as people and spreadsheets write them, among the classes."""

    def __init__(self, names: NDArray[Any]) -> None:
        self.names = names.tolist()
        self.exact = {str(name): code for code, name in enumerate(self.names)}
        # a spreadsheet writes 1.0 and "01" as 1, True as TRUE, and pandas 1 as 1.0
        self.numbers = _unambiguous(self.exact, _number)
        self.folded = _unambiguous(self.exact, folded)

    def of(self, label: Any, where: str) -> int:
        """The position of a label; a ValueError that says where it stands if it is no class."""
        for text in (str(label), restored(str(label))):
            for found in (
                self.exact.get(text),
                self.exact.get(text.strip()),
                self.numbers.get(_number(text)),
                self.folded.get(folded(text)),
            ):
                if found is not None:
                    return found
        raise ValueError(
            f"{where} has the label {label!r}, which is not among the classes {self.names}; "
            "correct it there, or add it to classes=…"
        )


def _unambiguous(codes: dict[str, int], form: Callable[[str], Any]) -> dict[Any, int]:
    """The codes by another form of the names, of the forms that only one name has."""
    forms = {name: form(name) for name in codes}
    times = Counter(forms.values())
    return {found: codes[name] for name, found in forms.items() if times[found] == 1}


def _number(text: str) -> float | str:
    """The number that a text stands for, or the text."""
    try:
        number = float(text)
    except ValueError:
        return text
    return number if isfinite(number) else text


def _single_label(
    votes: NDArray[np.int64], names: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The label with most votes of each row; None where two have as many, and where that is."""
    if not len(votes):
        return np.empty(0, dtype=object), np.empty(0, dtype=bool)
    labels = names.astype(object)[votes.argmax(axis=1)]
    tied = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1
    labels[tied] = None
    return labels, tied


def _several_labels(
    no: NDArray[np.int64], yes: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """1, 0 or NaN for each label, by most votes; and the rows where two are as many."""
    if yes.any() and not no.any():
        warnings.warn(
            "labels are given as 1 only, and never as 0: empty cells are missing labels; write 0 "
            "where an utterance does not have a label",
            UserWarning,
            stacklevel=3,
        )
    table = np.where(yes > no, 1.0, np.where(yes < no, 0.0, np.nan))
    return table, ((yes == no) & (yes > 0)).any(axis=1)


# -- rows -----------------------------------------------------------------------------------


def _matched(answers: list[Answer], dialogues: Dialogues) -> list[tuple[Answer, list[int]]]:
    """Each answer with the rows that it is about."""
    assert dialogues.text is not None
    rows: dict[str, list[int]] = {}
    keys = utterance_keys(dialogues)
    for row, key in enumerate(keys):
        rows.setdefault(_place(key), []).append(row)
    matched, absent, edited = [], [], []
    for answer in answers:
        if (found := rows.get(_place(answer.key))) is None:
            absent.append(answer.where)
            continue
        if keys[found[0]] != answer.key:
            raise ValueError(
                f"{answer.where} is about another text than row {found[0]} of X, which is now at "
                "that turn of that dialogue; pass the X that the tasks were made from"
            )
        if not _same(answer.text, dialogues.text[found[0]]):
            edited.append(answer.where)
        matched.append((answer, found))
    _warn_of_rows(len(answers), absent, edited)
    return matched


def _place(key: str) -> str:
    return key.partition("-")[0]


def _same(shown: Any, text: str) -> bool:
    """Whether a text came back as it was, but for blanks and line ends."""
    if not isinstance(shown, str):  # a column that somebody removed
        return True
    return text.split() in (shown.split(), restored(shown).split())


def _warn_of_rows(n_answers: int, absent: list[str], edited: list[str]) -> None:
    if n_answers and len(absent) == n_answers:
        raise ValueError(
            f"none of the {n_answers} labelled utterances is in X, such as that of {absent[0]}; "
            "pass the X that the tasks were made from, with its dialogue_id and turn"
        )
    advice = []
    if not n_answers:
        advice.append("no utterance has a label yet")
    if absent:
        advice.append(
            f"X lacks {len(absent)} of {n_answers} labelled utterances, those of "
            f"{', '.join(absent[:SHOWN])}; pass all of the X that the tasks were made from"
        )
    if edited:
        advice.append(
            f"texts were edited in {', '.join(edited[:SHOWN])} ({len(edited)} in all): the labels "
            "count, for the texts of X"
        )
    for sentence in advice:
        warnings.warn(sentence, UserWarning, stacklevel=4)


# -- files and tables -----------------------------------------------------------------------


def _answers(annotations: Any, multilabel: bool) -> list[Answer]:
    """All answers, each with where it stands."""
    if isinstance(annotations, AnnotationTasks):
        annotations = annotations.tasks
    if isinstance(annotations, str | os.PathLike):
        records = _file_records(Path(annotations))
    elif isinstance(frame := nw.from_native(annotations, pass_through=True), nw.DataFrame):
        records = _frame_records(frame)
    elif isinstance(annotations, list):
        records = [(f"task {number}", task) for number, task in enumerate(annotations)]
    else:
        raise TypeError(
            "annotations must be the path of a file, a list of dict or a DataFrame, got "
            f"{type(annotations).__name__}"
        )
    answers = []
    for where, record in records:
        try:
            answers += _of_record(where, record, multilabel)
        except (AttributeError, TypeError, KeyError) as error:
            raise ValueError(
                f"{where} is neither a task of to_annotation_tasks nor one that Label Studio has "
                f"exported as JSON or JSON-MIN ({type(error).__name__}: {error})"
            ) from error
    return answers


def _file_records(path: Path) -> list[tuple[str, Any]]:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} of {path} is not UTF-8: {error.reason}; save the spreadsheet as "
            '"CSV UTF-8"'
        ) from error
    if text.lstrip()[:1] in ("[", "{"):
        return _json_records(path, text)
    return _csv_records(path, text)


def _json_records(path: Path, text: str) -> list[tuple[str, Any]]:
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged: it is not JSON ({error}); export it again"
        ) from error
    if not isinstance(tasks, list):
        raise ValueError(f"{path} holds a JSON object, not a list of tasks; export it again")
    return [(f"task {number} of {path}", task) for number, task in enumerate(tasks)]


def _csv_records(path: Path, text: str) -> list[tuple[str, Any]]:
    header, delimiter = _header(path, text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records: list[tuple[str, Any]] = []
    try:
        for number, cells in enumerate(reader):
            if not number or not any(cells):  # spreadsheets leave empty rows
                continue
            where = f"row {number + 1} (line {reader.line_num}) of {path}"
            if len(cells) < len(header) or any(cells[len(header) :]):
                raise ValueError(
                    f"{where} has {len(cells)} cells but the heading {len(header)}: the file is "
                    "damaged or was cut off; save it again"
                )
            records.append((where, dict(zip(header, cells, strict=False))))
    except csv.Error as error:
        raise ValueError(
            f"line {reader.line_num} of {path} is damaged: {error}; save the file again"
        ) from error
    return records


def _header(path: Path, text: str) -> tuple[list[str], str]:
    """The names of the columns, and what stands between cells: Excel follows the country."""
    for delimiter in ",;\t":
        start = io.StringIO(text[: csv.field_size_limit()], newline="")
        cells = next(csv.reader(start, delimiter=delimiter), [])
        header = [cell.strip() for cell in cells]
        if "key" in header:
            return header, delimiter
    raise ValueError(
        f"line 1 of {path} has no column 'key', by which labels find their utterances; it has "
        f"{text.partition(chr(10))[0][:100]!r}. Keep the columns of to_annotation_tasks"
    )


def _frame_records(frame: nw.DataFrame[Any]) -> list[tuple[str, Any]]:
    if "key" not in frame.columns:
        raise ValueError(
            "the table has no column 'key', by which labels find their utterances; keep the "
            f"columns of to_annotation_tasks, it has {frame.columns}"
        )
    columns = [_cells(series_array(frame.get_column(name))) for name in frame.columns]
    rows = enumerate(zip(*columns, strict=True))
    return [(f"row {row}", dict(zip(frame.columns, cells, strict=True))) for row, cells in rows]


def _cells(values: NDArray[Any]) -> list[Any]:
    missing = missing_in(values).tolist()
    pairs = zip(values.tolist(), missing, strict=True)
    return [None if is_missing else value for value, is_missing in pairs]


# -- tasks ----------------------------------------------------------------------------------


def _of_record(where: str, record: dict[str, Any], multilabel: bool) -> list[Answer]:
    """The answers in a row of a spreadsheet, or in a task of either of Label Studio's forms."""
    data = record.get("data", record)
    columns = {name.removeprefix(LABEL_OF): cell for name, cell in record.items()
               if name.startswith(LABEL_OF)}  # fmt: skip
    if columns and not multilabel:
        raise ValueError(f"{where} has a column for each of several labels; pass multilabel=True")
    if data is not record:
        given = [_choices(where, annotation) for annotation in record.get("annotations", [])]
        found = [(labels, multilabel) for labels in given if labels is not None]
    elif columns:
        found = [({name: yes for name, cell in columns.items()
                   if (yes := _tick(where, name, cell)) is not None}, False)]  # fmt: skip
    else:
        labels = _flat_labels(record.get(LABEL))
        submitted = record.get("annotation_id") is not None
        found = [(labels, multilabel and (submitted or bool(labels)))]
    answers = []
    for labels, complete in found:
        if len(labels) > 1 and not multilabel:
            raise ValueError(
                f"{where} has the labels {list(labels)}, but an utterance has one; remove the "
                "others, or pass multilabel=True"
            )
        if labels or complete:
            answers.append(Answer(where, _key(where, data), data.get("text"), labels, complete))
    return answers


def _key(where: str, data: dict[str, Any]) -> str:
    key = str(data.get("key", "")).strip()
    if not KEY.fullmatch(key):
        raise ValueError(
            f"{where} has the key {key!r}, which is none of to_annotation_tasks; the file is "
            "damaged, or somebody has changed that column"
        )
    return key


def _choices(where: str, annotation: dict[str, Any]) -> dict[Any, bool] | None:
    """The labels chosen in an annotation of Label Studio; None if it was skipped."""
    if annotation.get("was_cancelled"):
        return None
    results = [result for result in annotation["result"] or [] if result["type"] == "choices"]
    ours = [result for result in results if result["from_name"] == LABEL]
    if results and not ours:
        raise ValueError(
            f"{where} has choices of {results[0]['from_name']!r} but none of {LABEL!r}; use the "
            "label_config of to_annotation_tasks"
        )
    return {label: True for result in ours for label in result["value"]["choices"]}


def _flat_labels(value: Any) -> dict[Any, bool]:
    """The labels in a cell, or as JSON-MIN has one choice, several, or several results."""
    if isinstance(value, list):
        return {label: True for part in value for label in _flat_labels(part)}
    if isinstance(value, dict):
        return dict.fromkeys(value["choices"], True)
    return {} if value is None or not str(value).strip() else {value: True}


def _tick(where: str, name: str, cell: Any) -> bool | None:
    text = "" if cell is None else str(cell).strip().lower()
    if text in YES or text in NO:
        return text in YES
    if text:
        raise ValueError(
            f"{where} has {cell!r} for the label {name!r}; write 1, 0, or nothing if it is not "
            "known"
        )
    return None

"""Utterances as files in which people write labels: for a spreadsheet, or for Label Studio."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import secrets
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_scalar

from sklearn_dialpref._dialogues.columns import Dialogues
from sklearn_dialpref._dialogues.containers import label_array, missing_in
from sklearn_dialpref._labels.scores import multilabel_scores
from sklearn_dialpref._labels.targets import check_targets, class_names
from sklearn_dialpref._paths import sync

from .annotation_keys import LABEL, LABEL_OF, check_texts, neutral, utterance_keys

__all__ = ["AnnotationTasks", "to_annotation_tasks"]

MODEL = "sklearn-dialpref"  # as Label Studio names where pre-annotations come from
LONGEST_CELL = 32_767  # characters, of Excel
NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


@dataclass(frozen=True, eq=False)
class AnnotationTasks:
    """Utterances for people to label, from :func:`to_annotation_tasks`.

    Attributes
    ----------
    rows : ndarray of shape (n_tasks,), int64
        The row of `X` that each task is about.
    tasks : list of dict
        A dict for each task, by column for a spreadsheet, as JSON has it for Label Studio.
    label_config : str or None
        Label Studio's labelling interface as XML, for its settings; None for a spreadsheet.

    Examples
    --------
    >>> from sklearn_dialpref import to_annotation_tasks
    >>> X = ["Where is my parcel?", "Thank you!"]
    >>> tasks = to_annotation_tasks(X, classes=["complaint", "thanks"], format="label_studio")
    >>> len(tasks), tasks.rows.tolist(), tasks.label_config.count("<Choice ")
    (2, [0, 1], 2)
    """

    rows: NDArray[np.int64]
    tasks: list[dict[str, Any]]
    label_config: str | None

    def __len__(self) -> int:
        return len(self.tasks)


def to_annotation_tasks(
    X: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    classes: Any,
    rows: Any = None,
    format: Literal["csv", "label_studio"] = "csv",
    multilabel: bool = False,
    context_turns: int = 3,
    predicted: Any = None,
    suggestions: Any = None,
) -> AnnotationTasks:
    """Write utterances into a file for people to label; :func:`from_annotations` reads it.

    ``format="csv"`` is for a spreadsheet: people write into the column ``label``. For Label
    Studio, import the file into a project and paste ``label_config`` into its labelling
    interface; then export the project as JSON or JSON-MIN.

    The column ``key`` says which utterance a label belongs to, so that people may sort, filter
    and delete rows, and `X` may come back in another order or with more dialogues.

    Parameters
    ----------
    X : DataFrame, ndarray or sequence of str, of n rows
        The utterances, in any form with text that the estimator accepts.
    path : str or path-like, default=None
        Path of the new file. None writes no file.
    classes : array-like of shape (K,)
        All classes, in the order in which people see them; for `multilabel` the labels.
    rows : array-like of int, or of bool and shape (n,), default=None
        The rows of `X` to label, in this order; by default those of `suggestions`, or all.
        Without dialogues, utterances of the same text are one task.
    format : {"csv", "label_studio"}, default="csv"
        Kind of file.
    multilabel : bool, default=False
        Whether an utterance can have several labels. A spreadsheet then has a column for each
        label, for 1 and 0.
    context_turns : int, default=3
        How many preceding utterances to show. A column ``context`` in `X` is shown instead.
    predicted : array-like of shape (n,), (n, A) or (n, K), default=None
        What to suggest for each row of `X`: predicted labels, votes or probabilities, as for
        `y_llm`. People tend to agree with a suggestion; leave it out for labels that are to
        measure what suggested them.
    suggestions : Suggestions, default=None
        From :func:`suggest_annotations`: the rows to label and the reasons, which are shown.

    Returns
    -------
    tasks : AnnotationTasks
        What is in the file, and the labelling interface for Label Studio.

    Raises
    ------
    FileExistsError
        If there is a file at `path`: it can hold labels.
    ValueError
        If `X` holds features, a row is not in `X`, or a text or class cannot be written.

    See Also
    --------
    from_annotations : Read the labels back.

    Notes
    -----
    A spreadsheet would run a text that begins with ``=``, ``+``, ``-`` or ``@`` as a formula, so
    that such texts are written after a single quote, which :func:`from_annotations` knows of.
    The file is UTF-8 with a byte order mark, by which Excel knows its encoding; save it again
    as "CSV UTF-8".

    Examples
    --------
    >>> from sklearn_dialpref import from_annotations
    >>> from sklearn_dialpref import to_annotation_tasks
    >>> X = [["a", "Hi!"], ["a", "My parcel is late."], ["b", "Thank you!"]]
    >>> tasks = to_annotation_tasks(X, classes=["complaint", "other"], rows=[1, 2])
    >>> tasks.tasks[0]["text"], tasks.tasks[0]["context"]
    ('My parcel is late.', 'Hi!')
    >>> tasks.tasks[0]["label"] = "complaint"
    >>> from_annotations(tasks, X, classes=["complaint", "other"]).tolist()
    [None, 'complaint', None]
    """
    if format not in ("csv", "label_studio"):
        raise ValueError(f"format must be 'csv' or 'label_studio', got {format!r}")
    check_scalar(context_turns, "context_turns", Integral, min_val=0)
    target = None if path is None else _free_path(Path(path))
    dialogues = check_texts(X)
    names = _shown_names(classes, multilabel, format)
    keys = utterance_keys(dialogues)
    once: dict[str, int] = {}
    for row in _chosen_rows(rows, suggestions, dialogues):
        once.setdefault(keys[row], row)
    guesses = _guesses(predicted, classes, multilabel, len(dialogues))
    reasons = (
        {} if suggestions is None else dict(zip(*_rows_and_reasons(suggestions), strict=True))
    )
    lines = _lines_shown(dialogues, list(once.values()), context_turns)
    tasks = []
    for (key, row), shown in zip(once.items(), lines, strict=True):
        about = {**_about(dialogues, row), "reason": reasons.get(row, ""), "key": key}
        _check_writable(row, [*about.values(), *(line for pair in shown for line in pair)])
        if format == "csv":
            tasks.append(_sheet_row(about, shown, guesses.get(row), names, multilabel))
        else:
            tasks.append(_studio_task(about, shown, guesses.get(row)))
    config = _label_config(names, multilabel) if format == "label_studio" else None
    if target is not None and config is None:
        _write(target, _csv_text(tasks), "utf-8-sig")  # Excel knows UTF-8 by its mark only
    elif target is not None:
        _write(target, json.dumps(tasks, ensure_ascii=False, indent=1), "utf-8")
    return AnnotationTasks(np.fromiter(once.values(), dtype=np.int64), tasks, config)


# -- input ----------------------------------------------------------------------------------


def _shown_names(classes: Any, multilabel: bool, format: str) -> list[str]:
    """The classes as people see them, in the order given."""
    names = [str(name) for name in class_names(classes).tolist()]
    if len(names) < 2 and not multilabel:
        raise ValueError(f"there must be two classes or more to choose from, got {names}")
    for name in names:
        if not name.strip() or "\0" in name:
            raise ValueError(f"the class {name!r} cannot be written into a file; rename it")
        if format == "label_studio" and (name.startswith("$") or NOT_IN_XML.search(name)):
            raise ValueError(
                f"Label Studio cannot have the class {name!r}: names that begin with '$' stand "
                "for data, and control characters are not allowed; rename it"
            )
    return names


def _chosen_rows(rows: Any, suggestions: Any, dialogues: Dialogues) -> list[int]:
    if rows is None and suggestions is None:
        return [int(row) for row in np.lexsort((dialogues.turn, dialogues.group))]
    if suggestions is not None and not hasattr(suggestions, "rows"):
        raise TypeError(
            "suggestions must be what suggest_annotations returns, got "
            f"{type(suggestions).__name__}; pass row numbers as rows=…"
        )
    chosen = label_array(suggestions.rows if rows is None else rows, "rows")
    n = len(dialogues)
    if chosen.dtype.kind == "b" and chosen.shape == (n,):
        chosen = np.flatnonzero(chosen)
    if chosen.ndim != 1 or not (chosen.dtype.kind in "iu" or not len(chosen)):
        raise ValueError(
            f"rows must be a 1-D sequence of row numbers, or {n} bools, one for each row of X; "
            f"got {rows!r}"
        )
    if not len(chosen):
        raise ValueError("rows names no utterance, so that there is nothing to label")
    if len(outside := chosen[(chosen < 0) | (chosen >= n)]):
        raise ValueError(f"rows holds {outside[0]}, but X has the rows 0 to {n - 1}")
    return [int(row) for row in chosen]


def _rows_and_reasons(suggestions: Any) -> tuple[list[int], list[str]]:
    return [int(row) for row in suggestions.rows], [str(why) for why in suggestions.reason]


def _guesses(
    predicted: Any, classes: Any, multilabel: bool, n: int
) -> dict[int, tuple[list[str], float]]:
    """What to suggest for each row that has a prediction, and how sure that is."""
    if predicted is None:
        return {}
    names: NDArray[Any] = class_names(classes)
    if multilabel:
        table = label_array(predicted, "predicted")
        if len(table) != n:
            raise ValueError(f"predicted has {len(table)} rows but X has {n}; predict all of X")
        scores: Any = multilabel_scores(predicted, table, names)
        given, sure = scores > 0.5, np.maximum(scores, 1 - scores).min(axis=1)
    else:
        targets = check_targets(None, predicted, n, classes)
        names, scores = targets.classes, targets.scores
        given, sure = scores.argmax(axis=1)[:, None] == np.arange(len(names)), scores.max(axis=1)
    labels = np.array([str(name) for name in names.tolist()], dtype=object)
    return {
        int(row): (labels[given[row]].tolist(), round(float(sure[row]), 6))
        for row in np.flatnonzero(~np.isnan(sure))
    }


# -- what is shown --------------------------------------------------------------------------


def _lines_shown(
    dialogues: Dialogues, rows: list[int], context_turns: int
) -> list[list[tuple[str, str]]]:
    """Speaker and text of the utterances before each row, or its context, and of the row."""
    assert dialogues.text is not None
    said = list(zip(_speakers(dialogues), dialogues.text.tolist(), strict=True))
    if dialogues.context is not None:
        return [[("", text)] * bool(text) + [said[row]] for row, text in
                zip(rows, dialogues.context[rows].tolist(), strict=True)]  # fmt: skip
    order = np.lexsort((dialogues.turn, dialogues.group))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    back = np.minimum(dialogues.turn, int(context_turns))
    return [
        [said[other] for other in order[place[row] - back[row] : place[row] + 1]] for row in rows
    ]


def _speakers(dialogues: Dialogues) -> list[str]:
    if dialogues.speaker is None:
        return [""] * len(dialogues)
    missing = missing_in(dialogues.speaker)
    names = zip(dialogues.speaker.tolist(), missing.tolist(), strict=True)
    return ["" if is_missing else str(name) for name, is_missing in names]


def _about(dialogues: Dialogues, row: int) -> dict[str, Any]:
    if not dialogues.has_dialogues:
        return {"dialogue_id": "", "turn": ""}
    turns = dialogues.turn_number if dialogues.turn_number is not None else dialogues.turn
    return {"dialogue_id": str(dialogues.dialogue_id[row]), "turn": int(turns[row])}


def _check_writable(row: int, texts: list[Any]) -> None:
    if any("\0" in text for text in texts if isinstance(text, str)):
        raise ValueError(
            f"row {row} of X, or what is shown with it, has a NUL character, which spreadsheets "
            "and Label Studio cannot hold; remove it, such as by text.replace('\\0', '')"
        )


# -- spreadsheets ---------------------------------------------------------------------------


def _sheet_row(
    about: dict[str, Any],
    shown: list[tuple[str, str]],
    guess: tuple[list[str], float] | None,
    names: list[str],
    multilabel: bool,
) -> dict[str, Any]:
    *before, (speaker, text) = shown
    if len(text) >= LONGEST_CELL:
        raise ValueError(
            f"an utterance of {len(text)} characters is too long for a cell of a spreadsheet, "
            f"which holds {LONGEST_CELL}; use format='label_studio', or leave it out of rows"
        )
    context = "\n".join(f"{name}: {line}" if name else line for name, line in before)
    if len(context) >= LONGEST_CELL:
        context = "…" + context[2 - LONGEST_CELL :]
    labels = [f"{LABEL_OF}{name}" for name in names] if multilabel else [LABEL]
    return {
        "dialogue_id": about["dialogue_id"],
        "turn": about["turn"],
        "speaker": speaker,
        "text": text,
        "context": context,
        "reason": about["reason"],
        "suggestion": "" if guess is None else "; ".join(guess[0]),
        **dict.fromkeys(labels, ""),
        "key": about["key"],
    }


def _csv_text(tasks: list[dict[str, Any]]) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(map(neutral, tasks[0]))
    for task in tasks:
        writer.writerow([neutral(str(cell)) for cell in task.values()])
    return file.getvalue()


# -- Label Studio ---------------------------------------------------------------------------


def _studio_task(
    about: dict[str, Any], shown: list[tuple[str, str]], guess: tuple[list[str], float] | None
) -> dict[str, Any]:
    speaker, text = shown[-1]
    lines = [{"author": name, "text": line} for name, line in shown]
    task: dict[str, Any] = {"data": {**about, "speaker": speaker, "text": text, "dialogue": lines}}
    if guess is not None:
        choice = {
            "from_name": LABEL,
            "to_name": "text",
            "type": "choices",
            "value": {"choices": guess[0]},
        }
        task["predictions"] = [{"model_version": MODEL, "score": guess[1], "result": [choice]}]
    return task


def _label_config(names: list[str], multilabel: bool) -> str:
    """The dialogue, the utterance to label as its last line and once more, and the classes."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(
        view, "Paragraphs", name="dialogue", value="$dialogue", layout="dialogue"
    )
    ElementTree.SubElement(view, "Header", value="Label this utterance:")
    ElementTree.SubElement(view, "Text", name="text", value="$text")
    kind = "multiple" if multilabel else "single"
    choices = ElementTree.SubElement(view, "Choices", name=LABEL, toName="text", choice=kind)
    for name in names:
        ElementTree.SubElement(choices, "Choice", value=name)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode")


# -- files ----------------------------------------------------------------------------------


def _free_path(path: Path) -> Path:
    if os.path.lexists(path):
        raise FileExistsError(
            f"{path} is there already and can hold labels; read them by from_annotations and "
            "remove it, or write to another path"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder; make it first")
    return path


def _write(path: Path, content: str, encoding: str) -> None:
    """Write a file that appears whole or not at all."""
    new = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with new.open("x", encoding=encoding, newline="") as file:
            file.write(content)
        sync(new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    sync(path.parent)

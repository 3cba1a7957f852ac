"""Paired bootstrap intervals, over evaluation dialogues, of the default's lead."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.bootstrap import DRAWS, dialogue_weights, lead_with_interval

from .data import Split
from .run import KEY

__all__ = ["DRAWS", "Truth", "differences"]

STATISTICS = ("macro_f1", "accuracy")


@dataclass
class Truth:
    """The evaluated rows of a task.

    Attributes
    ----------
    label : ndarray of int, shape (n,)
        Class codes.
    dialogue : ndarray of int, shape (n,)
    n_classes : int
    """

    label: np.ndarray
    dialogue: np.ndarray
    n_classes: int

    @classmethod
    def of(cls, split: Split) -> "Truth":
        known = np.array([label is not None for label in split.y_evaluation])
        label = np.searchsorted(split.classes, split.y_evaluation[known].astype(str))
        dialogues = split.evaluation["dialogue_id"][known].to_numpy(dtype=str)
        return cls(label, np.unique(dialogues, return_inverse=True)[1], len(split.classes))


def differences(
    done: pd.DataFrame, predictions: dict, truth: dict[str, Truth]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each measure with the default's lead over each other method, in points.

    Parameters
    ----------
    done : DataFrame
        Results of one student at one budget.
    predictions : dict
        Codes by cell and method, as of :func:`read_predictions`.
    truth : dict of Truth
        By task.

    Yields
    ------
    measure : str
    table : DataFrame of str
        A row for each method, columns the tasks and their mean: lead and interval.
    """
    codes_of: dict = {}
    for row in done.to_dict("records"):
        codes = predictions.get(tuple(str(row[name]) for name in KEY))
        if codes is not None and len(codes) == len(truth[row["task"]].label):
            codes_of.setdefault((row["task"], row["method"]), {})[row["seed"]] = codes
    tasks = list(done["task"].unique())
    if not any((task, "default") in codes_of for task in tasks):
        return
    others = [name for name in done["method"].unique() if name != "default"]
    for number, measure in enumerate(STATISTICS):
        rows, order = {}, {}
        for name in others:
            pairs = [_paired(codes_of, truth[task], task, name, number) for task in tasks]
            known = [pair for pair in pairs if pair is not None]
            mean = None if len(known) < len(pairs) else np.mean(pairs, axis=0)
            rows[name] = [_cell(pair) for pair in [*pairs, mean]]
            order[name] = (mean is None, -np.mean([pair[0] for pair in known]) if known else 0)
        rows = {name: rows[name] for name in sorted(rows, key=order.__getitem__)}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=[*tasks, "mean"])
        yield measure, table.rename_axis("default −")


def _paired(
    codes_of: dict, truth: Truth, task: str, name: str, statistic: int
) -> np.ndarray | None:
    """The lead, first as it is, then in each draw; mean over the seeds that both have."""
    default, other = codes_of.get((task, "default"), {}), codes_of.get((task, name), {})
    leads = []
    for seed in sorted(default.keys() & other):
        answered = other[seed] >= 0
        scores = (_statistics(codes, truth, answered) for codes in (default[seed], other[seed]))
        ours, theirs = (score[statistic] for score in scores)
        leads.append(100 * (ours - theirs))
    return np.mean(leads, axis=0) if leads else None


def _statistics(codes: np.ndarray, truth: Truth, rows: np.ndarray) -> np.ndarray:
    """Macro-F1 and accuracy of each draw, from the confusion counts of each dialogue."""
    weights = dialogue_weights(int(truth.dialogue.max()) + 1)
    counts = np.zeros((weights.shape[1], truth.n_classes, truth.n_classes))
    np.add.at(counts, (truth.dialogue[rows], truth.label[rows], codes[rows]), 1)
    drawn = np.tensordot(weights, counts, axes=1)
    right = np.diagonal(drawn, axis1=1, axis2=2)
    used = drawn.sum(axis=1) + drawn.sum(axis=2)
    f1 = np.divide(2 * right, used, out=np.full(used.shape, np.nan), where=used > 0)
    return np.stack([np.nanmean(f1, axis=1), right.sum(axis=1) / drawn.sum(axis=(1, 2))])


def _cell(lead: np.ndarray | None) -> str:
    if lead is None:
        return "–"
    return lead_with_interval(lead)

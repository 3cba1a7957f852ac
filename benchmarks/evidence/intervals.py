"""Paired bootstrap intervals, over evaluation dialogues, of the default's lead."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pandas as pd

from .run import KEY, proba_path

__all__ = ["DRAWS", "differences"]

DRAWS = 1000
STATISTICS = ("macro_f1", "accuracy")


def differences(done: pd.DataFrame, ours: dict) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each measure with the default's lead over each other method, in points.

    Parameters
    ----------
    done : DataFrame
        Results of one student at one budget.
    ours : dict
        The methods of this package, which are named after the opponents.

    Yields
    ------
    measure : str
    table : DataFrame of str
        A row for each method, columns the tasks and their mean: lead and interval.
    """
    draws = {key: _draws(rows) for key, rows in done.groupby(["task", "method"], sort=False)}
    tasks = list(done["task"].unique())
    if not any(draws.get((task, "default")) for task in tasks):
        return
    others = [name for name in done["method"].unique() if name != "default"]
    others.sort(key=lambda name: name in ours)
    for number, measure in enumerate(STATISTICS):
        rows = {}
        for name in others:
            pairs = [_paired(draws, task, name, number) for task in tasks]
            mean = None if any(pair is None for pair in pairs) else np.mean(pairs, axis=0)
            rows[name] = [_cell(pair) for pair in [*pairs, mean]]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=[*tasks, "mean"])
        yield measure, table.rename_axis("default −")


def _draws(rows: pd.DataFrame) -> dict[int, dict[str, np.ndarray]]:
    """Stored predictions of a method on a task, by seed."""
    found = {}
    for row in rows.to_dict("records"):
        path = proba_path(str(row[name]) for name in KEY)
        if path.exists():
            with np.load(path) as stored:
                found[row["seed"]] = dict(stored)
    return found


def _paired(draws: dict, task: str, name: str, statistic: int) -> np.ndarray | None:
    """The lead, first as it is, then in each draw; mean over the seeds that both have."""
    default, other = draws.get((task, "default"), {}), draws.get((task, name), {})
    leads = [
        _lead(default[seed], other[seed], statistic) for seed in sorted(default.keys() & other)
    ]
    return np.mean(leads, axis=0) if leads else None


def _lead(default: dict, other: dict, statistic: int) -> np.ndarray:
    answered = ~np.isnan(other["proba"][:, 0])
    n_dialogues = int(default["dialogue"].max()) + 1
    weights = _weights(n_dialogues)
    return 100 * (
        _statistics(default, answered, weights)[statistic]
        - _statistics(other, answered, weights)[statistic]
    )


@lru_cache
def _weights(n_dialogues: int) -> np.ndarray:
    """How often each dialogue is in each draw, the same for all methods; the first: once each.

    Tasks on the same dialogues share their draws too; those on others have draws of their own.
    """
    even = np.full(n_dialogues, 1 / n_dialogues)
    drawn = np.random.default_rng(n_dialogues).multinomial(n_dialogues, even, size=DRAWS)
    return np.vstack([np.ones(n_dialogues), drawn])


def _statistics(stored: dict, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Macro-F1 and accuracy of each draw, from the confusion counts of each dialogue."""
    n_classes = stored["proba"].shape[1]
    predicted = np.nan_to_num(stored["proba"]).argmax(axis=1)
    counts = np.zeros((weights.shape[1], n_classes, n_classes))
    at = (stored["dialogue"][rows], stored["truth"][rows], predicted[rows])
    np.add.at(counts, at, 1)
    drawn = np.tensordot(weights, counts, axes=1)
    right = np.diagonal(drawn, axis1=1, axis2=2)
    used = drawn.sum(axis=1) + drawn.sum(axis=2)
    f1 = np.divide(2 * right, used, out=np.full(used.shape, np.nan), where=used > 0)
    return np.stack([np.nanmean(f1, axis=1), right.sum(axis=1) / drawn.sum(axis=(1, 2))])


def _cell(lead: np.ndarray | None) -> str:
    if lead is None:
        return "–"
    low, high = np.percentile(lead[1:], [2.5, 97.5])
    return f"{lead[0]:+.1f} [{low:+.1f}, {high:+.1f}]"

"""Sensitivity to the constants of training: each is varied alone, on validation dialogues.

    python -m benchmarks.constants

Run it from the repository root. The student is the frozen one of ``benchmarks.evidence`` with its
default parameters. Each row is the mean change in points from the present recipe, over tasks,
numbers of labels and seeds. Writes benchmarks/results/constants.md.
"""

import argparse
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.evidence.data import TASKS, Split, add_data_option, load_split, make_cell
from benchmarks.evidence.ours import OURS
from benchmarks.evidence.report import markdown
from benchmarks.evidence.run import score
from sklearn_dialpref._training import recipe as _recipe
from sklearn_dialpref._training import teacher as _teacher
from sklearn_dialpref._training import train as _train

DEFAULT = OURS["frozen"]["default"]
# each change by its name in the table: the module, the constant and its new value
CHANGES = {
    "rate of the head halved": [(_recipe, "HEAD_RATE", 2.5e-4)],
    "rate of the head doubled": [(_recipe, "HEAD_RATE", 1e-3)],
    "the same rate for many classes": [(_recipe, "MOST_HEAD_LR_MULTIPLIER", 1.0)],
    "weight decay of a tenth": [(_recipe, "WEIGHT_DECAY", {"frozen": 0.01})],
    "head half as wide": [(_recipe, "WIDTH", 64)],
    "head twice as wide": [(_recipe, "WIDTH", 256)],
    "a quarter of the inputs dropped": [(_recipe, "MOST_DROPOUT", 0.25)],
    "LLM labels: twice as long": [(_recipe, "TEACHER_STAGE", {"frozen": (10, 600)})],
    "human labels: no least number of steps": [
        (_recipe, "HUMAN_STAGE_AFTER", {"frozen": (20, 0)})
    ],
    "human labels: twice as long": [(_recipe, "HUMAN_STAGE_AFTER", {"frozen": (40, 80)})],
    "human labels: followed all the way": [(_train, "SHARES", (1.0,))],
    "human labels: followed or not": [(_train, "SHARES", (0.0, 1.0))],
    "five folds": [(_train, "N_FOLDS", 5)],
    "bias of the LLM never corrected": [(_teacher, "GRAVE", 2.0)],
    "bias of the LLM corrected where it seems to help": [
        (_teacher, "GRAVE", 0.0),
        (_teacher, "SURE", 0.5),
    ],
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.constants", description=__doc__.splitlines()[0]
    )
    add_data_option(parser)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--budgets", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


@contextmanager
def changed(change: list[tuple]) -> Iterator[None]:
    before = [(module, name, getattr(module, name)) for module, name, _ in change]
    for module, name, value in change:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def measured(split: Split, budgets: list[int], seeds: list[int]) -> np.ndarray:
    """Accuracy and macro-F1 in points, means over budgets and seeds."""
    scores = []
    for budget in budgets:
        for seed in seeds:
            cell = make_cell(split, budget, seed)
            row = score(cell, DEFAULT(cell, seed))
            scores.append([100 * row["accuracy"], 100 * row["macro_f1"]])
    return np.mean(scores, axis=0)


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = {name: [] for name in CHANGES}
    for task in options.tasks:
        split = load_split(TASKS[task], options.data_dir, "validation")
        DEFAULT.prepare(split)
        plain = measured(split, options.budgets, options.seeds)
        for name, change in CHANGES.items():
            with changed(change):
                rows[name].append(measured(split, options.budgets, options.seeds) - plain)
    table = pd.DataFrame(
        {
            name: [
                *(f"{m:+.1f}" for m in np.mean(per_seed, axis=0)),
                *(f"{a:+.1f} / {f:+.1f}" for a, f in per_seed),
            ]
            for name, per_seed in rows.items()
        },
        index=["accuracy", "macro-F1", *options.tasks],
    ).T.rename_axis("change")
    machine = f"{platform.processor() or platform.machine()}, {time.strftime('%Y-%m-%d')}"
    text = (
        "# What the constants of training rest on\n\n"
        "Change in points against the recipe as it stands, by task accuracy / macro-F1.\n\n"
        f"{markdown(table)}\n\nValidation dialogues, {options.budgets} human labels, "
        f"{len(options.seeds)} seeds, {machine}.\n"
    )
    (options.out / "constants.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

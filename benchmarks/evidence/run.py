"""Fit the cells without a result, and append each new result to CSV files."""

import csv
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import accuracy_score, f1_score
from threadpoolctl import threadpool_limits

from .baselines import BASELINES
from .data import Cell, Split, Task, load_split, make_cell
from .features import prepare
from .ours import ABLATIONS, OURS, Method

__all__ = [
    "FIELDS",
    "KEPT",
    "KEY",
    "METHODS",
    "Job",
    "plan",
    "read_predictions",
    "read_results",
    "run_jobs",
    "score",
]

KEY = ["task", "part", "student", "budget", "seed", "method"]
ABLATION_BUDGET = 100
MEASURES = ["accuracy", "macro_f1", "brier", "seconds"]
FIELDS = [*KEY, *MEASURES, "n_human", "n_rows", "error"]
PREDICTED = [*KEY, "predicted"]
# numbers of labels whose predictions are kept, for the intervals of the report
KEPT = (100, 400)
FIRST_CODE = ord("0")
METHODS = {student: {**OURS[student], **BASELINES[student]} for student in OURS}


@dataclass(frozen=True)
class Job:
    """One cell and one method."""

    task: Task
    folder: Path
    part: str
    student: str
    budget: int | str
    seed: int
    method: str

    @property
    def key(self) -> tuple[str, ...]:
        budget, seed = str(self.budget), str(self.seed)
        return (self.task.name, self.part, self.student, budget, seed, self.method)


def plan(
    tasks: Iterable[Task],
    folder: Path,
    part: str,
    student: str,
    budgets: Iterable[int | str],
    seeds: Iterable[int],
    methods: Iterable[str] | None,
) -> list[Job]:
    """All jobs, those of a task together, and those of a cell within them.

    With ``methods`` None the ablations run at ``ABLATION_BUDGET`` only, all others everywhere.
    """
    seeds, budgets = list(seeds), list(budgets)
    return [
        Job(task, folder, part, student, budget, seed, method)
        for task in tasks
        for budget in budgets
        for seed in seeds
        for method in (methods or METHODS[student])
        if methods or method not in ABLATIONS or budget == ABLATION_BUDGET
    ]


def run_jobs(jobs: list[Job], csv_path: Path, n_jobs: int, intervals: bool) -> None:
    """Run those jobs that have no result yet.

    Parameters
    ----------
    jobs : list of Job
    csv_path : Path
        Results; only this process writes there, and beside it what was predicted.
    n_jobs : int
        Processes, of one thread each; 1 stays in this process.
    intervals : bool
        Whether to run a job of ``KEPT`` labels again that has a result but no predictions.
    """
    results = read_results(csv_path)
    errors = {_key(row): row["error"] for row in results.to_dict("records")}
    stored = read_predictions(csv_path)
    missing = [
        job
        for job in jobs
        if errors.get(job.key) != ""
        or (intervals and job.budget in KEPT and job.key not in stored)
    ]
    _prepare_embeddings(missing)
    for row in _outcomes(missing, n_jobs):
        if not row["error"] or errors.get(_key(row)) != row["error"]:
            _append(csv_path, row, FIELDS)
            if not row["error"] and row["budget"] in map(str, KEPT):
                _append(_predictions_path(csv_path), row, PREDICTED)


def read_results(csv_path: Path) -> pd.DataFrame:
    """The last result of each cell and method; ``error`` is empty where there was none."""
    if not csv_path.exists():
        return pd.DataFrame(columns=FIELDS)
    results = pd.read_csv(csv_path, dtype={"budget": str}, keep_default_na=True)
    results["error"] = results["error"].fillna("").astype(str)
    return results.drop_duplicates(KEY, keep="last").reset_index(drop=True)


def read_predictions(csv_path: Path) -> dict[tuple[str, ...], np.ndarray]:
    """The class codes that each cell and method predicted last, -1 where it gave no answer."""
    path = _predictions_path(csv_path)
    if not path.exists():
        return {}
    table = pd.read_csv(path, dtype=str)
    return {
        tuple(row[:-1]): np.array([ord(character) - FIRST_CODE for character in row[-1]])
        for row in table[PREDICTED].itertuples(index=False)
    }


def _written(codes: np.ndarray) -> str:
    """A character for each code, "0" for class 0, ":" for class 10, "/" for none."""
    return "".join(chr(FIRST_CODE + code) for code in codes)


def _predictions_path(csv_path: Path) -> Path:
    return csv_path.with_name(csv_path.name.replace("cells_", "predictions_"))


def score(cell: Cell, proba: np.ndarray) -> dict:
    """Measures on the evaluated rows; rows of NaN are left out."""
    truth = cell.split.y_evaluation[cell.evaluated].astype(str)
    answered = ~np.isnan(proba[:, 0])
    truth, proba = truth[answered], proba[answered]
    predicted = cell.classes[proba.argmax(axis=1)]
    one_hot = truth[:, None] == cell.classes
    return {
        "accuracy": accuracy_score(truth, predicted),
        "macro_f1": f1_score(truth, predicted, average="macro", zero_division=0),
        "brier": float(((proba - one_hot) ** 2).sum(axis=1).mean()),
        "n_rows": len(truth),
    }


def _key(row: dict) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in KEY)


def _prepare_embeddings(jobs: list[Job]) -> None:
    """Embed the texts in this process, so that the workers need not."""
    frozen = {(job.task, job.folder, job.part) for job in jobs if job.student == "frozen"}
    for task, folder, part in sorted(frozen, key=lambda one: one[0].name):
        prepare(_split(task, folder, part))


def _outcomes(jobs: list[Job], n_jobs: int) -> Iterator[dict]:
    if n_jobs == 1:
        yield from map(_outcome, jobs)
        return
    # joblib takes the embeddings that a process keeps for a leak, and begins it anew
    pool = ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn"))
    try:
        for done in as_completed([pool.submit(_outcome, job) for job in jobs]):
            yield done.result()
    finally:  # a run that is stopped ends with the jobs at work
        pool.shutdown(cancel_futures=True)


def _outcome(job: Job) -> dict:
    """The result row of a job; an exception becomes its error."""
    row = dict.fromkeys(FIELDS, "") | dict(zip(KEY, job.key, strict=True))
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return row | _measured(job)
    except ImportError as error:
        return row | {"error": f"not installed: {error}".replace("\n", " ")}
    except Exception as error:  # one method's failure must not end the run
        return row | {"error": f"{type(error).__name__}: {error}".replace("\n", " ")}


def _measured(job: Job) -> dict:
    split = _split(job.task, job.folder, job.part)
    cell = make_cell(split, job.budget, job.seed)
    method = METHODS[job.student][job.method]
    if isinstance(method, Method):
        method.prepare(split)
    start = time.process_time()  # of one thread: a busy machine changes nothing
    proba = method(cell, job.seed)
    seconds = time.process_time() - start
    codes = np.where(np.isnan(proba[:, 0]), -1, np.nan_to_num(proba).argmax(axis=1))
    about = {"seconds": seconds, "n_human": int(cell.human.sum())}
    return score(cell, proba) | about | {"predicted": _written(codes)}


@lru_cache(maxsize=1)
def _split(task: Task, folder: Path, part: str) -> Split:
    return load_split(task, folder, part)


def _append(csv_path: Path, row: dict, fields: list[str]) -> None:
    new = not csv_path.exists()
    csv_path.parent.mkdir(parents=True, exist_ok=True)
    with open(csv_path, "a", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)

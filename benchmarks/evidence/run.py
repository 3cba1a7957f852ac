"""Fit the cells that are not there yet, and append each result to a CSV file as it ends."""

import csv
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from sklearn.metrics import accuracy_score, f1_score
from threadpoolctl import threadpool_limits

from .data import Cell, Split, Task, load_split, make_cell
from .features import WORK, prepare
from .opponents import OPPONENTS
from .ours import ABLATIONS, OURS, Method

__all__ = ["FIELDS", "KEY", "METHODS", "Job", "plan", "proba_path", "read_results", "run_jobs"]

KEY = ["task", "part", "student", "budget", "seed", "method"]
ABLATION_BUDGET = 100
MEASURES = ["accuracy", "macro_f1", "brier", "seconds"]
FIELDS = [*KEY, *MEASURES, "n_human", "n_rows", "error"]
METHODS = {student: {**OURS[student], **OPPONENTS[student]} for student in OURS}


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
        Results; only this process writes there.
    n_jobs : int
        Processes, of one thread each; 1 stays in this process.
    intervals : bool
        Whether to run a job again that has a result but no stored probabilities.
    """
    results = read_results(csv_path)
    errors = {_key(row): row["error"] for row in results.to_dict("records")}
    missing = [
        job
        for job in jobs
        if errors.get(job.key) != "" or (intervals and not proba_path(job.key).exists())
    ]
    _prepare_embeddings(missing)
    for row in _outcomes(missing, n_jobs):
        if not row["error"] or errors.get(_key(row)) != row["error"]:
            _append(csv_path, row)


def read_results(csv_path: Path) -> pd.DataFrame:
    """The last result of each cell and method; ``error`` is empty where there was none."""
    if not csv_path.exists():
        return pd.DataFrame(columns=FIELDS)
    found = pd.read_csv(csv_path, dtype={"budget": str}, keep_default_na=True)
    found["error"] = found["error"].fillna("").astype(str)
    return found.drop_duplicates(KEY, keep="last").reset_index(drop=True)


def proba_path(key: Iterable[str]) -> Path:
    """Where the probabilities of a cell and method lie."""
    return WORK / "proba" / ("--".join(key) + ".npz")


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
    """Here and now, not in each process."""
    frozen = {(job.task, job.folder, job.part) for job in jobs if job.student == "frozen"}
    for task, folder, part in sorted(frozen, key=lambda one: one[0].name):
        prepare(_split(task, folder, part))


def _outcomes(jobs: list[Job], n_jobs: int) -> Iterator[dict]:
    if n_jobs == 1:
        return (_outcome(job) for job in jobs)
    parallel = Parallel(n_jobs, batch_size=1, return_as="generator_unordered")
    return parallel(delayed(_outcome)(job) for job in jobs)


def _outcome(job: Job) -> dict:
    """The row of a job, whatever happens in it."""
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
    _store(job, cell, proba)
    return score(cell, proba) | {"seconds": seconds, "n_human": int(cell.human.sum())}


@lru_cache(maxsize=1)
def _split(task: Task, folder: Path, part: str) -> Split:
    return load_split(task, folder, part)


def _store(job: Job, cell: Cell, proba: np.ndarray) -> None:
    path = proba_path(job.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    truth = cell.split.y_evaluation[cell.evaluated].astype(str)
    dialogues = cell.split.evaluation["dialogue_id"][cell.evaluated]
    np.savez_compressed(
        path,
        proba=proba.astype(np.float32),
        truth=np.searchsorted(cell.classes, truth),
        dialogue=np.unique(dialogues.to_numpy(dtype=str), return_inverse=True)[1],
    )


def _append(csv_path: Path, row: dict) -> None:
    new = not csv_path.exists()
    csv_path.parent.mkdir(parents=True, exist_ok=True)
    with open(csv_path, "a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerow(row)

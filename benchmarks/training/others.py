"""``fit`` on human and LLM labels against SetFit and sentence-transformers on the human ones.

The same encoder, human labels of the same whole dialogues and the same test dialogues; each fit in
a process of its own with one thread. Seconds are those of training, from labels and texts to a
classifier, without imports and, of the others, without loading the encoder. Ours has the previous
utterance as context, and encodes all utterances with an LLM label; "again" is a second fit with
the embeddings stored.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score

from .measured import measure, watch
from .report import table

__all__ = ["TITLE", "add_options", "run"]

TITLE = "Against SetFit and sentence-transformers"
# options of the trainer, by the name in the table
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "SetFit, default": ("setfit", {}),
    "SetFit, `num_iterations=2`": ("setfit", {"num_iterations": 2}),
    "sentence-transformers, triplets": ("triplets", {"num_train_epochs": 5}),
}
OURS = "`fit`"
DEFAULT = "SetFit, default"
SCRIPT = Path(__file__).with_name("their_fit.py")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--setfit-python", type=Path, help="interpreter that has SetFit")
    parser.add_argument("--tasks", nargs="+", default=["deli_type", "meld_sentiment"])
    parser.add_argument("--budgets", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=[OURS, *THEIRS], default=[OURS, *THEIRS])
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2")
    parser.add_argument("--test-rows", type=int, default=1000, help="of whole test dialogues")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument(
        "--default-steps",
        type=int,
        default=30,
        help="of SetFit's default, for one seed; seconds are extrapolated to all. 0: train fully",
    )


def run(options: argparse.Namespace) -> str:
    """Run what has no result in the work folder yet."""
    from sklearn_dialpref._student.encoders import resolve_encoder

    if options.setfit_python is None and set(options.methods) != {OURS}:
        sys.exit("--setfit-python: name an interpreter that has SetFit, or --methods '`fit`'")
    options.encoder_folder = str(resolve_encoder(options.encoder))
    done_before = options.work / "others.jsonl"
    lines = done_before.read_text().splitlines() if done_before.exists() else []
    results = {json.dumps(row["key"]): row for row in map(json.loads, lines)}
    jobs = [job for job in _jobs(options) if json.dumps(job["key"]) not in results]

    with ThreadPoolExecutor(options.jobs) as pool, open(done_before, "a") as file:
        for row in pool.map(_outcome, jobs):
            results[json.dumps(row["key"])] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(row["key"], f"{row['seconds']:.1f} s", row["macro_f1"], flush=True)
    return _report([results[json.dumps(job["key"])] for job in _jobs(options)], options)


def _jobs(options: argparse.Namespace) -> list[dict[str, Any]]:
    cells = product(options.tasks, options.budgets, options.methods, options.seeds)
    jobs = []
    for task, budget, method, seed in cells:
        steps = options.default_steps if method == DEFAULT else 0
        if steps and seed != options.seeds[0]:
            continue
        key = [
            task,
            budget,
            method,
            seed,
            steps,
            options.test_rows,
            options.encoder,
        ]
        jobs.append({"key": key, "options": options})
    return jobs


def _outcome(job: dict[str, Any]) -> dict[str, Any]:
    options = job["options"]
    task, budget, method, seed, steps, *_ = job["key"]
    truth = _cell(options, task, budget, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cell = {"folder": options.data_dir, "task": task, "budget": budget, "seed": seed}
        predicted = folder / "predicted.npy"
        if method == OURS:
            cell |= {"encoder": options.encoder_folder, "test_rows": options.test_rows}
            call = f"{__name__}:fit"
            done = measure(call, threads=options.threads, predicted=predicted, **cell)
            result, memory = done.result, done.memory
        else:
            command = _their_command(options, truth, folder, method, seed, steps)
            result, memory = watch(command, options.threads)
        row = {"key": job["key"], **result, "peak": memory.resident, **_no_scores()}
        if steps:
            row["seconds"] += row["pairs_seconds"] * (row["all_steps"] / row["steps"] - 1)
        else:
            row |= _scores(truth, np.load(predicted))
    return row


def _their_command(
    options: argparse.Namespace, truth: dict, folder: Path, method: str, seed: int, steps: int
) -> list[str]:
    truth["labelled"].to_parquet(folder / "labelled.parquet")
    truth["rows"][truth["evaluated"]].to_parquet(folder / "unseen.parquet")
    trainer, own = THEIRS[method]
    job = {
        "trainer": trainer,
        "options": own | ({"max_steps": steps} if steps else {}),
        "encoder": options.encoder_folder,
        "labelled": str(folder / "labelled.parquet"),
        "unseen": str(folder / "unseen.parquet"),
        "predicted": "" if steps else str(folder / "predicted.npy"),
        "seed": seed,
    }
    return [str(options.setfit_python), str(SCRIPT), json.dumps(job)]


def _cell(options: Any, task: str, budget: int, seed: int) -> dict[str, Any]:
    """The labelled texts, the test rows in whole dialogues, and their true classes."""
    from benchmarks.evidence.data import TASKS, load_split, make_cell

    split = load_split(TASKS[task], Path(options.data_dir), "test")
    cell = make_cell(split, budget, seed)
    labelled = split.train["text"][cell.human].to_frame().assign(code=cell.human_codes)
    dialogue = split.evaluation["dialogue_id"].to_numpy()
    n_known = pd.Series(cell.evaluated).groupby(dialogue, sort=False).sum().cumsum()
    upto = min(int(np.searchsorted(n_known.to_numpy(), options.test_rows)) + 1, len(n_known))
    kept = np.isin(dialogue, n_known.index[:upto])
    rows = split.evaluation[kept].reset_index(drop=True)
    evaluated = cell.evaluated[kept]
    codes = np.searchsorted(cell.classes, split.y_evaluation[kept][evaluated].astype(str))
    return {
        "cell": cell,
        "labelled": labelled,
        "rows": rows,
        "evaluated": evaluated,
        "codes": codes,
    }


def _no_scores() -> dict[str, None]:
    return {"accuracy": None, "macro_f1": None}


def _scores(truth: dict[str, Any], predicted: np.ndarray) -> dict[str, float]:
    return {
        "accuracy": float(accuracy_score(truth["codes"], predicted)),
        "macro_f1": float(f1_score(truth["codes"], predicted, average="macro")),
    }


# -- the report -------------------------------------------------------------------------------


def _report(results: list[dict[str, Any]], options: argparse.Namespace) -> str:
    frame = pd.DataFrame(results)
    frame[["task", "budget", "method"]] = [row["key"][:3] for row in results]
    groups = dict(iter(frame.groupby(["task", "budget", "method"], sort=False)))
    rows = []
    for (task, budget, method), part in groups.items():
        ours = groups.get((task, budget, OURS))
        rows.append(_row(task, budget, method, part, ours))
    versions = next((row["versions"] for row in results if "versions" in row), {})
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    notes = [
        f"{options.threads} thread a process, {options.jobs} processes at a time, "
        f"{options.test_rows:,} test utterances or a few more; mean ± deviation over seeds.",
        "SetFit's default makes all pairs of the labels, in one epoch of batches of 16. "
        "`num_iterations=2` makes 2 pairs of like and 2 of unlike labels for each text. Triplets: "
        "`BatchAllTripletLoss`, 5 epochs of batches of 32 sorted by label, then logistic "
        "regression.",
    ]
    if any(part["key"].iloc[0][4] for part in groups.values()):
        notes.append(
            f"SetFit's default was timed for {options.default_steps} steps of one seed, and its "
            "seconds are those times the number of steps that it would take."
        )
    return "\n\n".join([table(rows), *notes, f"In their interpreter: {named}." if named else ""])


def _row(
    task: str, budget: int, method: str, part: pd.DataFrame, ours: pd.DataFrame | None
) -> dict[str, str]:
    again = part["again"].mean() if "again" in part else np.nan
    steps = part["all_steps"].mean() if "all_steps" in part else np.nan
    row = {
        "task": task,
        "human labels": str(budget),
        "trained by": method,
        "steps": "" if np.isnan(steps) else f"{steps:,.0f}",
        "seconds": _spread(part["seconds"], ".1f"),
        "again": "" if np.isnan(again) else f"{again:.1f}",
        "seconds / ours": "",
        "macro-F1": _spread(part["macro_f1"], ".3f"),
        "accuracy": _spread(part["accuracy"], ".3f"),
        "seeds": str(len(part)),
    }
    if ours is not None:
        row["seconds / ours"] = f"{part['seconds'].mean() / ours['seconds'].mean():.1f}"
    return row


def _spread(values: pd.Series, form: str) -> str:
    if values.isna().all():
        return "–"
    values = values.astype(float)
    if len(values) == 1:
        return f"{values.iloc[0]:{form}}"
    return f"{values.mean():{form}} ± {values.std():{form}}"


# -- ours, in a process of its own ------------------------------------------------------------


def fit(
    folder: str,
    task: str,
    budget: int,
    seed: int,
    encoder: str,
    test_rows: int,
    predicted: str,
) -> dict[str, float]:
    from benchmarks.evidence.ours import STUDENTS, Method
    from sklearn_dialpref import DialoguePreferenceClassifier

    from .counts import import_all

    import_all()
    options = argparse.Namespace(data_dir=folder, test_rows=test_rows)
    truth = _cell(options, task, budget, seed)
    cell, parameters = truth["cell"], STUDENTS["frozen"]
    votes = Method(parameters).votes(cell, seed)
    seconds = []
    with tempfile.TemporaryDirectory() as memory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf = DialoguePreferenceClassifier(
            encoder, classes=cell.classes, memory=memory, random_state=seed, **parameters
        )
        for _ in range(2):
            start = time.perf_counter()
            clf.fit(cell.split.train, cell.y_human, votes)
            seconds.append(time.perf_counter() - start)
        labels = clf.predict(truth["rows"])[truth["evaluated"]]
    np.save(predicted, np.searchsorted(cell.classes, labels.astype(str)))
    return {"seconds": seconds[0], "again": seconds[1]}

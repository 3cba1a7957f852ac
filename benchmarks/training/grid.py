"""A grid search of 24 candidates and 5 folds against one encoding and the head fits alone.

The head fits alone are the same search on embeddings that are there, ``encoder="precomputed"``.
Each process has one thread, so that two workers have twice the processors of one. Workers are
started and have imported everything before the clock starts.
"""

import argparse
import shutil
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd

from .measured import Measured, measure
from .report import memory_cells, table
from .texts import dialogues, few, noisy, write_halves

__all__ = ["TITLE", "add_options", "run"]

TITLE = "Grid search"
CANDIDATES: dict[str, list[Any]] = {
    "loss": ["soft_cross_entropy", "cross_entropy"],
    "learning_rate": [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3],
    "class_weight": [None, "balanced"],
}
FOLDS = 5
WARM_UP = 400  # rows


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--small", action="store_true", help="4 candidates")


def run(options: argparse.Namespace) -> str:
    file, other = write_halves(dialogues(options.data_dir), options.rows, options.work)
    other.unlink()
    features = options.work / "features.npy"
    common = {"file": file, "encoder": options.encoder}
    encoded = measure(f"{__name__}:encode", threads=1, features=features, **common)
    grid = {"file": file, "small": options.small}
    heads = measure(f"{__name__}:search", threads=1, features=features, n_jobs=1, **grid)
    apart = encoded.result["seconds"] + heads.result["seconds"]
    rows = [_row("one encoding", encoded, apart), _row("head fits", heads, apart)]
    rows.append({"": "both", "seconds": f"{apart:.1f}", "/ both": "1.00"})
    store = options.work / "store_of_grid"
    for n_jobs in options.jobs:
        shutil.rmtree(store, ignore_errors=True)
        arguments = {**grid, "encoder": options.encoder, "memory": store, "n_jobs": n_jobs}
        # with one worker, a filled one is the head fits once more
        for name in ("empty", "filled")[: 1 if n_jobs == 1 else 2]:
            done = measure(f"{__name__}:search", threads=1, **arguments)
            title = f"`GridSearchCV(n_jobs={n_jobs})`, `memory=` {name}"
            rows.append(_row(title, done, apart))
    features.unlink()
    n_candidates = heads.result["candidates"]
    about = f"{n_candidates} candidates, {FOLDS} folds, {options.rows:,} utterances."
    return f"{table(rows)}\n\n{about} Memory is that of all processes together."


def _row(name: str, done: Measured, apart: float) -> dict[str, str]:
    seconds = done.result["seconds"]
    best = done.result.get("score")
    return {
        "": name,
        "seconds": f"{seconds:.1f}",
        "/ both": f"{seconds / apart:.2f}",
        "best score": "" if best is None else f"{best:.4f}",
        **memory_cells(done),
    }


# -- in a process of its own ------------------------------------------------------------------


def encode(file: str, encoder: str, features: str) -> dict[str, float]:
    """Embed each distinct text once, and save a row for each utterance."""
    from sklearn_dialpref._student.encoders import TextEncoder, load_encoder

    texts = pd.read_parquet(file)["text"]
    codes, distinct = pd.factorize(texts)
    model = TextEncoder(load_encoder(encoder), 0, "layers")
    start = time.perf_counter()
    embedded = model.embed(distinct.tolist())
    seconds = time.perf_counter() - start
    np.save(features, embedded[codes])
    return {"seconds": seconds}


def search(
    file: str,
    small: bool,
    n_jobs: int,
    features: str | None = None,
    encoder: str = "precomputed",
    memory: str | None = None,
) -> dict[str, float]:
    from sklearn.model_selection import GridSearchCV

    from sklearn_dialpref import DialoguePreferenceClassifier, LabelledGroupKFold

    X = pd.read_parquet(file)
    labels = X.pop("label").to_numpy(dtype=object)
    _start_workers(X[:WARM_UP], labels[:WARM_UP], n_jobs)
    if features is not None:
        embedded = pd.DataFrame(np.load(features)).rename(columns=str)
        X = embedded.assign(dialogue_id=X["dialogue_id"].to_numpy(), turn=X["turn"].to_numpy())
    classes = np.unique(labels)
    clf = DialoguePreferenceClassifier(
        encoder, classes=classes, max_epochs=1, memory=memory, random_state=0
    )
    grid = {name: values[:1] if small else values for name, values in CANDIDATES.items()}
    grid["learning_rate"] = CANDIDATES["learning_rate"][: 4 if small else None]
    # the classifier fitted on all rows at the end belongs to neither side
    folds = LabelledGroupKFold(FOLDS)
    searched = GridSearchCV(clf, grid, cv=folds, n_jobs=n_jobs, refit=False)
    # labels of many dialogues, as folds are cut between them
    few_human = few(labels, max(200, len(labels) // 7))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        searched.fit(X, few_human, y_llm=noisy(labels))
        seconds = time.perf_counter() - start
    scores = searched.cv_results_["mean_test_score"]
    return {"seconds": seconds, "candidates": len(scores), "score": float(scores.max())}


def _start_workers(X: pd.DataFrame, labels: np.ndarray, n_jobs: int) -> None:
    """A small search, in which the workers import what they need."""
    from sklearn.model_selection import GridSearchCV

    from sklearn_dialpref import DialoguePreferenceClassifier, LabelledGroupKFold

    numbers = np.random.default_rng(0).standard_normal((len(X), 4))
    features = pd.DataFrame(numbers).rename(columns=str)
    features = features.assign(dialogue_id=X["dialogue_id"].to_numpy())
    clf = DialoguePreferenceClassifier("precomputed", classes=np.unique(labels), random_state=0)
    folds = LabelledGroupKFold(2)
    small = GridSearchCV(clf, {"max_epochs": [1, 2]}, cv=folds, n_jobs=n_jobs, refit=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small.fit(features, labels)

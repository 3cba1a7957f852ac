"""Memory of ``fit``, a second ``fit`` and ``predict`` with ``memory=``, each in a new process.

All texts are distinct and 1,536 numbers wide, as MiniLM's with ``pooling="layers"``. Their
encoder is a stand-in, which looks up digits, so that memory and the store are what is measured.
What is predicted was not fitted.
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
from .texts import few, noisy, stand_in_encoder

__all__ = ["TITLE", "add_options", "run"]

TITLE = "Memory with a store of embeddings"
LENGTH = 10  # utterances of a dialogue
CLASSES = np.array(list("abcde"), dtype=object)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--without-store", action="store_true", help="memory=None")


def run(options: argparse.Namespace) -> str:
    store, saved = options.work / "store_of_numbers", options.work / "saved_of_numbers"
    shutil.rmtree(store, ignore_errors=True)
    encoder = stand_in_encoder(options.work / "stand_in")
    common = {"n_rows": options.rows, "saved": saved}
    fit = {**common, "encoder": encoder, "memory": None if options.without_store else store}
    steps = [("`fit`", "fit", fit), ("`fit` again", "fit", fit), ("`predict`", "predict", common)]
    rows = []
    for name, call, arguments in steps:
        done = measure(f"{__name__}:{call}", threads=options.threads, **arguments)
        rows.append(_row(name, options.rows, done))
    size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) / 1e9
    about = f"{options.threads} threads; the store takes {size:.2f} GB of disk."
    return f"{table(rows)}\n\n{about}"


def _row(name: str, n_rows: int, done: Measured) -> dict[str, str]:
    seconds = done.result["seconds"]
    return {
        "": name,
        "utterances": f"{n_rows:,}",
        "encoded": f"{done.result['texts']:,}",
        "seconds": f"{seconds:.1f}",
        "per second": f"{n_rows / seconds:,.0f}",
        **memory_cells(done),
    }


# -- in a process of its own ------------------------------------------------------------------


def numbered(first: int, n_rows: int) -> pd.DataFrame:
    numbers = np.arange(first, first + n_rows)
    texts = [f"utterance {number:09d}" for number in numbers]
    return pd.DataFrame(
        {"dialogue_id": numbers // LENGTH, "turn": numbers % LENGTH, "text": texts}
    )


def fit(n_rows: int, encoder: str, memory: str | None, saved: str) -> dict[str, float]:
    from sklearn_dialpref import DialoguePreferenceClassifier

    from .counts import count_encoded, import_all

    import_all()
    X = numbered(0, n_rows)
    # the first digits differ between dialogues, so that the labels can be learned
    truth = CLASSES[(np.arange(n_rows) // LENGTH) % len(CLASSES)]
    parameters: dict[str, Any] = {"pooling": "model", "memory": memory, "random_state": 0}
    clf = DialoguePreferenceClassifier(encoder, **parameters)
    counts = count_encoded()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        clf.fit(X, few(truth), noisy(truth))
        seconds = time.perf_counter() - start
    clf.save(saved)
    return {"seconds": seconds, "texts": counts.texts}


def predict(n_rows: int, saved: str) -> dict[str, float]:
    from sklearn_dialpref import DialoguePreferenceClassifier

    from .counts import count_encoded, import_all

    import_all()
    X = numbered(n_rows, n_rows)
    clf = DialoguePreferenceClassifier.load(saved, device="cpu")
    counts = count_encoded()
    start = time.perf_counter()
    clf.predict(X)
    return {"seconds": time.perf_counter() - start, "texts": counts.texts}

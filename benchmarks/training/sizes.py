"""Seconds and memory of ``fit`` and ``predict`` by the number of utterances.

Dialogues of SwDA and SGD with their dialogue acts in 10 classes, all texts distinct; 1,000 human
labels, and on each utterance an LLM label, of which 30 % were drawn anew. What is predicted was
not fitted. Reading the files does not count as time; the memory is that of the whole process.
"""

import argparse
import shutil
import time
import warnings
from typing import Any

import pandas as pd

from .measured import Measured, measure
from .report import memory_cells, table
from .texts import dialogues, few, noisy, static_encoder_folder, write_halves

__all__ = ["TITLE", "add_options", "run"]

TITLE = "By the number of utterances"
MINILM = "all-MiniLM-L6-v2"


def add_options(parser: argparse.ArgumentParser) -> None:
    static = [1_000, 10_000, 100_000, 1_000_000]
    parser.add_argument("--sizes", type=int, nargs="*", default=static, help="static encoder")
    parser.add_argument("--minilm-sizes", type=int, nargs="*", default=[1_000, 10_000])
    parser.add_argument("--store", action="store_true", help="with memory=, empty before fit")


def run(options: argparse.Namespace) -> str:
    data = dialogues(options.data_dir)
    rows = []
    for name, sizes in (("static", options.sizes), ("MiniLM", options.minilm_sizes)):
        smaller: dict[str, tuple[int, Measured]] = {}
        for n_rows in sizes:
            for what, done in _measured(data, name, n_rows, options).items():
                rows.append(_row(name, what, n_rows, done, smaller.get(what)))
                smaller[what] = n_rows, done
    store = "with `memory=`, empty before `fit`" if options.store else "without `memory=`"
    return f"{table(rows)}\n\n{options.threads} threads, {store}."


def _measured(
    data: pd.DataFrame, name: str, n_rows: int, options: argparse.Namespace
) -> dict[str, Measured]:
    work = options.work
    to_fit, to_predict = write_halves(data, n_rows, work)
    encoder = static_encoder_folder(work) if name == "static" else MINILM
    pooling = "model" if name == "static" else "layers"
    arguments: dict[str, Any] = {"encoder": str(encoder), "pooling": pooling}
    if options.store:
        store = work / f"store_{name}_{n_rows}"
        shutil.rmtree(store, ignore_errors=True)
        arguments["memory"] = str(store)
    call, saved = f"{__name__}:fit", work / f"saved_{name}_{n_rows}"
    fitted = measure(call, threads=options.threads, file=to_fit, saved=saved, **arguments)
    call = f"{__name__}:predict"
    predicted = measure(call, threads=options.threads, file=to_predict, saved=saved)
    for file in (to_fit, to_predict):
        file.unlink()
    return {"fit": fitted, "predict": predicted}


def _row(
    name: str, what: str, n_rows: int, done: Measured, smaller: tuple[int, Measured] | None
) -> dict[str, str]:
    seconds = done.result["seconds"]
    row = {
        "encoder": name,
        "": f"`{what}`",
        "utterances": f"{n_rows:,}",
        "encoded": f"{done.result['texts']:,}",
        "seconds": f"{seconds:.1f}",
        "per second": f"{n_rows / seconds:,.0f}",
        "time per utterance against the row above": "",
        **memory_cells(done),
        "bytes per utterance more": "",
    }
    if smaller is not None:
        fewer, before = smaller
        ratio = (seconds / n_rows) / (before.result["seconds"] / fewer)
        more = _peak(done) - _peak(before)
        row["time per utterance against the row above"] = f"{ratio:.2f}"
        row["bytes per utterance more"] = f"{more * 2**20 / (n_rows - fewer):.0f}"
    return row


def _peak(done: Measured) -> float:
    return max(done.memory.resident, done.result["peak"])


# -- in a process of its own ------------------------------------------------------------------


def fit(file: str, saved: str, **parameters: Any) -> dict[str, float]:
    """Fit, and save the classifier."""
    from sklearn_dialpref import DialoguePreferenceClassifier

    from .counts import count_encoded, import_all

    import_all()
    table = pd.read_parquet(file)
    labels = table.pop("label").to_numpy(dtype=object)
    human, llm = few(labels), noisy(labels)
    counts = count_encoded()
    clf = DialoguePreferenceClassifier(random_state=0, **parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        clf.fit(table, human, llm)
        seconds = time.perf_counter() - start
    clf.save(saved)
    return {"seconds": seconds, "texts": counts.texts}


def predict(file: str, saved: str) -> dict[str, float]:
    from sklearn_dialpref import DialoguePreferenceClassifier

    from .counts import count_encoded, import_all

    import_all()
    table = pd.read_parquet(file)
    labels = table.pop("label").to_numpy(dtype=object)
    clf = DialoguePreferenceClassifier.load(saved, device="cpu")
    counts = count_encoded()
    start = time.perf_counter()
    predicted = clf.predict(table)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "texts": counts.texts, "accuracy": (predicted == labels).mean()}

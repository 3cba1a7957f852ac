"""``fit`` on MELD against the bare encoder on the same texts, sorted by length.

Frozen: 400 human labels and GPT-4o's, no embedding stored before. Fine-tuned: one epoch on human
labels, against forward and backward in batches of 32; it encodes more texts, as ``fit`` scales the
head's inputs by up to 1,024 of them first. A frozen encoder that tokenises on the way is
sentence-transformers' ``encode``. Each runs after a warm-up on other texts; imports and loading do
not count.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .measured import measure
from .report import memory_cells, table

__all__ = ["TITLE", "add_options", "run"]

TITLE = "Fit against the bare encoder"
BUDGET = 400
BATCH = {False: 64, True: 32}  # texts, as in fit: frozen, fine-tuned
KINDS = {
    "fit": "`fit`",
    "encode": "the bare encoder, tokenised on the way",
    "forward": "the bare encoder, tokenised before",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2")
    parser.add_argument("--repeats", type=int, default=2, help="in turns; the median counts")
    parser.add_argument("--rows", type=int, help="of MELD's training part; all of them")
    parser.add_argument("--tuned-rows", type=int, default=2000, help="0: no fine-tuning")


def run(options: argparse.Namespace) -> str:
    parts = []
    for tuned, rows in ((False, options.rows), (True, options.tuned_rows)):
        if rows == 0:
            continue
        runs: dict[str, list] = {kind: [] for kind in KINDS}
        for _ in range(options.repeats):
            for kind, done in runs.items():
                arguments = {"folder": options.data_dir, "rows": rows, "tuned": tuned}
                call = f"{__name__}:{kind}"
                arguments["encoder"] = options.encoder
                done.append(measure(call, threads=options.threads, **arguments))
        heading = "Fine-tuned, one epoch" if tuned else "Frozen"
        parts.append(f"### {heading}\n\n{table(_table_rows(runs))}")
    note = f"{options.threads} threads, median of {options.repeats} runs in turns."
    return "\n\n".join([*parts, note])


def _table_rows(runs: dict[str, list]) -> list[dict[str, str]]:
    medians = {
        kind: float(np.median([one.result["seconds"] for one in done]))
        for kind, done in runs.items()
    }
    return [
        {
            "": KINDS[kind],
            "texts": f"{done[0].result['texts']:,}",
            "tokens": f"{done[0].result['tokens']:,}",
            "seconds": f"{medians[kind]:.1f}",
            "texts per second": f"{done[0].result['texts'] / medians[kind]:.0f}",
            "`fit` / this": f"{medians['fit'] / medians[kind]:.2f}",
            **memory_cells(done[0]),
        }
        for kind, done in runs.items()
    ]


# -- in a process of its own ------------------------------------------------------------------


def meld_rows(folder: str, rows: int | None, tuned: bool) -> tuple[pd.DataFrame, Any, Any]:
    from benchmarks.evidence.data import TASKS, load_split, make_cell

    split = load_split(TASKS["meld_sentiment"], Path(folder), "validation")
    budget = "all" if tuned else BUDGET
    human = make_cell(split, budget, 0).y_human[:rows]
    llm = None if tuned else split.votes_train.to_numpy()[:rows, 0]
    return split.train[:rows], human, llm


def _labelled_texts(folder: str, rows: int | None, tuned: bool) -> list[str]:
    X, human, llm = meld_rows(folder, rows, tuned)
    labelled = pd.notna(human) if llm is None else pd.notna(human) | pd.notna(llm)
    texts = X["text"][labelled]
    return texts.tolist() if tuned else texts.unique().tolist()


def fit(folder: str, rows: int | None, tuned: bool, encoder: str) -> dict[str, float]:
    from sklearn_dialpref import DialoguePreferenceClassifier

    from .counts import count_encoded

    X, human, llm = meld_rows(folder, rows, tuned)
    counts = count_encoded()
    layers, epochs = (None, 1) if tuned else (0, "auto")
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as memory:
        warnings.simplefilter("ignore")
        clf = DialoguePreferenceClassifier(
            encoder, trainable_layers=layers, max_epochs=epochs, memory=memory, random_state=0
        )
        clf.fit([f"a warm-up {n}" for n in range(64)], ["a", "b"] * 32)
        before = counts.texts, counts.tokens
        start = time.perf_counter()
        clf.fit(X, human, llm)
        seconds = time.perf_counter() - start
    texts, tokens = counts.texts - before[0], counts.tokens - before[1]
    return {"seconds": seconds, "texts": texts, "tokens": tokens}


def encode(**arguments: Any) -> dict[str, float]:
    return _bare(tokenised_before=False, **arguments)


def forward(**arguments: Any) -> dict[str, float]:
    return _bare(tokenised_before=True, **arguments)


def _bare(
    folder: str, rows: int | None, tuned: bool, encoder: str, tokenised_before: bool
) -> dict[str, float]:
    from sklearn_dialpref._student.encoders import load_encoder

    from .counts import count_encoded

    texts = _labelled_texts(folder, rows, tuned)
    model = load_encoder(encoder)
    model.train(tuned)
    counts = count_encoded()
    _passes(model, [f"a warm-up {n}" for n in range(64)], tuned, tokenised_before)
    counts.texts = counts.tokens = 0
    seconds = _passes(model, texts, tuned, tokenised_before)
    return {"seconds": seconds, "texts": counts.texts, "tokens": counts.tokens}


def _passes(model: Any, texts: list[str], tuned: bool, tokenised_before: bool) -> float:
    """Seconds of all texts once through the model, and back where it is fine-tuned."""
    import torch

    if not tuned and not tokenised_before:
        start = time.perf_counter()
        model.encode(texts, batch_size=BATCH[tuned], show_progress_bar=False)
        return time.perf_counter() - start
    start = time.perf_counter()
    batches = _batches(texts, BATCH[tuned])
    tokens = (model.preprocess(batch) for batch in batches)
    if tokenised_before:
        tokens = iter(list(tokens))
        start = time.perf_counter()
    with torch.inference_mode(not tuned):
        for batch in tokens:
            embedded = model(batch)["sentence_embedding"]
            if tuned:
                embedded.sum().backward()
                model.zero_grad()
    return time.perf_counter() - start


def _batches(texts: list[str], size: int) -> list[list[str]]:
    ordered = sorted(texts, key=len, reverse=True)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]

"""Serving, side by side in one run: milliseconds, utterances per second, start-up, memory.

    python -m benchmarks.serving

A student of MELD's sentiments, trained from 400 human labels and GPT-4o's, as torch and as ONNX
graphs, against an encoder with logistic regression, SetFit where it is installed, and the bare
run of the graph on tokens that are there. Texts of one call are new to the cache.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from sklearn.linear_model import LogisticRegression

from benchmarks.evidence.data import TASKS, add_data_option, load_split, make_cell
from sklearn_dialpref import (
    DialoguePreferenceClassifier,
    DialogueStream,
    MicroBatcher,
    OnnxDialogueClassifier,
    export_onnx,
)
from sklearn_dialpref._student.encoders import resolve_encoder
from sklearn_dialpref._student.frozen import _STORES

TOKENS = (8, 16, 32, 64)
BATCHES = (1, 32, 256)
START = """
import time
start = time.perf_counter()
{code}
model.predict_proba(["Where is my parcel?"])
took = time.perf_counter() - start
status = open("/proc/self/status").read()  # resource's maximum counts the parent's memory too
print(took, int(status.split("VmHWM:")[1].split()[0]) / 1024)
"""
TORCH = (
    "from sklearn_dialpref import DialoguePreferenceClassifier\n"
    "model = DialoguePreferenceClassifier.load({path!r}, device='cpu')"
)
ONNX = (
    "from sklearn_dialpref import OnnxDialogueClassifier\n"
    "model = OnnxDialogueClassifier.load({path!r}, threads=1)"
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--calls", type=int, default=200, help="of one utterance")
    return parser.parse_args()


def static_encoder(folder: Path) -> SentenceTransformer:
    """Each token's embedding on its own by MiniLM: the simplest distillation."""
    model = SentenceTransformer(str(folder), device="cpu")
    tokenizer = model.tokenizer.backend_tokenizer
    words = [tokenizer.id_to_token(at) for at in range(tokenizer.get_vocab_size())]
    table = model.encode([word.removeprefix("##") for word in words], batch_size=256)
    tokenizer.no_truncation()
    embedding = StaticEmbedding(tokenizer, embedding_weights=table)
    return SentenceTransformer(modules=[embedding, Normalize()], device="cpu")


def fitted(split, cell, **options) -> DialoguePreferenceClassifier:
    clf = DialoguePreferenceClassifier(classes=cell.classes, random_state=0, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clf.fit(split.train, cell.y_human, split.votes_train.to_numpy()[:, 0])


def of_length(texts: list[str], served: OnnxDialogueClassifier, n_tokens: int) -> list[str]:
    """Texts cut to as many tokens, the special ones included."""
    found = []
    for text in texts:
        encoding = served._parts.tokenizer.encode(text)
        if len(encoding.ids) >= n_tokens:
            cut = text[: encoding.offsets[n_tokens - 2][1]]
            if len(served._parts.tokenizer.encode(cut).ids) == n_tokens:
                found.append(cut)
    return found


def bare(served: OnnxDialogueClassifier) -> Callable[[list[str]], np.ndarray]:
    """The graph alone, its tokens made by the tokenizer alone."""
    index = np.zeros((1, 1), dtype=np.int64)

    def run(texts: list[str]) -> np.ndarray:
        ids = np.array([served._parts.tokenizer.encode(texts[0]).ids])
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "index": index}
        return served._parts.session.run(None, feed)[0]

    return run


def pushed(served: OnnxDialogueClassifier) -> Callable[[list[str]], list]:
    stream = DialogueStream(served)
    return lambda texts: [stream.push(text) for text in texts]


def setfit(encoder: Path, texts: list[str], labels: list[str]) -> Callable | None:
    try:
        from setfit import SetFitModel
    except ImportError:
        return None
    model = SetFitModel(
        model_body=SentenceTransformer(str(encoder), device="cpu"), model_head=LogisticRegression()
    )
    model.model_head.fit(model.model_body.encode(texts), labels)
    return lambda some: model.predict_proba(some, as_numpy=True)


def timed(run: Callable, calls: list[list[str]]) -> np.ndarray:
    """Milliseconds of each call."""
    took = []
    for call in calls:
        _STORES.clear()
        start = time.perf_counter()
        run(call)
        took.append(1e3 * (time.perf_counter() - start))
    return np.array(took)


def started(code: str) -> tuple[float, float]:
    """Seconds to the first answer of a new process, and its memory; medians of three."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs = []
    for _ in range(3):
        command = [sys.executable, "-c", START.format(code=code)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        runs.append([float(number) for number in done.stdout.split()])
    return tuple(np.median(runs, axis=0))


def live(served: OnnxDialogueClassifier, texts: list[str]) -> str:
    """A hundred dialogues at once, a hundred turns each, as coroutines over one model."""

    async def talk(batcher: MicroBatcher, own: list[str]) -> list[float]:
        stream = DialogueStream(batcher)
        return [(await stream.apush(text)).latency_ms for text in own]

    async def all_of_them(n_turns: int) -> list[list[float]]:
        with MicroBatcher(served) as batcher:
            talks = [talk(batcher, texts[at::100][:n_turns]) for at in range(100)]
            return await asyncio.gather(*talks)

    asyncio.run(all_of_them(10))
    before, start = resident_megabytes(), time.perf_counter()
    took = np.concatenate(asyncio.run(all_of_them(100)))
    seconds = time.perf_counter() - start
    p50, p99 = np.percentile(took, [50, 99])
    return (
        f"100 dialogues at once, {len(took)} utterances, int8: p50 {p50:.1f} ms, p99 {p99:.1f} "
        f"ms, {len(took) / seconds:.0f} per second, memory {resident_megabytes() - before:+.1f} MB"
    )


def resident_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def main() -> None:
    options = parse()
    split = load_split(TASKS["meld_sentiment"], options.data_dir, "test")
    cell = make_cell(split, 400, 0)
    encoder = resolve_encoder("all-MiniLM-L6-v2")
    truth = split.y_evaluation[cell.evaluated].astype(str)
    rows = split.evaluation[cell.evaluated]
    work = Path(tempfile.mkdtemp())

    clf = fitted(split, cell)
    clf.save(work / "torch")
    static = fitted(split, cell, encoder=static_encoder(encoder), pooling="model")
    for name, one, precision in (
        ("float32", clf, "float32"),
        ("int8", clf, "int8"),
        ("static", static, "float32"),
    ):
        report = export_onnx(
            one, work / name, X_check=rows, y_check=truth, precision=precision, max_loss=1
        )
        print(f"{name}\n{report}\n")
    labelled = [text for text, y in zip(split.train["text"], cell.y_human, strict=True) if y]
    labels = [y for y in cell.y_human if y]
    encode = SentenceTransformer(str(encoder), device="cpu")
    regression = LogisticRegression(max_iter=1000).fit(encode.encode(labelled), labels)
    their_setfit = setfit(encoder, labelled, labels)

    texts = split.train["text"].tolist()
    for threads in options.threads:
        torch.set_num_threads(threads)
        served = {
            name: OnnxDialogueClassifier.load(work / name, threads=threads)
            for name in ("float32", "int8", "static")
        }
        contenders: dict[str, Callable] = {
            "student, torch": clf.predict_proba,
            "encode + logistic regression": lambda some: regression.predict_proba(
                encode.encode(some)
            ),
            **({"SetFit predict": their_setfit} if their_setfit else {}),
            "student, ONNX float32": served["float32"].predict_proba,
            "bare float32 graph": bare(served["float32"]),
            "student, ONNX int8": served["int8"].predict_proba,
            "bare int8 graph": bare(served["int8"]),
            "stream, ONNX int8": pushed(served["int8"]),
            "static student, ONNX": served["static"].predict_proba,
        }
        print(f"# {threads} threads\n")
        print(one_by_one(contenders, texts, served["int8"], options.calls).to_markdown(), "\n")
        frame = pd.DataFrame(
            {"text": ["I did not see that coming, really."], "dialogue_id": ["a"]}
        )
        took = [timed(served["int8"].predict_proba, [frame] * options.calls)]
        print(f"a DataFrame of one row, int8: {np.median(took):.2f} ms\n")
        print(in_batches(contenders, texts).to_markdown(), "\n")
        print(live(served["int8"], texts), "\n")
    starts = {
        "student, torch": ("torch", TORCH),
        "student, ONNX float32": ("float32", ONNX),
        "student, ONNX int8": ("int8", ONNX),
        "static student, ONNX": ("static", ONNX),
    }
    table = {}
    for name, (folder, code) in starts.items():
        seconds, memory = started(code.format(path=str(work / folder)))
        size = megabytes(work / folder)
        table[name] = {
            "seconds to first answer": f"{seconds:.2f}",
            "MB of memory": f"{memory:.0f}",
            "MB of folder": f"{size:.0f}",
        }
    print(pd.DataFrame(table).T.to_markdown())


def in_turns(contenders: dict, calls: list[list[str]]) -> dict[str, np.ndarray]:
    """Milliseconds of each call by each contender; they take turns, after a call to warm up."""
    took: dict[str, list] = {name: [] for name in contenders}
    for at in range(0, len(calls), 20):
        for name, run in contenders.items():
            run(calls[at])
            took[name].append(timed(run, calls[at : at + 20]))
    return {name: np.concatenate(runs) for name, runs in took.items()}


def calls_of_length(texts: list[str], served, n_tokens: int, n_calls: int) -> list[list[str]]:
    """One text a call, of as many tokens."""
    some = of_length(texts, served, n_tokens)
    return [[some[at % len(some)]] for at in range(n_calls)]


def one_by_one(contenders: dict, texts: list[str], served, n_calls: int) -> pd.DataFrame:
    """Percentiles of one utterance, by its tokens."""
    table = {}
    for n_tokens in TOKENS:
        calls = calls_of_length(texts, served, n_tokens, n_calls)
        for name, took in in_turns(contenders, calls).items():
            p50, p95, p99 = np.percentile(took, [50, 95, 99])
            table.setdefault(name, {})[f"{n_tokens} tokens, p50 / p95 / p99 ms"] = (
                f"{p50:.2f} / {p95:.2f} / {p99:.2f}"
            )
    return pd.DataFrame(table).T


def per_second(run: Callable, texts: list[str], size: int) -> float:
    """Utterances per second in batches, of mixed length as they come."""
    calls = [texts[at : at + size] for at in range(0, min(1024, 256 * size), size)]
    run(texts[1024 : 1024 + size])
    seconds = timed(run, calls).sum() / 1e3
    return sum(map(len, calls)) / seconds


def in_batches(contenders: dict, texts: list[str]) -> pd.DataFrame:
    table = {}
    for size in BATCHES:
        for name, run in contenders.items():
            if not name.startswith(("bare", "stream")):
                table.setdefault(name, {})[f"batches of {size}, per second"] = (
                    f"{per_second(run, texts, size):.0f}"
                )
    return pd.DataFrame(table).T


if __name__ == "__main__":
    main()

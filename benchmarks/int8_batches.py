"""Two exported int8 folders in batches: utterances per second, and whether a batch counts.

    python -m benchmarks.int8_batches OLD NEW --texts FILE.parquet

The folders take turns call by call, so that a busy machine slows both. FILE has a column ``text``.
Prints utterances per second of processor time and of wall time, as medians, and by how much the
probabilities of an utterance differ between a batch and the utterance alone.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from sklearn_dialpref import OnnxDialogueClassifier

CALLS = {1: 80, 32: 10, 256: 4}
N_TEXTS = 256


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--tokens", type=int, default=16)
    return parser.parse_args()


def largest_difference(model: OnnxDialogueClassifier, texts: list[str], size: int) -> float:
    alone = np.concatenate([model.predict_proba([text]) for text in texts])
    calls = [texts[at : at + size] for at in range(0, len(texts), size)]
    return float(np.abs(np.concatenate([model.predict_proba(one) for one in calls]) - alone).max())


def speeds(models: dict[str, OnnxDialogueClassifier], texts: list[str], size: int) -> dict:
    """Utterances per second of processor and of wall time, by the model's name."""
    took: dict[str, list] = {name: [] for name in models}
    for call in range(CALLS[size]):
        start = call * size % N_TEXTS
        batch = texts[start : start + size]
        for name, model in models.items():
            if call == 0:
                model.predict_proba(batch)
            processor, wall = time.process_time(), time.perf_counter()
            model.predict_proba(batch)
            seconds = time.process_time() - processor, time.perf_counter() - wall
            took[name].append(len(batch) / np.array(seconds))
    return {name: np.median(rates, axis=0) for name, rates in took.items()}


def main() -> None:
    options = parse()
    texts = pd.read_parquet(options.texts)["text"].astype(str).drop_duplicates()
    texts = texts[texts.str.strip() != ""].sample(frac=1, random_state=0).tolist()
    table = []
    for threads in options.threads:
        models = {
            str(folder): OnnxDialogueClassifier.load(folder, threads=threads)
            for folder in options.folders
        }
        tokenizer = next(iter(models.values()))._parts.tokenizer
        equal = [text for text in texts if len(tokenizer.encode(text).ids) == options.tokens]
        for kind, some in ((f"{options.tokens} tokens", equal), ("as they come", texts)):
            for size in CALLS:
                rates = speeds(models, some[:N_TEXTS], size)
                table += [
                    {
                        "threads": threads,
                        "texts": kind,
                        "batch": size,
                        "folder": name,
                        "per second of processor": round(rate[0]),
                        "per second": round(rate[1]),
                        "largest difference": largest_difference(model, some[:N_TEXTS], size),
                    }
                    for (name, model), rate in zip(models.items(), rates.values(), strict=True)
                ]
    print(pd.DataFrame(table).to_markdown(index=False))


if __name__ == "__main__":
    main()

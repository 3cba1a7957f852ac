"""MELD sentiment from 100 human labels and the labels of GPT-4o: what each part buys.

The train split with 7,024 labels of GPT-4o (one prompt, so hard votes), about 100 human-labelled
utterances (whole dialogues, drawn by seed); scored on the untouched test split.  Every fit is
appended to a CSV file as it ends, and is not repeated when the command is run again.

    python benchmarks/meld_sentiment.py --data ../shared/data/meld.parquet --student frozen
    python benchmarks/meld_sentiment.py --data ../shared/data/meld.parquet --student fine-tuned

Settings are the estimator's defaults, but for the context of the frozen student (the previous
utterance); they were chosen on MELD's dev split, see the user guide.
"""

import argparse
import csv
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score

from sklearn_dialpref import DialoguePreferenceClassifier, expected_calibration_error

CLASSES = ["negative", "neutral", "positive"]
LLM = "llm_gpt4o_melt_sentiment_derived"
ROWS = {
    "human only": {"llm": False},
    "LLM only (soft cross-entropy)": {
        "human": False,
        "loss": "soft_cross_entropy",
        "schedule": "joint",
    },
    "LLM then human": {"loss": "soft_cross_entropy", "schedule": "pretrain_finetune"},
    "pairs then human": {"schedule": "pretrain_finetune"},
    "distillation, then cross-entropy + human": {
        "loss": "soft_cross_entropy",
        "schedule": "distill_then_joint",
    },
    "full: distillation, then pairs + human": {"schedule": "distill_then_joint"},
}
STUDENTS = {"frozen": {"trainable_layers": 0, "context_turns": 1}, "fine-tuned": {}}
FIELDS = ["student", "row", "seed", "accuracy", "macro_f1", "brier", "ece", "seconds"]


def draw_dialogues(train: pd.DataFrame, seed: int, n_labels: int) -> np.ndarray:
    """Rows of whole dialogues, drawn until at least ``n_labels`` utterances are in."""
    rng = np.random.default_rng(seed)
    dialogues = rng.permutation(train["dialogue_id"].unique())
    sizes = train.groupby("dialogue_id").size()[dialogues].cumsum()
    chosen = dialogues[: int(np.searchsorted(sizes.to_numpy(), n_labels)) + 1]
    return train["dialogue_id"].isin(chosen).to_numpy()


def evaluate(data: pd.DataFrame, student: str, row: str, seed: int, split: str) -> dict:
    train = data[data["split"] == "train"].reset_index(drop=True)
    test = data[data["split"] == split].reset_index(drop=True)
    options = dict(ROWS[row])
    labelled = draw_dialogues(train, seed, 100) & options.pop("human", True)
    y_human = train["sentiment"].astype(object).where(labelled, None)
    y_llm = train[LLM] if options.pop("llm", True) else None
    clf = DialoguePreferenceClassifier(
        classes=CLASSES, random_state=seed, **STUDENTS[student], **options
    )
    start = time.perf_counter()
    clf.fit(train, y_human, y_llm)
    seconds = time.perf_counter() - start
    proba = clf.predict_proba(test)
    predicted = clf.classes_[proba.argmax(axis=1)]
    truth = test["sentiment"].to_numpy()
    one_hot = truth[:, None] == clf.classes_
    return {
        "student": student,
        "row": row,
        "seed": seed,
        "accuracy": accuracy_score(truth, predicted),
        "macro_f1": f1_score(truth, predicted, average="macro"),
        "brier": ((proba - one_hot) ** 2).sum(axis=1).mean(),
        "ece": expected_calibration_error(truth, proba, classes=clf.classes_),
        "seconds": seconds,
    }


def table(results: pd.DataFrame) -> str:
    """Mean ± standard deviation over seeds, as Markdown."""
    lines = [
        "| student | row | seeds | accuracy | macro-F1 | Brier | ECE | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (student, row), part in results.groupby(["student", "row"], sort=False):
        cells = [f"{part[f].mean():.3f} ± {part[f].std():.3f}" for f in FIELDS[3:7]]
        seconds = f"{part['seconds'].mean():.0f}"
        lines.append(f"| {' | '.join([student, row, str(len(part)), *cells, seconds])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="meld.parquet")
    parser.add_argument("--student", choices=list(STUDENTS), default="frozen")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--split", choices=["dev", "test"], default="test")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()

    options.out.mkdir(exist_ok=True)
    path = options.out / f"meld_sentiment_{options.split}.csv"
    done = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=FIELDS)
    known = set(zip(done["student"], done["row"], done["seed"], strict=True))
    data = pd.read_parquet(options.data)
    for seed in options.seeds:
        for row in options.rows:
            if (options.student, row, seed) in known:
                continue
            result = evaluate(data, options.student, row, seed, options.split)
            new = not path.exists()
            with open(path, "a", newline="") as file:
                writer = csv.DictWriter(file, FIELDS)
                if new:
                    writer.writeheader()
                writer.writerow(result)
    print(table(pd.read_csv(path)))
    print(f"\n{platform.processor() or platform.machine()}, {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()

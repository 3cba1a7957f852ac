"""Accuracy with a teacher that is biased towards a class, by training method.

Uses synthetic dialogues with precomputed features: half are for training, with about 100 human
labels and five votes of a simulated teacher, whose bias towards one of three classes is varied.
Accuracy is measured on the other half.

    python benchmarks/class_bias.py
"""

import argparse
import platform
import time

import numpy as np

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref.datasets import make_dialogues

ROWS = {
    "human labels only": None,
    "default": {},
    "default and pairs": {"pair_weight": 0.3},
    "pairs, then human labels": {"loss": "noise_reduced"},
    "joint": {"schedule": "joint"},
    "distillation, then joint": {"schedule": "distill_then_joint"},
}


def accuracies(bias: float, seed: int) -> list[float]:
    data = make_dialogues(
        120, n_features=6, class_bias=[0, bias, 0], human_fraction=0.2, random_state=seed
    )
    dialogue = data.X["dialogue_id"].to_numpy()
    train = np.isin(dialogue, np.unique(dialogue)[::2])
    accuracies = []
    for options in ROWS.values():
        clf = DialoguePreferenceClassifier("precomputed", random_state=seed, **(options or {}))
        y_llm = None if options is None else data.y_llm[train]
        clf.fit(data.X[train], data.y_human[train], y_llm)
        accuracies.append(clf.score(data.X[~train], data.y_true[~train]))
    return accuracies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    print(f"| bias in logits | {' | '.join(ROWS)} |\n|---|{'---|' * len(ROWS)}")
    for bias in (0.0, 0.5, 1.0, 1.5, 2.5):
        runs = np.array([accuracies(bias, seed) for seed in range(options.seeds)])
        cells = [
            f"{m:.3f} ± {s:.3f}"
            for m, s in zip(runs.mean(axis=0), runs.std(axis=0, ddof=1), strict=True)
        ]
        print(f"| {bias} | {' | '.join(cells)} |", flush=True)
    print(f"\n{options.seeds} seeds, {platform.machine()}, {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()

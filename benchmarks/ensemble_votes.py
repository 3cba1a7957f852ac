"""Ways to combine an ensemble's votes: their mean, learned weights, and the best member.

Uses real votes of language models on MELD's test split (emotion; up to 17 combinations of model
and context window), DeliData (type, target), Persuasion for Good (coarse and fine strategies) and
talk moves (19 combinations of prompt and model), and the code with which ``LLMAnnotator`` combines
the answers of its prompts. For each seed, human labels of whole dialogues are drawn for learning,
and the rows of all other dialogues are scored. "Weights alone" omits the temperature and bias that
the annotator also learns, and its test of whether they help. "Best member" is the member with the
highest accuracy on the same human labels.

    python benchmarks/ensemble_votes.py --data ../shared/data
"""

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from sklearn_dialpref.annotation.ensemble import (
    FLOOR,
    Combination,
    _fit,
    combine,
    fit_combination,
)

SETS = {
    "MELD emotion": ("meld", "emotion", lambda c: "sentiment" not in c),
    "DeliData type": ("deli", "type", lambda c: c.endswith("_type")),
    "DeliData target": ("deli", "target", lambda c: c.endswith("_target")),
    "P4G coarse": ("p4g", "persuader_gold_coarse", lambda c: c.endswith("_coarse")),
    "P4G strategy": ("p4g", "persuader_gold", lambda c: c.endswith("_mapped")),
    "talk moves": ("talkmoves", "talkmove", lambda c: c.startswith("llm_full_")),
}


def load(folder: Path, name: str) -> tuple:
    """Return votes as scores (n, A, K), label codes, dialogue codes, and the members' names."""
    file, column, wanted = SETS[name]
    data = pd.read_parquet(folder / f"{file}.parquet")
    if file == "meld":
        data = data[data["split"] == "test"]
    members = [c for c in data.columns if c.startswith("llm_") and wanted(c)]
    data = data[data[column].notna() & data[members].notna().any(axis=1)]
    members = [c for c in members if data[c].notna().any()]
    classes = np.unique(data[column].to_numpy(dtype=str))
    votes = data[members].to_numpy(dtype=object)
    scores = (votes[:, :, None] == classes).astype(float)
    scores[~scores.any(axis=2)] = np.nan  # no vote, or one outside the classes
    y = np.searchsorted(classes, data[column].to_numpy(dtype=str))
    groups = pd.factorize(data["dialogue_id"])[0]
    answered = ~np.isnan(scores[:, :, 0]).all(axis=1)
    return scores[answered], y[answered], groups[answered], members


def measures(proba: np.ndarray, y: np.ndarray) -> list[float]:
    hot = np.eye(proba.shape[1])[y]
    smooth = (proba + FLOOR) / (proba + FLOOR).sum(axis=1, keepdims=True)
    return [
        float((proba.argmax(axis=1) == y).mean()),
        f1_score(y, proba.argmax(axis=1), average="macro"),
        float(((proba - hot) ** 2).sum(axis=1).mean()),
        float(-np.log(smooth[np.arange(len(y)), y]).mean()),
    ]


def one_seed(scores, y, groups, seed: int, n_labels: int) -> dict[str, list[float]]:
    order = np.random.default_rng(seed).permutation(groups.max() + 1)
    sizes = np.bincount(groups)[order].cumsum()
    chosen = order[: int(np.searchsorted(sizes, n_labels)) + 1]
    known = np.isin(groups, chosen)
    n_members, n_classes = scores.shape[1:]
    plain = Combination.plain(n_members, n_classes)
    learned = fit_combination(scores[known], y[known], groups[known], seed=seed)
    weights = _fit(scores[known], y[known], ("weights",))
    filled = np.nan_to_num(scores[known])
    best = int((filled.argmax(axis=2) == y[known, None]).mean(axis=0).argmax())
    single = np.where(
        np.isnan(scores[~known, best]), combine(scores[~known], plain), scores[~known, best]
    )
    return {
        "mean vote": measures(combine(scores[~known], plain), y[~known]),
        "weights alone": measures(combine(scores[~known], weights), y[~known]),
        "as LLMAnnotator learns it": measures(combine(scores[~known], learned), y[~known]),
        "best member": measures(single, y[~known]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the parquet files")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 400])
    options = parser.parse_args()
    print("| data | members | labels | combination | accuracy | macro-F1 | Brier | log-loss |")
    print("|---|---|---|---|---|---|---|---|")
    for name in SETS:
        scores, y, groups, members = load(options.data, name)
        for n_labels in options.labels:
            runs = [one_seed(scores, y, groups, s, n_labels) for s in range(options.seeds)]
            for row in runs[0]:
                table = np.array([run[row] for run in runs])
                cells = [
                    f"{m:.3f} ± {s:.3f}"
                    for m, s in zip(table.mean(axis=0), table.std(axis=0, ddof=1), strict=True)
                ]
                head = f"| {name} | {len(members)} | {n_labels} | {row} |"
                print(f"{head} {' | '.join(cells)} |", flush=True)
    print(f"\n{options.seeds} seeds, {platform.machine()}, {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()

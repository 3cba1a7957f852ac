"""Ways to combine an ensemble's votes, by how many vote.

Uses real votes of language models on MELD's test split (emotion; 19 combinations of model and
context window), DeliData (type, target), Persuasion for Good (coarse and fine strategies) and talk
moves (19 combinations of prompt and model on all utterances of teachers, 43 on those that have
them), and the code with which ``LLMAnnotator`` combines the answers of its prompts. For each seed,
human labels of whole dialogues (at least five, which learning needs) are drawn for learning, and
the rows of all other dialogues are scored.

- "weights" and "bias" (with a temperature) are learned alone, without the annotator's test of
  whether they help.
- "Dawid-Skene" learns a confusion matrix of each member from the votes on all rows, without human
  labels.
- "best member" is the one that is right most often on the human labels.

    python -m benchmarks.ensemble_votes

Writes benchmarks/results/ensemble_votes.md.
"""

import argparse
import platform
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax
from sklearn.metrics import f1_score

from benchmarks.evidence.data import add_data_option, read_table
from sklearn_dialpref.annotation.ensemble import (
    FLOOR,
    Combination,
    _fit,
    combine,
    fit_bias,
    fit_combination,
)

RESULTS = Path(__file__).parent / "results" / "ensemble_votes.md"
# file, column of human labels, columns of votes
SETS = {
    "MELD emotion": ("meld", "emotion", lambda c: "sentiment" not in c),
    "DeliData type": ("deli", "type", lambda c: c.endswith("_type")),
    "DeliData target": ("deli", "target", lambda c: c.endswith("_target")),
    "P4G coarse": ("p4g", "persuader_gold_coarse", lambda c: c.endswith("_coarse")),
    "P4G strategy": ("p4g", "persuader_gold", lambda c: c.endswith("_mapped")),
    "talk moves, 19": ("talkmoves", "talkmove", lambda c: c.startswith("llm_full_")),
    "talk moves, 43": ("talkmoves", "talkmove", lambda c: True),
}
SIZES = (1, 2, 4, 8, 16, 32)
GRID = (1, 2, 4, 8)  # prompts of a model, and models
MEASURES = ("accuracy", "macro-F1", "Brier", "log-loss")
EM_ROUNDS = 50
FEWEST_DIALOGUES = 5


@dataclass(frozen=True, eq=False)
class Votes:
    """Votes as scores (n, A, K), labels, dialogues, rows of the file, and names of members."""

    scores: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    rows: np.ndarray
    members: list[str]

    @property
    def models(self) -> np.ndarray:
        """Model of each member, as a number in order of appearance."""
        return pd.factorize(np.array([model_of(name) for name in self.members]))[0]

    def of(self, members: np.ndarray) -> "Votes":
        """The votes of some members alone, on all rows."""
        names = [self.members[index] for index in members]
        return Votes(self.scores[:, members], self.y, self.groups, self.rows, names)


def model_of(member: str) -> str:
    """``llm_full_zs_gpt5``: gpt5; ``llm_llama31_1shot_w0``: llama31; ``llm_phi4_coarse``: phi4."""
    parts = member.removeprefix("llm_").split("_")
    return parts[-1] if parts[0] in ("full", "strat") else parts[0]


def load(folder: Path, name: str) -> Votes:
    """The rows of a set with a human label and at least one vote for a class."""
    file, column, wanted = SETS[name]
    data = read_table(file, folder)
    if file == "meld":
        data = data[data["split"] == "test"]
    members = [c for c in data.columns if c.startswith("llm_") and wanted(c)]
    data = data[data[column].notna() & data[members].notna().any(axis=1)]
    if strategies := [c for c in members if c.startswith("llm_strat_")]:
        data = data[data[strategies].notna().any(axis=1)]
    members = [c for c in members if data[c].notna().any()]
    classes = np.unique(data[column].to_numpy(dtype=str))
    votes = data[members].to_numpy(dtype=object)
    scores = (votes[:, :, None] == classes).astype(float)
    scores[~scores.any(axis=2)] = np.nan  # no vote, or one outside the classes
    y = np.searchsorted(classes, data[column].to_numpy(dtype=str))
    groups = pd.factorize(data["dialogue_id"])[0]
    answered = ~np.isnan(scores[:, :, 0]).all(axis=1)
    rows = data.index.to_numpy()[answered]
    return Votes(scores[answered], y[answered], groups[answered], rows, members)


def measures(proba: np.ndarray, y: np.ndarray) -> list[float]:
    hot = np.eye(proba.shape[1])[y]
    smooth = (proba + FLOOR) / (proba + FLOOR).sum(axis=1, keepdims=True)
    return [
        float((proba.argmax(axis=1) == y).mean()),
        f1_score(y, proba.argmax(axis=1), average="macro"),
        float(((proba - hot) ** 2).sum(axis=1).mean()),
        float(-np.log(smooth[np.arange(len(y)), y]).mean()),
    ]


def draw(groups: np.ndarray, seed: int, n_labels: int) -> np.ndarray:
    """Rows of whole dialogues, at least five, until there are so many of them."""
    order = np.random.default_rng(seed).permutation(groups.max() + 1)
    sizes = np.bincount(groups)[order].cumsum()
    enough = max(int(np.searchsorted(sizes, n_labels)) + 1, FEWEST_DIALOGUES)
    return np.isin(groups, order[:enough])


def dawid_skene(scores: np.ndarray) -> np.ndarray:
    """Posterior of each row's class; expectation-maximisation from the mean vote."""
    votes = np.nan_to_num(scores)
    n_members, n_classes = scores.shape[1:]
    posterior = combine(scores, Combination.plain(n_members, n_classes))
    for _ in range(EM_ROUNDS):
        prior = np.log(posterior.mean(axis=0) + np.finfo(float).tiny)
        counts = np.einsum("nk,naj->akj", posterior, votes, optimize=True) + FLOOR
        confusion = np.log(counts / counts.sum(axis=2, keepdims=True))
        joint = prior + np.einsum("naj,akj->nk", votes, confusion, optimize=True)
        posterior = np.exp(log_softmax(joint, axis=1))
    return posterior


def best_member(votes: Votes, known: np.ndarray) -> np.ndarray:
    """Its answers, and the mean vote where it gave none."""
    filled = np.nan_to_num(votes.scores[known])
    right = (filled.argmax(axis=2) == votes.y[known, None]).mean(axis=0)
    answers = votes.scores[:, int(right.argmax())]
    mean = combine(votes.scores, Combination.plain(*votes.scores.shape[1:]))
    return np.where(np.isnan(answers), mean, answers)


def one_seed(votes: Votes, skene: np.ndarray, seed: int, n_labels: int) -> dict[str, list[float]]:
    """The measures of each way to combine, on the rows that are not drawn."""
    scores, y = votes.scores, votes.y
    known = draw(votes.groups, seed, n_labels)
    labelled = scores[known], y[known]
    ways = {
        "mean vote": Combination.plain(*scores.shape[1:]),
        "weights": _fit(*labelled, ("weights",)),
        "bias": fit_bias(*labelled),
        "as LLMAnnotator learns it": fit_combination(*labelled, votes.groups[known], seed=seed),
    }
    proba = {name: combine(scores[~known], how) for name, how in ways.items()}
    proba["Dawid-Skene"] = skene[~known]
    proba["best member"] = best_member(votes, known)[~known]
    return {name: measures(p, y[~known]) for name, p in proba.items()}


def cells(runs: list[list[float]]) -> str:
    """Mean and standard deviation of each measure."""
    table = np.array(runs)
    spread = table.std(axis=0, ddof=1)
    return " | ".join(
        f"{m:.3f} ± {s:.3f}" for m, s in zip(table.mean(axis=0), spread, strict=True)
    )


def table_of_ways(name: str, votes: Votes, budgets: list[int], seeds: int) -> list[str]:
    """All members, combined in each way, for each number of human labels that differs."""
    skene = dawid_skene(votes.scores)
    lines, last = [], None
    for n_labels in budgets:
        labels = np.mean([draw(votes.groups, seed, n_labels).sum() for seed in range(seeds)])
        if labels == last:
            continue
        last = labels
        runs = [one_seed(votes, skene, seed, n_labels) for seed in range(seeds)]
        head = f"| {name} | {len(votes.members)} | {labels:.0f}"
        lines += [f"{head} | {way} | {cells([run[way] for run in runs])} |" for way in runs[0]]
    return lines


def table_of_sizes(name: str, votes: Votes, n_labels: int, seeds: int) -> list[str]:
    """Random members, as many as each size says; other ones for each seed."""
    lines = []
    for size in [size for size in SIZES if size < len(votes.members)]:
        runs = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            some = votes.of(rng.choice(len(votes.members), size, replace=False))
            some = answered(some)
            runs.append(one_seed(some, dawid_skene(some.scores), seed, n_labels))
        lines += [
            f"| {name} | {size} | {way} | {cells([run[way] for run in runs])} |" for way in runs[0]
        ]
    return lines


def answered(votes: Votes) -> Votes:
    """Without the rows that no member gave a vote for."""
    rows = ~np.isnan(votes.scores[:, :, 0]).all(axis=1)
    groups = pd.factorize(votes.groups[rows])[0]
    return Votes(votes.scores[rows], votes.y[rows], groups, votes.rows[rows], votes.members)


def table_of_prompts_and_models(name: str, votes: Votes, draws: int) -> list[str]:
    """Mean vote of so many random prompts of each of so many random models."""
    lines = []
    for n_models in [n for n in GRID if n <= votes.models.max() + 1]:
        for n_prompts in GRID:
            members = [drawn_members(votes, n_models, n_prompts, seed) for seed in range(draws)]
            chosen = [answered(votes.of(m)) for m in members if m is not None]
            if not chosen:
                continue
            plain = Combination.plain(n_models * n_prompts, votes.scores.shape[2])
            runs = [measures(combine(some.scores, plain), some.y) for some in chosen]
            head = f"| {name} | {n_models} | {n_prompts} | {n_models * n_prompts}"
            lines.append(f"{head} | {cells(runs)} |")
    return lines


def drawn_members(votes: Votes, n_models: int, n_prompts: int, seed: int) -> np.ndarray | None:
    """Positions of random members; None if too few models have so many prompts."""
    rng = np.random.default_rng(seed)
    counts = np.bincount(votes.models)
    able = np.flatnonzero(counts >= n_prompts)
    if len(able) < n_models:
        return None
    models = rng.choice(able, n_models, replace=False)
    of_models = [np.flatnonzero(votes.models == model) for model in models]
    return np.concatenate([rng.choice(own, n_prompts, replace=False) for own in of_models])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_option(parser, "--data")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--subsets", type=int, default=5, help="random members of each size")
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 400])
    options = parser.parse_args()
    sets = {name: load(options.data, name) for name in SETS}
    large = {name: votes for name, votes in sets.items() if len(votes.members) > 8}
    labels, seeds, subsets = options.labels, options.seeds, options.subsets
    lines = ["# Ways to combine votes\n"]

    def add(title: str, columns: str, tables: list[list[str]]) -> None:
        rule = "|---" * (columns.count("|") + 1 + len(MEASURES)) + "|"
        head = f"| {columns} | {' | '.join(MEASURES)} |"
        lines.extend([f"## {title}\n", head, rule, *chain.from_iterable(tables), ""])
        RESULTS.write_text("\n".join(lines), encoding="utf-8")

    ways = [table_of_ways(name, votes, labels, seeds) for name, votes in sets.items()]
    add("All members", "data | members | labels | combination", ways)
    sizes = [table_of_sizes(name, votes, labels[0], subsets) for name, votes in large.items()]
    add("By number of members", "data | members | combination", sizes)
    grid = [table_of_prompts_and_models(name, votes, seeds) for name, votes in large.items()]
    columns = "data | models | prompts of each | members"
    add("Mean vote by number of models and prompts", columns, grid)
    lines.append(
        f"Means and standard deviations. First table: {seeds} draws of whole dialogues, at least "
        f"{FEWEST_DIALOGUES}, with together {' or '.join(map(str, labels))} human labels or more "
        "(their mean number is shown); the rows of all other dialogues are scored. Second: "
        f"{subsets} draws of members and of labels. Third: {seeds} draws of members; all rows are "
        f"scored. `python -m benchmarks.ensemble_votes --data DIR`, {platform.machine()}, "
        f"{time.strftime('%Y-%m-%d')}\n"
    )
    RESULTS.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()

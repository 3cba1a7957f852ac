"""Finding wrong labels: ``suspect_labels`` against cleanlab on the same out-of-fold probabilities.

    python -m benchmarks.suspects [--data FOLDER] [--part train] [--keep FOLDER]

Needs cleanlab 2.9. Run it from the repository root; it writes benchmarks/results/suspects.md.

- ``flipped``: 10 % of the human labels are flipped, with 400 of them and with all. Classes that
  the LLM confuses more often are flipped more often, to what the LLM confuses them with.
- ``LLM``: the LLM's real errors. 400 human labels of whole dialogues are shown; others judge.

``--part train`` takes the training dialogues, on which the method was chosen; "test", the default,
is reported. ``--keep`` keeps the out-of-fold probabilities of each case, for another run.
"""

import argparse
import platform
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.metrics import average_precision_score

from benchmarks.evidence.data import TASKS, add_data_option, load_split, within_budget
from benchmarks.evidence.ours import STUDENTS
from sklearn_dialpref import DialoguePreferenceClassifier, votes_to_scores
from sklearn_dialpref.inspection.out_of_fold import out_of_fold_proba
from sklearn_dialpref.inspection.suspects import suspect_labels

MOST_ROWS = 2000  # of whole dialogues, those with human labels first
LONG, PIECE = 150, 50  # longer dialogues are cut into pieces, in utterances
FLIPPED = 0.1
BUDGET = 400
RESULTS = Path(__file__).parent / "results" / "suspects.md"
OURS, NO_LLM = "suspect_labels", "the same without y_llm"
CLEANLAB = ("self_confidence", "normalized_margin", "find_label_issues")
SEEDS = {"flipped, 400": 2, "flipped, all": 1, "LLM, 400": 2}
N_BINS = 10


# -- data -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """Labels as they are shown, and which of them are judged and wrong.

    Attributes
    ----------
    X : DataFrame
    classes : ndarray
    votes : ndarray of object
    shown : ndarray of object
        Human labels, partly flipped.
    source : {"human", "llm"}
        Whose labels are judged.
    label : ndarray of object
        The judged labels, None elsewhere.
    wrong : ndarray of bool
    """

    X: pd.DataFrame
    classes: np.ndarray
    votes: np.ndarray
    shown: np.ndarray
    source: str
    label: np.ndarray
    wrong: np.ndarray


def make_case(task: str, condition: str, seed: int, options: argparse.Namespace) -> Case:
    X, y, votes, classes = drawn(task, seed, options)
    has_label = np.array([label is not None for label in y])
    scores = votes_to_scores(votes, classes)
    table = votes.to_numpy(dtype=object)
    table = table[:, 0] if table.shape[1] == 1 else table
    ids = X["dialogue_id"].to_numpy()
    kind, budget = condition.split(", ")
    known = has_label if budget == "all" else within_budget(ids, has_label, int(budget), seed)
    if kind == "flipped":
        shown = np.where(known, flipped(y, known, scores, classes, seed), None)
        return Case(X, classes, table, shown, "human", shown, known & (shown != y))
    answered = ~np.isnan(scores[:, 0])
    llm = classes[np.nan_to_num(scores).argmax(axis=1)].astype(object)
    judged = answered & has_label & ~known
    label = np.where(judged, llm, None)
    return Case(X, classes, table, np.where(known, y, None), "llm", label, judged & (llm != y))


def drawn(
    task: str, seed: int, options: argparse.Namespace
) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame, np.ndarray]:
    """About MOST_ROWS utterances of whole dialogues, with labels and votes; and the classes."""
    split = load_split(TASKS[task], options.data, "test")
    X, y, votes = split.evaluation, split.y_evaluation, split.votes_evaluation
    if options.part == "train":
        X, y, votes = split.train, split.y_train, split.votes_train
    X = X.assign(dialogue_id=pieces(X))
    ids = X["dialogue_id"].to_numpy().astype(str)
    has_label = pd.Series([label is not None for label in y]).groupby(ids).any()
    order = np.random.default_rng(seed).permutation(np.unique(ids))
    order = order[np.argsort(~has_label[order].to_numpy(), kind="stable")]
    sizes = pd.Series(ids).value_counts()[order].cumsum().to_numpy()
    kept = np.isin(ids, order[: int(np.searchsorted(sizes, MOST_ROWS)) + 1])
    return (
        X[kept].reset_index(drop=True),
        y[kept],
        votes[kept].reset_index(drop=True),
        split.classes,
    )


def pieces(X: pd.DataFrame) -> np.ndarray:
    """Dialogues; lessons of hundreds of utterances are cut."""
    ids = X["dialogue_id"].to_numpy().astype(str)
    place = X.groupby("dialogue_id").cumcount().to_numpy()
    long = X.groupby("dialogue_id")["dialogue_id"].transform("size").to_numpy() > LONG
    return np.where(long, [f"{a}:{b}" for a, b in zip(ids, place // PIECE, strict=True)], ids)


def flipped(
    y: np.ndarray, known: np.ndarray, scores: np.ndarray, classes: np.ndarray, seed: int
) -> np.ndarray:
    """The labels, of which 10 % of those known are flipped as the LLM confuses their classes."""
    rng, n_classes = np.random.default_rng(seed), len(classes)
    has_label = np.array([label is not None for label in y])
    code = np.full(len(y), -1)
    code[has_label] = np.searchsorted(classes, y[has_label].astype(str))
    both = has_label & ~np.isnan(scores[:, 0])
    confusion = np.full((n_classes, n_classes), 0.5 / n_classes)
    np.add.at(confusion, code[both], scores[both])
    confused = confusion / confusion.sum(axis=1, keepdims=True)
    np.fill_diagonal(confused, 0)
    rows = np.flatnonzero(known)
    rate = confused.sum(axis=1)[code[rows]]
    rate = np.minimum(rate / rate.mean(), 3)
    chosen = rng.choice(rows, round(FLIPPED * len(rows)), replace=False, p=rate / rate.sum())
    labels = y.copy()
    for row in chosen:
        towards = confused[code[row]]
        labels[row] = classes[rng.choice(n_classes, p=towards / towards.sum())]
    return labels


def probabilities(case: Case, name: str, seed: int, options: argparse.Namespace) -> np.ndarray:
    kept = None if options.keep is None else options.keep / f"{options.part}-{name}-{seed}.npy"
    if kept is not None and kept.exists():
        return np.load(kept)
    clf = DialoguePreferenceClassifier(
        classes=case.classes, random_state=seed, memory=options.memory, **STUDENTS["frozen"]
    )
    proba = out_of_fold_proba(clf, case.X, case.shown, case.votes)
    if kept is not None:
        np.save(kept, proba)
    return proba


# -- scores -----------------------------------------------------------------------------------


def judged(case: Case, proba: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Whether each judged label is wrong, and how suspect it is to each method."""
    rows = np.flatnonzero([label is not None for label in case.label])
    suspicion = {OURS: ours(case, proba, case.votes)[rows]}
    if case.source == "human":
        suspicion[NO_LLM] = ours(case, proba, None)[rows]
    codes = np.searchsorted(case.classes, case.label[rows].astype(str))
    return case.wrong[rows], suspicion | cleanlab_suspicion(codes, proba[rows])


def ours(case: Case, proba: np.ndarray, votes: np.ndarray | None) -> np.ndarray:
    """The probability that each row's judged label is wrong; NaN where none is judged."""
    clf = DialoguePreferenceClassifier(classes=case.classes)  # which names the classes
    suspects = suspect_labels(clf, case.X, case.shown, votes, proba=proba)
    found = suspects[suspects.source == case.source]
    probability = np.full(len(case.X), np.nan)
    probability[found.row] = found.probability_wrong
    return probability


def cleanlab_suspicion(codes: np.ndarray, proba: np.ndarray) -> dict[str, np.ndarray]:
    """Rankings of cleanlab; those of the issues that it finds come before all others."""
    suspicion = {
        method: 1 - get_label_quality_scores(codes, proba, method=method)
        for method in ("self_confidence", "normalized_margin")
    }
    issues = find_label_issues(codes, proba, n_jobs=1)
    suspicion["find_label_issues"] = issues + suspicion["self_confidence"]
    return suspicion


def calibration_error(wrong: np.ndarray, probability: np.ndarray) -> float:
    place = np.minimum((probability * N_BINS).astype(int), N_BINS - 1)
    return np.abs(np.bincount(place, weights=probability - wrong)).sum() / len(wrong)


def measured(options: argparse.Namespace) -> pd.DataFrame:
    """A row per task, condition and seed."""
    lines = []
    for condition, seeds in SEEDS.items():
        for seed in range(seeds):
            for task in TASKS:
                case = make_case(task, condition, seed, options)
                proba = probabilities(case, f"{task}-{condition}", seed, options)
                wrong, suspicion = judged(case, proba)
                lines.append(
                    {"task": task, "condition": condition, "seed": seed, "labels": len(wrong)}
                    | {"wrong": 100 * wrong.mean(), "stated": 100 * suspicion[OURS].mean()}
                    | {"ece": calibration_error(wrong, suspicion[OURS])}
                    | {m: 100 * average_precision_score(wrong, s) for m, s in suspicion.items()}
                )
    return pd.DataFrame(lines)


# -- report -----------------------------------------------------------------------------------


def table(columns: list[str], rows: list[list[str]]) -> str:
    return "\n".join(
        f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *rows]
    )


def mean_and_sd(values: pd.Series, form: str = ".1f") -> str:
    return "" if values.isna().all() else f"{values.mean():{form}} ± {values.std():{form}}"


def summary(figures: pd.DataFrame) -> str:
    rows = []
    for condition, part in figures.groupby("condition", sort=False):
        best = max(CLEANLAB, key=lambda method, part=part: part[method].mean())
        gain = part[OURS] - part[best]
        scores = [mean_and_sd(part[method]) for method in (OURS, NO_LLM, *CLEANLAB)]
        gained, ece = f"{gain.mean():+.1f} ± {gain.std():.1f}", mean_and_sd(part["ece"], ".3f")
        rows.append([condition, *scores, gained, ece])
    return table(["condition", OURS, NO_LLM, *CLEANLAB, "gain over the best", "ECE"], rows)


def by_task(figures: pd.DataFrame) -> str:
    rows = []
    for (condition, task), part in figures.groupby(["condition", "task"], sort=False):
        mean = part.mean(numeric_only=True)
        shares = [f"{mean[name]:.1f}" for name in ("wrong", "stated", OURS, *CLEANLAB)]
        rows.append([condition, task, f"{mean['labels']:.0f}", *shares, f"{mean['ece']:.3f}"])
    columns = ["condition", "task", "labels", "wrong, %", "stated, %", OURS, *CLEANLAB, "ECE"]
    return table(columns, rows)


HEAD = f"""# Finding wrong labels

`python -m benchmarks.suspects --data DIR`

Average precision of the ranking by suspicion, in points; means and standard deviations over tasks
and seeds. cleanlab 2.9 gets the same out-of-fold probabilities; its best of three on the mean of
a condition counts. About {MOST_ROWS} utterances of each task, by the frozen student. ECE: expected
calibration error of `probability_wrong` over {N_BINS} bins, against what was flipped, or against
the hidden human labels. Lessons of talk moves are cut into pieces of {PIECE} utterances.
"The same without y_llm" uses the same probabilities, of a student that has learned from the LLM.
The aim was a gain of 3 points and an ECE of at most .05.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_data_option(parser, "--data")
    parser.add_argument("--part", choices=("train", "test"), default="test")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--memory", help="store of embeddings, as of the classifier")
    options = parser.parse_args()
    # turns that are missing in the data; classes without a human label
    warnings.filterwarnings("ignore", category=UserWarning)
    figures = measured(options)
    seeds = ", ".join(f"{number} ({condition})" for condition, number in SEEDS.items())
    foot = f"Seeds: {seeds}; {platform.machine()}, {time.strftime('%Y-%m-%d')}"
    report = f"{HEAD}\n{summary(figures)}\n\n## By task\n\n{by_task(figures)}\n\n{foot}\n"
    if options.part == "test":
        RESULTS.write_text(report)
    else:
        print(report)


if __name__ == "__main__":
    main()

"""What the next labels should be: suggestions against random rows and other strategies.

    python -m benchmarks.suggestions --memory FOLDER --student linear
    python -m benchmarks.suggestions --memory FOLDER --student classifier

Run it from the repository root, with scikit-activeml 1.0.1 for its strategies. Human labels are
bought utterance by utterance, from a pool of whole dialogues with about 1,800 human labels to buy.
All strategies start from the same 25 random utterances, but for those of whole dialogues and cold
starts. Each run is kept in the file ``--runs``; benchmarks/results/suggestions.md is written of
all runs in there.

- ``linear``: a linear head on the student's inputs, from the weights that fit the LLM's labels to
  those that fit the human ones too. A second per curve, for choosing a strategy.
- ``classifier``: ``DialoguePreferenceClassifier`` itself, on fewer budgets.
"""

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse.linalg import svds
from sklearn.metrics import f1_score

from benchmarks.evidence.data import TASKS, Split, add_data_option, load_split
from sklearn_dialpref import DialoguePreferenceClassifier, votes_to_scores
from sklearn_dialpref.inspection.suggestions import suggest_annotations

RESULTS = Path(__file__).parent / "results" / "suggestions.md"
POOL = 1800  # human labels that can be bought, at least
MOST_SCORED = 3000  # evaluation rows
START = 25
BUDGETS = {"linear": tuple(range(25, 401, 25)), "classifier": (25, 50, 100, 200, 400)}
FIRST = 50  # budget from which on the area counts
RANDOM = "random utterances"
FROM_THE_START = ("random dialogues", "suggest_annotations, cold start")  # choose all labels
COLD = ("suggest_annotations, cold start",)  # from a student of the LLM's labels
KEY = ("student", "part", "task", "strategy", "seed")
COMPONENTS = 150  # of the linear student's inputs
PRIOR = {"llm": 3.0, "human": 1.0}  # precision of the linear student's weights


# -- pools ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pool:
    """Utterances whose labels can be bought, and those that are scored.

    Attributes
    ----------
    X, votes : DataFrame
        Rows of whole dialogues, and their LLM labels.
    y : ndarray of object
        Their human labels, None where there is none to buy.
    X_scored, y_scored
        Evaluation rows with a human label.
    inputs, inputs_scored : ndarray of float32
        What the student's head reads.
    """

    classes: np.ndarray
    X: pd.DataFrame
    y: np.ndarray
    votes: pd.DataFrame
    X_scored: pd.DataFrame
    y_scored: np.ndarray
    inputs: np.ndarray
    inputs_scored: np.ndarray

    @property
    def can_be_bought(self) -> np.ndarray:
        return np.flatnonzero(known(self.y))


def known(labels: np.ndarray) -> np.ndarray:
    return np.array([label is not None for label in labels])


@lru_cache(maxsize=1)
def load_task(task: str, folder: Path, part: str, memory: str) -> tuple[Split, Any]:
    """A task's split, and a classifier that has embedded its texts."""
    split = load_split(TASKS[task], folder, part)
    clf = DialoguePreferenceClassifier(memory=memory, max_epochs=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return split, clf.fit(split.train, None, split.votes_train)


def draw_pool(split: Split, clf: Any, seed: int) -> Pool:
    ids, has_label = split.train["dialogue_id"].to_numpy(), known(split.y_train)
    order = np.random.default_rng(seed).permutation(np.unique(ids))
    counts = pd.Series(has_label).groupby(ids).sum()[order].cumsum().to_numpy()
    rows = np.flatnonzero(np.isin(ids, order[: int(np.searchsorted(counts, POOL)) + 1]))
    scored = np.flatnonzero(known(split.y_evaluation))
    if len(scored) > MOST_SCORED:
        scored = np.sort(np.random.default_rng(0).choice(scored, MOST_SCORED, replace=False))
    X, X_scored = split.train.iloc[rows], split.evaluation.iloc[scored]
    return Pool(
        split.classes,
        X.reset_index(drop=True),
        split.y_train[rows],
        split.votes_train.iloc[rows].reset_index(drop=True),
        X_scored.reset_index(drop=True),
        split.y_evaluation[scored].astype(str),
        head_inputs(clf, X),
        head_inputs(clf, X_scored),
    )


def head_inputs(clf: Any, X: pd.DataFrame) -> np.ndarray:
    texts, rows = np.unique(X["text"].to_numpy(dtype=str), return_inverse=True)
    table = clf._encoder().table(texts.tolist())
    return np.asarray(table[np.arange(len(texts))])[rows]


# -- students ---------------------------------------------------------------------------------


class LinearStudent:
    """Softmax regression on the principal components of the inputs.

    The prior of the weights is centred at those that fit the LLM's labels.
    """

    def __init__(self, pool: Pool) -> None:
        self.classes_, self.pool = pool.classes, pool
        centre, scale = pool.inputs.mean(axis=0), pool.inputs.std(axis=0) + 1e-6
        pooled, scored = ((x - centre) / scale for x in (pool.inputs, pool.inputs_scored))
        components = svds(pooled.astype(np.float64), k=COMPONENTS, random_state=0)[2].T
        size = (pooled @ components).std()
        self.rows = {"pool": with_one(pooled @ components / size)}
        self.rows["scored"] = with_one(scored @ components / size)
        shares = votes_to_scores(pool.votes, pool.classes)
        voted = ~np.isnan(shares).any(axis=1)
        none = np.zeros((self.rows["pool"].shape[1], len(pool.classes)))
        self.prior = fitted_weights(self.rows["pool"][voted], shares[voted], none, PRIOR["llm"])
        self.weights = self.prior

    def fit(self, X: Any, y_human: np.ndarray, y_llm: Any = None) -> "LinearStudent":
        rows = known(y_human)
        codes = np.searchsorted(self.classes_, y_human[rows].astype(str))
        shares = np.eye(len(self.classes_))[codes]
        self.weights = fitted_weights(self.rows["pool"][rows], shares, self.prior, PRIOR["human"])
        return self

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        logits = self.rows["pool" if X is self.pool.X else "scored"] @ self.weights
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def embed(self, X: pd.DataFrame) -> np.ndarray:
        return self.pool.inputs[X.index, -384:]  # rows of the pool keep their index


def with_one(x: np.ndarray) -> np.ndarray:
    return np.c_[x, np.ones(len(x))]


def fitted_weights(x: np.ndarray, shares: np.ndarray, centre: np.ndarray, precision: float) -> Any:
    x, shares, centre = (torch.tensor(a, dtype=torch.float32) for a in (x, shares, centre))
    weights = centre.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([weights], max_iter=40, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        fit = -(shares * torch.log_softmax(x @ weights, dim=1)).sum()
        value = fit + precision / 2 * ((weights - centre) ** 2).sum()
        value.backward()
        return value

    optimiser.step(loss)
    return weights.detach().numpy().astype(np.float64)


# -- strategies -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Purchase:
    """What a strategy knows when it chooses the next labels: the student, and labels so far."""

    pool: Pool
    clf: Any
    y_human: np.ndarray
    n: int
    seed: int

    @property
    def candidates(self) -> np.ndarray:
        return np.setdiff1d(self.pool.can_be_bought, np.flatnonzero(known(self.y_human)))

    @property
    def proba(self) -> np.ndarray:
        return self.clf.predict_proba(self.pool.X)


def suggested(at: Purchase, unit: str = "utterance") -> np.ndarray:
    """What ``suggest_annotations`` chooses among the rows whose labels can be bought."""
    pool, rows = at.pool, np.union1d(at.candidates, np.flatnonzero(known(at.y_human)))
    X, votes = pool.X.iloc[rows], pool.votes.iloc[rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        suggestions = suggest_annotations(
            Restricted(at.clf, at.proba[rows]), X, at.y_human[rows], votes, n=at.n, unit=unit,
            random_state=at.seed,
        )  # fmt: skip
    return rows[suggestions.rows][: at.n]


def suggested_dialogues(at: Purchase) -> np.ndarray:
    return suggested(at, "dialogue")


class Restricted:
    """A fitted student with its probabilities of some rows of the pool."""

    def __init__(self, clf: Any, proba: np.ndarray) -> None:
        self.clf, self.proba, self.classes_ = clf, proba, clf.classes_

    def predict_proba(self, X: Any) -> np.ndarray:
        return self.proba

    def embed(self, X: Any) -> np.ndarray:
        return self.clf.embed(X)


def random_utterances(at: Purchase) -> np.ndarray:
    return np.random.default_rng(at.seed).choice(at.candidates, at.n, replace=False)


def random_dialogues(at: Purchase) -> np.ndarray:
    """Utterances of one dialogue after the other; the last one is finished in the next batch."""
    ids = at.pool.X["dialogue_id"].to_numpy()
    begun = np.isin(ids, ids[known(at.y_human)])
    order = pd.Series(np.random.default_rng(at.seed).permutation(len(set(ids))), np.unique(ids))
    rank = np.where(begun, -1, order[ids])[at.candidates]
    return at.candidates[np.argsort(rank, kind="stable")][: at.n]


def smallest_margin(at: Purchase) -> np.ndarray:
    top = np.partition(at.proba[at.candidates], -2, axis=1)
    return at.candidates[np.argsort(top[:, -1] - top[:, -2], kind="stable")[: at.n]]


def largest_entropy(at: Purchase) -> np.ndarray:
    proba = at.proba[at.candidates]
    entropy = -(proba * np.log(proba + 1e-12)).sum(axis=1)
    return at.candidates[np.argsort(-entropy, kind="stable")[: at.n]]


def of_scikit_activeml(name: str) -> Callable[[Purchase], np.ndarray]:
    """A strategy of scikit-activeml, on the sentence embeddings of the pool."""

    def choose(at: Purchase) -> np.ndarray:
        from skactiveml import pool as strategies
        from skactiveml.base import SkactivemlClassifier

        class Fitted(SkactivemlClassifier):
            def __init__(self, classes, missing_label=np.nan):
                super().__init__(classes=classes, missing_label=missing_label)

            def fit(self, X, y):
                return self

            def predict_proba(self, X):
                return proba[X[:, -1].round().astype(int)], X[:, :-1]

        labels, proba = at.y_human, at.proba
        y = np.full(len(labels), np.nan)
        codes = np.searchsorted(at.pool.classes, labels[known(labels)].astype(str))
        y[known(labels)] = codes
        X = np.c_[at.pool.inputs[:, -384:].astype(np.float64), np.arange(len(y))]
        strategy = getattr(strategies, name)(random_state=at.seed)
        if name in ("TypiClust", "CoreSet", "ProbCover"):
            rows = strategy.query(X[:, :-1], y, candidates=at.candidates, batch_size=at.n)
        else:
            clf = Fitted(classes=np.arange(len(at.pool.classes)))
            rows = strategy.query(
                X, y, clf, fit_clf=False, candidates=at.candidates, batch_size=at.n
            )
        return np.asarray(rows)

    return choose


STRATEGIES: dict[str, Callable[[Purchase], np.ndarray]] = {
    "suggest_annotations": suggested,
    "suggest_annotations, cold start": suggested,
    "suggest_annotations, dialogues": suggested_dialogues,
    "random utterances": random_utterances,
    "random dialogues": random_dialogues,
    "margin": smallest_margin,
    "entropy": largest_entropy,
    "Badge": of_scikit_activeml("Badge"),
    "TypiClust": of_scikit_activeml("TypiClust"),
    "CoreSet": of_scikit_activeml("CoreSet"),
}


# -- runs -------------------------------------------------------------------------------------


def new_student(kind: str, pool: Pool, memory: str, seed: int) -> Any:
    if kind == "linear":
        return LinearStudent(pool)
    return DialoguePreferenceClassifier(memory=memory, random_state=seed)


def curve(name: str, pool: Pool, student: Any, budgets: tuple[int, ...], seed: int) -> list[dict]:
    """Scores at each budget, with labels bought by a strategy between them."""
    y_human = np.full(len(pool.y), None)
    points = []
    for at, budget in enumerate(budgets):
        n = budget - int(known(y_human).sum())
        random_start = at == 0 and name not in FROM_THE_START
        strategy = random_utterances if random_start else STRATEGIES[name]
        if at == 0 and name in COLD:
            student.fit(pool.X, y_human, pool.votes)
        rows = strategy(Purchase(pool, student, y_human, n, 1000 * seed + at))
        y_human[rows] = pool.y[rows]
        student.fit(pool.X, y_human, pool.votes)
        predicted = student.predict(pool.X_scored).astype(str)
        points.append(
            {
                "budget": budget,
                "F1": f1_score(
                    pool.y_scored, predicted, labels=pool.classes, average="macro", zero_division=0
                ),
                "accuracy": float((pool.y_scored == predicted).mean()),
            }
        )
    return points


def run_all(options: argparse.Namespace) -> None:
    """The runs that the file lacks, seed by seed."""
    done = {key_of(run) for run in read_runs(options.runs)}
    for seed in options.seeds:
        for task in options.tasks:
            keys = [(options.student, options.part, task, name, seed)
                    for name in options.strategies]  # fmt: skip
            if missing := [key for key in keys if key not in done]:
                split, clf = load_task(task, options.data, options.part, options.memory)
                pool = draw_pool(split, clf, seed)
                for key in missing:
                    student = new_student(options.student, pool, options.memory, seed)
                    start = time.time()
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        budgets = options.budgets or BUDGETS[key[0]]
                        points = curve(key[3], pool, student, budgets, seed)
                    record = dict(zip(KEY, key, strict=True), seconds=time.time() - start)
                    with options.runs.open("a") as file:
                        file.write(json.dumps({**record, "points": points}) + "\n")


def read_runs(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def key_of(run: dict) -> tuple:
    return tuple(run[name] for name in KEY)


# -- report -----------------------------------------------------------------------------------


def area(run: dict, measure: str) -> float:
    """Mean of a measure over the budgets from 50 on, in points."""
    budgets, values = ([p[name] for p in run["points"]] for name in ("budget", measure))
    budgets, values = np.array(budgets), 100 * np.array(values)
    kept = budgets >= FIRST
    return float(np.trapezoid(values[kept], budgets[kept]) / (budgets[-1] - FIRST))


def labels_needed(runs: list[dict], task: str, name: str) -> float:
    """Budget at which the mean curve reaches the last macro-F1 of random utterances.

    Interpolated; the first or last budget where the curve starts above it or never reaches it.
    """
    seeds = [{run["seed"] for run in runs if (run["task"], run["strategy"]) == (task, which)}
             for which in (RANDOM, name)]  # fmt: skip
    both = seeds[0] & seeds[1]
    goal = mean_curve(runs, task, RANDOM, both)[-1]
    values = mean_curve(runs, task, name, both)
    budgets = [p["budget"] for p in runs[0]["points"]]
    reached = np.flatnonzero(values >= goal)
    if not len(reached) or reached[0] == 0:
        return float(budgets[0] if len(reached) else budgets[-1])
    last = reached[0]
    return float(np.interp(goal, values[last - 1 : last + 1], budgets[last - 1 : last + 1]))


def section(runs: list[dict], student: str, part: str) -> str:
    """A table of all strategies; of pairs with random utterances on the same pool."""
    tasks = [task for task in TASKS if any(run["task"] == task for run in runs)]
    table = pd.DataFrame(
        [{**run, **{m: area(run, m) for m in ("F1", "accuracy")}} for run in runs]
    )
    areas = table.set_index(["task", "seed"]).groupby("strategy")[["F1", "accuracy"]]
    base = areas.get_group(RANDOM)
    lines = [["strategy", *tasks, "mean", "accuracy", "labels for 400 random", "seeds"]]
    lines.append(["---"] * len(lines[0]))
    for name in [name for name in STRATEGIES if name in areas.groups]:
        own = areas.get_group(name)
        figures = own if name == RANDOM else (own - base).dropna()
        means = figures.groupby("task").mean().mean()
        seeds = figures.index.to_frame(index=False).groupby("task")["seed"].nunique()
        lines.append(
            [
                name,
                *(spread(figures["F1"], task, name) for task in tasks),
                f"{means['F1']:{form(name)}}",
                f"{means['accuracy']:{form(name)}}",
                f"{np.mean([labels_needed(runs, task, name) for task in seeds.index]):.0f}",
                f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()}–{seeds.max()}",
            ]
        )
    head = f"## {TITLES[student]}, {part} dialogues\n\n"
    return head + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean_curve(runs: list[dict], task: str, name: str, seeds: set[int]) -> np.ndarray:
    chosen = [run for run in runs if (run["task"], run["strategy"]) == (task, name)]
    return np.mean(
        [[p["F1"] for p in run["points"]] for run in chosen if run["seed"] in seeds], axis=0
    )


def form(name: str) -> str:
    return ".1f" if name == RANDOM else "+.2f"


def spread(values: pd.Series, task: str, name: str) -> str:
    own = values[values.index.get_level_values("task") == task]
    deviation = f" ± {own.std():.1f}" if len(own) > 1 else ""
    return f"{own.mean():{form(name)}}{deviation}" if len(own) else ""


TITLES = {"linear": "Linear student", "classifier": "DialoguePreferenceClassifier"}
EXPLAINED = """\
Macro-F1 in points, mean over the budgets from 50 to 400 (area under the curve): of random
utterances as it is, of all others the gain over those on the same pools, with its standard
deviation over seeds. "accuracy": the same, mean over the tasks. "labels for 400 random": the
budget at which the mean curve first reaches what 400 random utterances give, mean over the tasks;
less than 400 for random utterances themselves where their curve is not rising."""


TARGETS = """\
Targets, for suggest_annotations with the classifier on test dialogues: at least +1.5 over random
utterances, on no task less than -0.5, at least as good as the best of scikit-activeml (its
UncertaintySampling is "margin" and "entropy" here, the others have their names), and at most 250
labels for what 400 random utterances give. The classifier buys its labels in batches that take
it from one of 25, 50, 100, 200 and 400 to the next; the linear student 25 at a time. Differences
below 1 point on one task are within the noise of so few seeds, and those of a single seed below
3. With the classifier, scikit-activeml is represented by "margin" alone."""


def verdict(runs: list[dict]) -> str:
    """The figures that the targets are about, whether they are reached or not."""
    some = [run for run in runs if (run["student"], run["part"]) == ("classifier", "test")]
    if not some:
        return TARGETS
    areas = pd.DataFrame([{**run, "F1": area(run, "F1")} for run in some])
    table = areas.pivot_table(index="task", columns="strategy", values="F1")
    gain = table["suggest_annotations"] - table[RANDOM]
    needed = [labels_needed(some, task, "suggest_annotations") for task in table.index]
    return (
        f"{TARGETS}\n\nMeasured: {gain.mean():+.2f} on the mean of the tasks, {gain.min():+.2f} "
        f"on the worst ({gain.idxmin()}), {np.mean(needed):.0f} labels."
    )


def write_report(runs: list[dict]) -> None:
    parts = [
        "# Suggestions of what to label next",
        "`python -m benchmarks.suggestions --data DIR --part test --student STUDENT`",
        EXPLAINED,
        verdict(runs),
    ]
    for student, part in sorted({(run["student"], run["part"]) for run in runs}):
        some = [run for run in runs if (run["student"], run["part"]) == (student, part)]
        parts.append(section(some, student, part))
    parts.append(f"{platform.machine()}, {time.strftime('%Y-%m-%d')}")
    RESULTS.write_text("\n\n".join(parts) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_option(parser, "--data")
    parser.add_argument("--memory", help="folder for embeddings", default=None)
    parser.add_argument("--runs", type=Path, default=Path("build") / "suggestions.jsonl")
    parser.add_argument("--student", choices=list(BUDGETS), default="linear")
    parser.add_argument("--part", choices=["validation", "test"], default="validation")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(range(5)))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument(
        "--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES)
    )
    parser.add_argument("--budgets", nargs="+", type=int, help="with --runs of their own")
    parser.add_argument("--no-report", action="store_true")
    options = parser.parse_args()
    options.runs.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    run_all(options)
    if not options.no_report:
        write_report(read_runs(options.runs))


if __name__ == "__main__":
    main()

"""Asking until the answers agree: calls saved against the vote of all members, on real votes.

The members of an ensemble are asked in turn, one model after the other, and a row is done once its
top class leads by a threshold (``sklearn_dialpref.annotation.stopping``). The votes are those of
``benchmarks.ensemble_votes``. Saved calls are those that had an answer and would not have been
made.

    python -m benchmarks.stopping [--data FOLDER] [--only rules choice student]

Run it from the repository root. Each part replaces its section of benchmarks/results/stopping.md:

- ``rules``: candidates for the rule. On a random half of the dialogues, the cheapest threshold of
  each is taken that loses at most half a point of accuracy and of macro-F1 and 0.15 nats; the
  other half is scored.
- ``orders``: models in turn, one model after the other, and at random.
- ``choice``: the threshold is chosen on about 100 human labels of at least five dialogues, at most
  20 in each, or on whole dialogues; all other dialogues are scored.
- ``frontier``: fixed thresholds.
- ``student``: the student, frozen, with about 100 human labels.
"""

import argparse
import platform
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.ensemble_votes import SETS as SETS_OF_VOTES
from benchmarks.ensemble_votes import Votes, draw, load, measures
from benchmarks.evidence.data import add_data_option, read_table
from benchmarks.evidence.ours import STUDENTS
from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref.annotation.ensemble import Combination, _fit, combine, fit_combination
from sklearn_dialpref.annotation.stopping import DEFAULT_LEAD, choose_threshold, stopped

RESULTS = Path(__file__).parent / "results" / "stopping.md"
SETS = ("talk moves, 19", "talk moves, 43", "MELD emotion", "DeliData type", "DeliData target")
LEADS = (1.5, 2.5, 3.5, 4.5, 5.5, 7.5)
N_LABELS = 100
STRETCH = 20  # labels in a dialogue, at most
LOST = 0.005  # of accuracy and of macro-F1, at most, in comparing rules
LOST_NATS = 0.15  # of log-loss
STUDENTS_EACH = 3  # seeds
MOST_ROWS = 8000  # of utterances for training the student, and about as many for scoring it
HEAD = "# Asking until the answers agree\n\n`python -m benchmarks.stopping --data DIR`\n"


# -- orders and draws -------------------------------------------------------------------------


def in_turn(votes: Votes) -> np.ndarray:
    """Members in an order in which models take turns."""
    nth = pd.Series(votes.models).groupby(votes.models).cumcount().to_numpy()
    return np.lexsort((votes.models, nth))


def model_by_model(votes: Votes) -> np.ndarray:
    return np.argsort(votes.models, kind="stable")


def draw_stretches(groups: np.ndarray, seed: int, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows with a label, and rows of dialogues with one.

    Of each dialogue drawn, the first utterances are labelled.
    """
    rank = pd.Series(groups).groupby(groups).cumcount().to_numpy()
    short = np.where(rank < STRETCH, groups, -1)
    order = np.random.default_rng(seed).permutation(groups.max() + 1)
    sizes = np.bincount(short[short >= 0])[order].cumsum()
    drawn = order[: int(np.searchsorted(sizes, n_labels)) + 1]
    return np.isin(short, drawn), np.isin(groups, drawn)


def draw_whole(groups: np.ndarray, seed: int, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """The same, with all utterances of at least five dialogues labelled."""
    known = draw(groups, seed, n_labels)
    return known, known


def share_saved(scores: np.ndarray, asked: np.ndarray) -> float:
    return 1 - (~np.isnan(asked[:, :, 0])).sum() / (~np.isnan(scores[:, :, 0])).sum()


def mean_vote(scores: np.ndarray) -> np.ndarray:
    return combine(scores, Combination.plain(*scores.shape[1:]))


def cell(values: list[float], unit: float = 1, form: str = "+.2f") -> str:
    values = unit * np.asarray(values)
    return f"{values.mean():{form}} ± {values.std(ddof=1):.2f}"


def table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# -- rules ------------------------------------------------------------------------------------


def lead_rule(sums: np.ndarray, counts: np.ndarray, accuracy: float) -> np.ndarray:
    top = np.partition(sums, -2, axis=2)
    return top[:, :, -1] - top[:, :, -2]


def decided_rule(sums: np.ndarray, counts: np.ndarray, accuracy: float) -> np.ndarray:
    """The lead; infinite where the members that are left cannot turn it."""
    lead = lead_rule(sums, counts, accuracy)
    left = sums.shape[1] - 1 - np.arange(sums.shape[1])
    return np.where(lead > left, np.inf, lead)


def share_rule(sums: np.ndarray, counts: np.ndarray, accuracy: float, prior: int) -> np.ndarray:
    """Smoothed share of the top class."""
    return (sums.max(axis=2) + prior / sums.shape[2]) / (counts + prior)


def posterior_rule(sums: np.ndarray, counts: np.ndarray, accuracy: float) -> np.ndarray:
    """Posterior of the top class: independent members that are right so often, equal priors."""
    log_odds = np.log(accuracy * (sums.shape[2] - 1) / (1 - accuracy))
    return 1 / np.exp(log_odds * (sums - sums.max(axis=2, keepdims=True))).sum(axis=2)


SHARES = np.arange(0.3, 1, 0.02)
RULES: dict[str, tuple[Callable[..., np.ndarray], np.ndarray]] = {
    "lead": (lead_rule, np.arange(1, 13)),
    "lead, or cannot be overtaken": (decided_rule, np.arange(1, 13)),
    "share of the top class, smoothed by 1 answer": (partial(share_rule, prior=1), SHARES),
    "share of the top class, smoothed by 2 answers": (partial(share_rule, prior=2), SHARES),
    "posterior, with the accuracy of the members": (posterior_rule, 1 - np.logspace(-0.4, -8, 60)),
}


def stopped_by(scores: np.ndarray, certainty: np.ndarray, threshold: float) -> np.ndarray:
    sure = np.logical_or.accumulate(certainty >= threshold - 1e-12, axis=1)
    asked = scores.copy()
    asked[:, 1:][sure[:, :-1]] = np.nan
    return asked


def losses_and_savings(votes: Votes, rows: np.ndarray, asked: np.ndarray) -> list[float]:
    """Share of calls saved; changes of accuracy, macro-F1 and log-loss of the mean vote."""
    full = measures(mean_vote(votes.scores[rows]), votes.y[rows])
    short = measures(mean_vote(asked[rows]), votes.y[rows])
    changes = [after - before for before, after in zip(full, short, strict=True)]
    return [share_saved(votes.scores[rows], asked[rows]), changes[0], changes[1], changes[3]]


def one_rule(votes: Votes, rule: str, seeds: int) -> list[list[float]]:
    """On each seed's other half of the dialogues, at the threshold of the first half."""
    certainty_of, thresholds = RULES[rule]
    sums = np.nancumsum(votes.scores, axis=1)
    counts = (~np.isnan(votes.scores[:, :, 0])).cumsum(axis=1)
    right = (votes.scores.argmax(axis=2) == votes.y[:, None])[~np.isnan(votes.scores[:, :, 0])]
    certainty = certainty_of(sums, counts, float(right.mean()))
    asked = [stopped_by(votes.scores, certainty, t) for t in thresholds]
    results = []
    for seed in range(seeds):
        half = np.random.default_rng(seed).permutation(votes.groups.max() + 1) % 2 == 0
        first = half[votes.groups]
        for short in asked:
            _, accuracy, f1, log_loss = losses_and_savings(votes, first, short)
            if min(accuracy, f1) >= -LOST and log_loss <= LOST_NATS:
                break
        results.append(losses_and_savings(votes, ~first, short))
    return results


def changes(runs: list[list[float]]) -> list[str]:
    saved, accuracy, f1, loss = np.array(runs).T
    return [
        cell(saved, 100, ".1f"),
        cell(accuracy, 100),
        cell(f1, 100),
        f"{loss.mean():+.3f} ± {loss.std(ddof=1):.3f}",
    ]


CHANGES = ["calls saved, %", "accuracy, points", "macro-F1, points", "log-loss, nats"]


def rules(data: dict[str, Votes], options: argparse.Namespace) -> str:
    rows = [
        [name, rule, *changes(one_rule(data[name], rule, options.seeds))]
        for name in SETS[:3]
        for rule in RULES
    ]
    return table(["data", "rule", *CHANGES], rows)


def orders(data: dict[str, Votes], options: argparse.Namespace) -> str:
    rows = []
    for name in SETS[:3]:
        votes = data[name]
        kinds = {"models in turn": [in_turn(votes)], "model by model": [model_by_model(votes)]}
        seeds = range(options.seeds)
        size = len(votes.members)
        kinds["random"] = [np.random.default_rng(seed).permutation(size) for seed in seeds]
        everything = np.ones(len(votes.y), dtype=bool)
        for lead in (2.5, DEFAULT_LEAD):
            for kind, tried in kinds.items():
                runs = [
                    losses_and_savings(votes, everything, stopped(votes.scores, lead, order))
                    for order in tried
                ]
                cells = changes(runs if len(runs) > 1 else runs * 2)
                rows.append([name, f"{lead}", kind, *cells])
    return table(["data", "lead", "order", *CHANGES], rows)


# -- the threshold ----------------------------------------------------------------------------


def choice(data: dict[str, Votes], options: argparse.Namespace) -> str:
    """Three ways to combine, at the threshold that human labels speak for."""
    rows = []
    for name in SETS:
        for draw_labels in (draw_stretches, draw_whole):
            runs = [one_choice(data[name], draw_labels, seed) for seed in range(options.seeds)]
            leads = [run["lead"] for run in runs]
            labels = np.mean([run["labels"] for run in runs])
            for way in ("mean vote", "learned on all scores", "learned on stopped scores"):
                table_of = np.array([run[way] for run in runs])
                head = [name, f"{labels:.0f}", f"{np.mean(leads):.1f}", way]
                full = [f"{value:.3f}" for value in table_of[:, 4:].mean(axis=0)]
                rows.append([*head, *full, *changes(table_of[:, :4].tolist())])
    columns = ["data", "labels", "lead", "combination", "accuracy", "macro-F1", "log-loss"]
    return table([*columns, *CHANGES], rows)


def one_choice(votes: Votes, draw_labels: Callable[..., tuple], seed: int) -> dict:
    known, drawn = draw_labels(votes.groups, seed, N_LABELS)
    y, groups = votes.y[known], votes.groups[known]
    lead = choose_threshold(votes.scores[known], y, groups, seed=seed)
    asked = stopped(votes.scores, lead)
    plain = Combination.plain(*votes.scores.shape[1:])
    on_all = fit_combination(votes.scores[known], y, groups, seed=seed)
    on_stopped = fit_combination(asked[known], y, groups, seed=seed)
    ways = {
        "mean vote": (plain, plain),
        "learned on all scores": (on_all, on_all),
        "learned on stopped scores": (on_all, on_stopped),
    }
    result = {"lead": lead, "labels": known.sum()}
    saved = share_saved(votes.scores[~drawn], asked[~drawn])
    for way, (of_all, of_stopped) in ways.items():
        full = measures(combine(votes.scores[~drawn], of_all), votes.y[~drawn])
        short = measures(combine(asked[~drawn], of_stopped), votes.y[~drawn])
        rise = np.subtract(short, full)
        result[way] = [saved, rise[0], rise[1], rise[3], full[0], full[1], full[3]]
    return result


def frontier(data: dict[str, Votes], options: argparse.Namespace) -> str:
    """Mean vote at fixed thresholds, and its log-loss with a temperature learned on labels."""
    rows = []
    for name in SETS:
        votes = data[name]
        for lead in [lead for lead in LEADS if lead <= len(votes.members)]:
            asked = stopped(votes.scores, lead)
            runs = []
            for seed in range(options.seeds):
                known, drawn = draw_stretches(votes.groups, seed, N_LABELS)
                cooled = [
                    warm_loss(scores, votes.y, known, ~drawn) for scores in (votes.scores, asked)
                ]
                runs.append([*losses_and_savings(votes, ~drawn, asked), cooled[1] - cooled[0]])
            table_of = np.array(runs)
            rise = table_of[:, 4]
            last = f"{rise.mean():+.3f} ± {rise.std(ddof=1):.3f}"
            rows.append([name, f"{lead}", *changes(table_of[:, :4].tolist()), last])
    return table(["data", "lead", *CHANGES, "log-loss with a temperature"], rows)


def warm_loss(scores: np.ndarray, y: np.ndarray, known: np.ndarray, scored: np.ndarray) -> float:
    how = _fit(scores[known], y[known], ("temperature",))
    return measures(combine(scores[scored], how), y[scored])[3]


# -- the student ------------------------------------------------------------------------------


def student(data: dict[str, Votes], options: argparse.Namespace) -> str:
    """Accuracy and macro-F1 of the student, by how its teacher was asked."""
    rows = []
    for name in ("talk moves, 19", "MELD emotion"):
        texts = utterances(options.data, name, data[name])
        runs = [one_student(texts, data[name], seed) for seed in range(STUDENTS_EACH)]
        base = np.array([run["all members"] for run in runs])
        for way in runs[0]:
            table_of = np.array([run[way] for run in runs])
            gains = table_of - base
            cells = [cell(table_of[:, 0], 100, ".1f")]
            for measure in (1, 2):
                mean, spread = table_of[:, measure].mean(), table_of[:, measure].std(ddof=1)
                cells += [f"{mean:.3f} ± {spread:.3f}", cell(gains[:, measure], 100)]
            rows.append([name, way, *cells])
    measured = ["accuracy", "change, points", "macro-F1", "change, points"]
    return table(["data", "teacher", "calls saved, %", *measured], rows)


def utterances(folder: Path, name: str, votes: Votes) -> pd.DataFrame:
    """All utterances of the dialogues that have votes; ``group`` as in the votes."""
    file, _, _ = SETS_OF_VOTES[name]
    frame = read_table(file, folder)
    ids = frame["dialogue_id"].loc[votes.rows]
    group_of = dict(zip(ids, votes.groups, strict=True))
    split = frame["split"] == frame["split"].loc[votes.rows[0]]
    frame = frame[split & frame["dialogue_id"].isin(ids)]
    columns = ["dialogue_id", "turn", "speaker", "text"]
    return frame[columns].assign(group=frame["dialogue_id"].map(group_of))


def one_student(texts: pd.DataFrame, votes: Votes, seed: int) -> dict[str, list[float]]:
    """Share of calls saved, test accuracy and macro-F1 for each way to ask."""
    ids = np.random.default_rng(0).permutation(votes.groups.max() + 1)
    size = min(len(ids) // 2, MOST_ROWS * len(ids) // len(texts))
    train, test = (np.isin(votes.groups, part) for part in (ids[:size], ids[size : 2 * size]))
    scores, y, groups = votes.scores[train], votes.y[train], votes.groups[train]
    known, _ = draw_stretches(pd.factorize(groups)[0], seed, N_LABELS)
    chosen = choose_threshold(scores[known], y[known], groups[known], seed=seed)
    leads = {"all members": np.inf, **{f"lead {lead}": lead for lead in LEADS[:3]}}
    fitted: dict[float, list[float]] = {}
    for lead in {*leads.values(), chosen}:
        asked = stopped(scores, lead)
        how = fit_combination(asked[known], y[known], groups[known], seed=seed)
        clf = fitted_student(texts, votes.rows[train], combine(asked, how), y, known, seed)
        X = texts[texts["group"].isin(votes.groups[test])]
        proba = clf.predict_proba(X.drop(columns="group"))[X.index.get_indexer(votes.rows[test])]
        fitted[lead] = [share_saved(scores, asked), *measures(proba, votes.y[test])[:2]]
        print(seed, lead, chosen, np.round(fitted[lead], 3), flush=True)
    return {**{way: fitted[lead] for way, lead in leads.items()}, "chosen lead": fitted[chosen]}


def fitted_student(
    texts: pd.DataFrame,
    rows: np.ndarray,
    soft: np.ndarray,
    y: np.ndarray,
    known: np.ndarray,
    seed: int,
) -> DialoguePreferenceClassifier:
    """Trained on the dialogues of the rows, with scores for all of these and some labels."""
    X = texts[texts["group"].isin(texts["group"].loc[rows])]
    index = X.index.get_indexer(rows)
    classes = np.arange(soft.shape[1])
    y_llm = np.full((len(X), len(classes)), np.nan)
    y_llm[index] = soft
    y_human = np.full(len(X), None, dtype=object)
    y_human[index[known]] = y[known]
    clf = DialoguePreferenceClassifier(classes=classes, random_state=seed, **STUDENTS["frozen"])
    return clf.fit(X.drop(columns="group"), y_human, y_llm)


# -- results ----------------------------------------------------------------------------------

PARTS = {
    "rules": ("Candidates for the rule", rules),
    "orders": ("Order of asking", orders),
    "choice": ("Threshold chosen on human labels", choice),
    "frontier": ("Fixed thresholds", frontier),
    "student": ("The student", student),
}


def write(title: str, text: str) -> None:
    """Replace a section of the results, or add it; what stands above the first is kept."""
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else HEAD
    head, *sections = old.split("\n## ")
    by_title = dict(section.split("\n", 1) for section in sections)
    by_title[title] = f"\n{text}\n"
    order = [t for t, _ in PARTS.values() if t in by_title]
    RESULTS.write_text("\n## ".join([head, *(f"{t}\n{by_title[t]}" for t in order)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_option(parser, "--data")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    data = {name: load(options.data, name) for name in SETS}
    data = {name: votes.of(in_turn(votes)) for name, votes in data.items()}
    for part in options.only:
        title, run = PARTS[part]
        # turns that are missing in the data; classes without a human label
        warnings.filterwarnings("ignore", category=UserWarning)
        foot = f"{options.seeds} draws" if part != "student" else f"{STUDENTS_EACH} seeds"
        foot = f"{foot}, {platform.machine()}, {time.strftime('%Y-%m-%d')}"
        write(title, f"{run(data, options)}\n\n{foot}")


if __name__ == "__main__":
    main()

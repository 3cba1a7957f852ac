"""Asking the LLM about some utterances: what it gains at 10, 20, 30 %, and promises that are kept.

    python -m benchmarks.escalation --store FOLDER [--seeds 3]
        [--memory FOLDER] [--part test] [--only shares promises]

Run it from the repository root. On the tasks of ``benchmarks.evidence``, with a frozen encoder,
students learn from about 100 or 400 human labels, at most 20 random ones of each dialogue, and all
LLM labels of the training dialogues. Their probabilities are kept in the store. The teacher is the
vote of the LLMs that the task has. Each section of benchmarks/results/escalation.md is replaced:

- ``shares``: accuracy and macro-F1 where a share is asked about, by the threshold that ``fit``
  learns, against ways without learning, which ask about just as many.
- ``promises``: 500 times, dialogues drawn with replacement, with about 400 human labels, choose
  the threshold for an accuracy, by the student of the first seed; all dialogues of the part, which
  they are drawn from, show whether it is reached. No task reaches .9 by asking.
"""

import argparse
import platform
import time
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from benchmarks.evidence.data import TASKS, Split, add_data_option, load_split, within_budget
from sklearn_dialpref import DialoguePreferenceClassifier, votes_to_scores
from sklearn_dialpref.escalation.combining import combine
from sklearn_dialpref.escalation.rules import Evidence, rule_for_accuracy, rule_for_share
from sklearn_dialpref.inspection.out_of_fold import out_of_fold_proba

RESULTS = Path(__file__).parent / "results" / "escalation.md"
BUDGETS = (100, 400)
SHARES = (0.1, 0.2, 0.3)
MOST_OF_A_DIALOGUE = 20  # labels
SPLITS = 500
WAYS = ("learned", "least sure, teacher", "least sure, mean")


# -- predictions ------------------------------------------------------------------------------


def draw(ids: np.ndarray, has_label: np.ndarray, budget: int, seed: int) -> np.ndarray:
    """Rows of random dialogues, at most 20 random ones of each, until there are as many."""
    number = pd.Series(np.random.default_rng(seed).random(len(ids)))
    number[~has_label] = 2
    few = number.groupby(ids).rank().to_numpy() <= MOST_OF_A_DIALOGUE
    return within_budget(ids, has_label & few, budget, seed)


def predictions(split: Split, budget: int, seed: int, memory: str | None) -> dict:
    """Probabilities of a student and of the teacher, for training and evaluation rows."""
    ids = split.train["dialogue_id"].to_numpy()
    known = draw(ids, np.array([y is not None for y in split.y_train]), budget, seed)
    y_human, votes = np.where(known, split.y_train, None), split.votes_train.to_numpy(dtype=object)
    votes = votes[:, 0] if votes.shape[1] == 1 else votes
    clf = DialoguePreferenceClassifier(memory=memory, classes=split.classes, random_state=seed)
    proba = out_of_fold_proba(clf, split.train, y_human, votes)
    clf.fit(split.train, y_human, votes)
    scored = np.array([y is not None for y in split.y_evaluation])
    evaluation = split.evaluation[scored]
    return {
        "known": known,
        "proba": proba.astype(np.float32),
        "teacher": votes_to_scores(split.votes_train, split.classes)[known],
        "y": np.searchsorted(split.classes, split.y_train[known].astype(str)),
        "groups": np.unique(ids[known], return_inverse=True)[1],
        "new_student": clf.predict_proba(evaluation),
        "new_teacher": votes_to_scores(split.votes_evaluation, split.classes)[scored],
        "new_y": np.searchsorted(split.classes, split.y_evaluation[scored].astype(str)),
        "new_groups": np.unique(evaluation["dialogue_id"], return_inverse=True)[1],
    }


def stored(name: str, budget: int, seed: int, args: argparse.Namespace) -> dict:
    path = args.store / f"{name}-{args.part}-{budget}-{seed}.npz"
    if not path.exists():
        start = time.process_time()
        if name not in SPLIT:
            SPLIT[name] = load_split(TASKS[name], args.data, args.part)
        np.savez(path, **predictions(SPLIT[name], budget, seed, args.memory))
        print(path.stem, f"{time.process_time() - start:.0f} s", flush=True)
    return dict(np.load(path))


SPLIT: dict[str, Split] = {}


# -- shares -----------------------------------------------------------------------------------


def measures(y: np.ndarray, labels: np.ndarray) -> np.ndarray:
    f1 = f1_score(y, labels, average="macro", labels=np.unique(y), zero_division=0)
    return 100 * np.array([(y == labels).mean(), f1])


def at_share(cell: dict, share: float) -> dict[str, np.ndarray]:
    """Accuracy, macro-F1 and share asked of each way."""
    student, teacher, y = cell["new_student"], cell["new_teacher"], cell["new_y"]
    known, own = cell["known"], student.argmax(axis=1)
    seen = Evidence(cell["proba"][known], cell["teacher"], cell["y"], cell["groups"])
    rule = rule_for_share(seen, cell["proba"], share)
    asked = rule.escalates(student)
    least_sure = np.argsort(student.max(axis=1), kind="stable")[: round(share * len(y))]
    by_confidence = np.isin(np.arange(len(y)), least_sure)
    ways = {
        WAYS[0]: (asked, combine(student, teacher, rule.combination)),
        WAYS[1]: (by_confidence, teacher),
        WAYS[2]: (by_confidence, student + teacher),
    }
    return {way: [*measures(y, labelled(own, *how)), 100 * how[0].mean()]
            for way, how in ways.items()}  # fmt: skip


def labelled(own: np.ndarray, asked: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Labels where some are asked about; the student's where there is no answer."""
    rows = asked & ~np.isnan(proba[:, 0])
    labels = own.copy()
    labels[rows] = proba[rows].argmax(axis=1)
    return labels


def shares(args: argparse.Namespace) -> str:
    lines = defaultdict(list)
    for seed in range(args.seeds):
        for budget in BUDGETS:
            for name in TASKS:
                cell = stored(name, budget, seed, args)
                own = cell["new_student"].argmax(axis=1)
                everywhere = labelled(own, np.ones(len(own), dtype=bool), cell["new_teacher"])
                base = measures(cell["new_y"], own)
                lines[name, budget, "student"].append([*base, 0])
                lines[name, budget, "teacher"].append([*measures(cell["new_y"], everywhere), 100])
                for share in SHARES:
                    for way, values in at_share(cell, share).items():
                        lines[name, budget, f"{way}, {share:.0%}"].append(values)
    return "\n\n".join(
        [share_table(lines, 1, "Macro-F1"), share_table(lines, 0, "Accuracy"), asked_table(lines),
         targets_met(lines)]
    )  # fmt: skip


def share_table(lines: dict, measure: int, title: str) -> str:
    """Student and teacher, and the gain over the student of each way, mean ± sd over seeds."""
    ways = list(dict.fromkeys(way for _, _, way in lines))
    rows = []
    for budget in BUDGETS:
        for name in TASKS:
            own = np.array(lines[name, budget, "student"])[:, measure]
            cells = [spread(own, ".1f")]
            cells += [
                spread(np.array(lines[name, budget, way])[:, measure] - own, "+.1f")
                for way in ways[1:]
            ]
            rows.append([name, str(budget), *cells])
        rows.append(["mean", str(budget), "", *(
            f"{mean_gain(lines, budget, way, measure):+.1f}" for way in ways[1:])])  # fmt: skip
    return f"### {title}\n\n" + table(["task", "labels", *ways], rows)


def mean_gain(lines: dict, budget: int, way: str, measure: int) -> float:
    return float(np.mean([
        np.mean(np.array(lines[name, budget, way])[:, measure]
                - np.array(lines[name, budget, "student"])[:, measure])
        for name in TASKS
    ]))  # fmt: skip


def asked_table(lines: dict) -> str:
    ways = [f"{WAYS[0]}, {share:.0%}" for share in SHARES]
    rows = [
        [name, *(spread(np.array(lines[name, budget, way])[:, 2], ".1f")
                 for budget in BUDGETS for way in ways)]
        for name in TASKS
    ]  # fmt: skip
    columns = [f"{way}, {budget} labels" for budget in BUDGETS for way in ways]
    return "### Share that was asked about, %\n\n" + table(["task", *columns], rows)


def targets_met(lines: dict) -> str:
    """Where the learned way is 0.3 points under the better of student and teacher."""
    rows = []
    for measure, title in ((1, "macro-F1"), (0, "accuracy")):
        for budget in BUDGETS:
            for share in SHARES:
                behind = {}
                for name in TASKS:
                    ways = "student", "teacher", f"{WAYS[0]}, {share:.0%}"
                    at = [np.mean(lines[name, budget, way], axis=0)[measure] for way in ways]
                    behind[name] = at[2] - max(at[:2])
                missed = [f"{name} {gap:+.1f}" for name, gap in behind.items() if gap < -0.3]
                rows.append([title, str(budget), f"{share:.0%}", f"{8 - len(missed)} of 8",
                             ", ".join(missed)])  # fmt: skip
    columns = ["measure", "labels", "asked", "tasks within 0.3 of the better", "missed"]
    return "### Against the better of student and teacher\n\n" + table(columns, rows)


# -- promises ---------------------------------------------------------------------------------


def promises(args: argparse.Namespace) -> str:
    rows, all_broken = [], []
    for name in TASKS:
        cell = stored(name, 400, 0, args)
        for mode, target in (("asks", 0.8), ("abstains", 0.8), ("abstains", 0.9)):
            found = np.array([one_promise(cell, target, mode, s) for s in range(SPLITS)])
            kept = found[:, 0] == 1
            all_broken.append(found[:, 1].mean())
            means = found[kept].mean(axis=0) if kept.any() else np.full(4, np.nan)
            rows.append([
                name, mode, f"{target}", f"{kept.mean():.1%}", f"{found[:, 1].mean():.1%}",
                f"{means[2]:.0%}" if kept.any() else "", f"{means[3]:.3f}" if kept.any() else "",
            ])  # fmt: skip
        print(name, flush=True)
    columns = ["task", "mode", "target", "promised", "broken", "share passed on", "accuracy"]
    head = (
        f"Broken in {np.mean(all_broken):.1%} of the splits on the mean and {max(all_broken):.1%} "
        "at most. Share passed on and accuracy are those of the splits with a promise.\n\n"
    )
    return head + table(columns, rows)


def one_promise(cell: dict, target: float, mode: str, seed: int) -> list[float]:
    """Promised or not, broken or not; share passed on and accuracy among all dialogues."""
    groups, y, student = cell["new_groups"], cell["new_y"], cell["new_student"]
    teacher = None if mode == "abstains" else cell["new_teacher"]
    labels, drawn = draw_again(groups, 400, seed)
    seen = Evidence(student[labels], None if teacher is None else teacher[labels], y[labels],
                    drawn)  # fmt: skip
    rule, promise = rule_for_accuracy(seen, target, 0.95)
    asked, own = rule.escalates(student), student.argmax(axis=1)
    scored = ~asked
    if teacher is not None:
        own = labelled(own, asked, combine(student, teacher, rule.combination))
        scored = np.ones(len(y), dtype=bool)
    sizes = np.bincount(groups)  # long dialogues count as far as they are labelled
    weight = (np.minimum(sizes, MOST_OF_A_DIALOGUE) / sizes)[groups]
    right = (own == y)[scored]
    accuracy = np.average(right, weights=weight[scored]) if scored.any() else 1.0
    return [promise.kept, promise.kept and accuracy < target, asked.mean(), accuracy]


def draw_again(groups: np.ndarray, n_labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of dialogues drawn with replacement, and the number of the draw of each."""
    rng, rows = np.random.default_rng(seed), []
    while sum(map(len, rows)) < n_labels:
        of_one = np.flatnonzero(groups == rng.integers(groups.max() + 1))
        rows.append(rng.permutation(of_one)[:MOST_OF_A_DIALOGUE])
    return np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(r) for r in rows])


# -- results ----------------------------------------------------------------------------------


def spread(values: np.ndarray, form: str) -> str:
    sd = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():{form}}{sd}"


def table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


PARTS = {"shares": shares, "promises": promises}


def replace_section(text: str, name: str, body: str) -> str:
    sections = text.split("\n## ")
    kept = [s for s in sections[1:] if not s.startswith(f"{name}\n")]
    return "\n## ".join([sections[0].rstrip("\n"), *kept, f"{name}\n\n{body}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_option(parser, "--data")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--memory")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", default="test")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    args.store.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    head = "# Asking the LLM about some utterances\n"
    for name in args.only:
        body = PARTS[name](args)
        machine = f"{platform.processor() or platform.machine()}, one thread"
        note = f"{args.part} part, {args.seeds} seeds, {time.strftime('%Y-%m-%d')}, {machine}."
        text = RESULTS.read_text() if RESULTS.exists() else head
        RESULTS.write_text(replace_section(text, name, f"{note}\n\n{body}\n"))


if __name__ == "__main__":
    main()

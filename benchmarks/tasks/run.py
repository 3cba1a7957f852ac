"""Fit each method on each task, and count what it has right in each test dialogue."""

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sklearn_dialpref import DialoguePreferenceClassifier, DialogueStateTracker
from sklearn_dialpref.metrics import joint_goal_accuracy_score

from .data import HUMAN_ONLY, Problem, draw_human, known

__all__ = ["Result", "measures", "results"]


@dataclass(frozen=True, eq=False)
class Result:
    """One fit.

    Attributes
    ----------
    budget : int
    seed : int
    method : str
    n_llm : int
        Utterances with a label of the LLM.
    counts : ndarray of shape (n_dialogues, 3, n_classes)
        In each test dialogue and class: right, predicted, true.
    seconds : float
        Of processor time, in fit.
    megabytes : float
        Highest resident memory during it.
    """

    budget: int
    seed: int
    method: str
    n_llm: int
    counts: np.ndarray
    seconds: float
    megabytes: float


def results(problem: Problem, budgets: list[int], seeds: list[int]) -> Iterator[Result]:
    """Fit and predict; an encoder embeds all texts before the first clock starts."""
    warmed = set()
    for seed in seeds:
        y_llm = problem.votes(seed)
        n_llm = int(known(y_llm).sum())
        for budget in budgets:
            y_human = draw_human(problem, budget, seed)
            for method, options in problem.methods.items():
                clf = DialoguePreferenceClassifier(random_state=seed, **options)
                if (kind := (clf.pooling, clf.context_turns)) not in warmed:
                    _warm_up(clf, problem)
                    warmed.add(kind)
                if problem.kind == "state":
                    clf = DialogueStateTracker(clf, slots=problem.slots)
                _reset_peak()
                start = time.process_time()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    clf.fit(problem.X, y_human, None if method == HUMAN_ONLY else y_llm)
                seconds = time.process_time() - start
                peak = _peak_megabytes()
                counts = counted(problem, clf.predict(problem.X_test), clf)
                yield Result(budget, seed, method, n_llm, counts, seconds, peak)


def _warm_up(clf: DialoguePreferenceClassifier, problem: Problem) -> None:
    rows = problem.X.iloc[:50]
    clf.fit(rows, np.resize(["a", "b"], len(rows)))
    for X in (problem.X, problem.X_test):
        clf.predict(X)


def counted(problem: Problem, predicted: np.ndarray, fitted) -> np.ndarray:
    labelled = known(problem.y_test)
    _, group = np.unique(problem.X_test["dialogue_id"].to_numpy()[labelled], return_inverse=True)
    truth, predicted = problem.y_test[labelled], predicted[labelled]
    if problem.kind == "state":
        # two "classes": whole states, and values
        pairs = list(zip(truth, predicted, strict=True))
        right = np.array([joint_goal_accuracy_score([one], [guess]) for one, guess in pairs])
        values = [sum(guess.get(slot) in one[slot] for slot in one) for one, guess in pairs]
        whole = np.ones(len(pairs))
        n_true = [len(one) for one, _ in pairs]
        n_predicted = [len(guess) for _, guess in pairs]
        table = np.stack([[right, values], [whole, n_predicted], [whole, n_true]]).swapaxes(1, 2)
    elif problem.kind == "labels":
        table = np.stack([truth * predicted, predicted, truth])
    else:
        classes = np.unique(np.concatenate([truth, predicted]).astype(str))
        guess, true = (y.astype(str)[:, None] == classes for y in (predicted, truth))
        table = np.stack([true & guess, guess, true]).astype(float)
    counts = np.zeros((group.max() + 1, 3, table.shape[2]))
    np.add.at(counts, group, table.swapaxes(0, 1))
    if problem.kind == "class":
        # classes differ from fit to fit: those nobody predicted count where they are true
        full = np.zeros((len(counts), 3, len(_all_classes(problem))))
        full[:, :, np.searchsorted(_all_classes(problem), classes)] = counts
        return full
    return counts


def _all_classes(problem: Problem) -> np.ndarray:
    labels = [y[known(y)].astype(str) for y in (problem.y, problem.y_test)]
    return np.unique(np.concatenate(labels))


def measures(kind: str, counts: np.ndarray) -> dict[str, np.ndarray]:
    """From counts of shape (..., 3, n_classes), each of shape (...)."""
    right, predicted, true = counts[..., 0, :], counts[..., 1, :], counts[..., 2, :]
    used = predicted + true
    f1 = np.divide(2 * right, used, out=np.full(used.shape, np.nan), where=used > 0)
    if kind == "state":
        return {"joint goal accuracy": right[..., 0] / true[..., 0], "slot F1": f1[..., 1]}
    macro = {"macro-F1": np.nanmean(f1, axis=-1)}
    if kind == "labels":
        return macro
    return {"accuracy": right.sum(axis=-1) / true.sum(axis=-1), **macro}


# -- memory -----------------------------------------------------------------------------------


def _reset_peak() -> None:
    """Linux begins to count the highest resident memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

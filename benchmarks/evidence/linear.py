"""Baselines with logistic regression on frozen features, from human labels, LLM labels or both."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import SelfTrainingClassifier

from .data import Cell
from .features import cell_features
from .head import folds, summed_log_loss

__all__ = ["LINEAR"]

GRID = np.logspace(-4, 1, 6)
MAX_ITER = 300


def weighted_rows(cell: Cell, human: bool, llm: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training rows, their classes and weights.

    Soft votes become a row for each class that was voted for, with its share as weight. With
    both, a row with a human label has that, and only that.
    """
    rows, codes, weights = [], [], []
    if human:
        rows.append(np.flatnonzero(cell.human))
        codes.append(cell.human_codes)
        weights.append(np.ones(cell.human.sum()))
    if llm:
        shares = np.nan_to_num(cell.shares)
        if human:
            shares[cell.human] = 0
        row, code = np.nonzero(shares)
        rows.append(row)
        codes.append(code)
        weights.append(shares[row, code])
    return np.concatenate(rows), np.concatenate(codes), np.concatenate(weights)


def all_classes(proba: np.ndarray, known: np.ndarray, n_classes: int) -> np.ndarray:
    """Probabilities of all classes: zero for those that were not in the training rows."""
    full = np.zeros((len(proba), n_classes))
    full[:, known] = proba
    return full


class ConstantClass:
    """Classifier for training rows of a single class, which scikit-learn refuses."""

    def __init__(self, code: int) -> None:
        self.classes_ = np.array([code])

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return np.ones((len(x), 1))


def fit_logistic(x: np.ndarray, codes: np.ndarray, weights: np.ndarray, grid) -> list:
    """A model for each C, each starting from the one before."""
    if len(np.unique(codes)) == 1:
        return [ConstantClass(codes[0])] * len(grid)
    models, start = [], None
    for c in grid:
        model = LogisticRegression(C=c, max_iter=MAX_ITER, tol=1e-3, warm_start=True)
        if start is not None:
            model.coef_, model.intercept_ = start.coef_.copy(), start.intercept_.copy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, codes, sample_weight=weights)
        models.append(model)
        start = model
    return models


def choose_c(cell: Cell, x: np.ndarray, human: bool, llm: bool) -> float:
    """C with the best log-loss on held-out human-labelled dialogues, pooled over folds.

    No label of a held-out row is used for training.
    """
    rows, codes, weights = weighted_rows(cell, human, llm)
    labelled, truth = np.flatnonzero(cell.human), cell.human_codes
    losses = np.zeros(len(GRID))
    for _, held_out in folds(cell.groups[labelled]):
        keep = ~np.isin(rows, labelled[held_out])
        models = fit_logistic(x[rows[keep]], codes[keep], weights[keep], GRID)
        for number, model in enumerate(models):
            proba = model.predict_proba(x[labelled[held_out]])
            proba = all_classes(proba, model.classes_, len(cell.classes))
            losses[number] += summed_log_loss(proba, truth[held_out])
    return float(GRID[losses.argmin()])


def logistic(human: bool, llm: bool):
    """Logistic regression on some of the labels."""

    def fit_predict(cell: Cell, seed: int) -> np.ndarray:
        x, evaluated = cell_features(cell, "sentence")
        rows, codes, weights = weighted_rows(cell, human, llm)
        c = choose_c(cell, x, human, llm)
        (model,) = fit_logistic(x[rows], codes, weights, [c])
        return all_classes(model.predict_proba(evaluated), model.classes_, len(cell.classes))

    return fit_predict


def cleanlab_union(cell: Cell, seed: int) -> np.ndarray:
    """CleanLearning on human labels and, where there is none, the LLMs' majority."""
    from cleanlab.classification import CleanLearning

    x, evaluated = cell_features(cell, "sentence")
    rows, codes = union_labels(cell)
    known, present = np.unique(codes, return_inverse=True)
    model = CleanLearning(
        LogisticRegression(C=choose_c(cell, x, True, True), max_iter=MAX_ITER),
        seed=seed,
        find_label_issues_kwargs={"n_jobs": 1},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x[rows], present)
    return all_classes(model.predict_proba(evaluated), known, len(cell.classes))


def union_labels(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """Labelled rows with one class each: the human one, else the majority of the votes."""
    codes = np.where(np.isnan(cell.shares[:, 0]), -1, np.nan_to_num(cell.shares).argmax(axis=1))
    codes[cell.human] = cell.human_codes
    rows = np.flatnonzero(codes >= 0)
    return rows, codes[rows]


def self_training(cell: Cell, seed: int) -> np.ndarray:
    """Logistic regression that labels the other training utterances itself; no LLM labels."""
    x, evaluated = cell_features(cell, "sentence")
    codes = np.full(len(x), -1)
    codes[cell.human] = cell.human_codes
    base = LogisticRegression(C=choose_c(cell, x, True, False), max_iter=MAX_ITER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SelfTrainingClassifier(base).fit(x, codes)
    return all_classes(model.predict_proba(evaluated), model.classes_, len(cell.classes))


LINEAR = {
    "lr_human": logistic(human=True, llm=False),
    "lr_llm": logistic(human=False, llm=True),
    "lr_union": logistic(human=True, llm=True),
    "cleanlab_union": cleanlab_union,
    "self_training": self_training,
}

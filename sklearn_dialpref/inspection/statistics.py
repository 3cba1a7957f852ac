"""The figures of a teacher report: how far its scores agree with human labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sklearn_dialpref._dialogues.validation import check_dialogues, codes_of, label_array
from sklearn_dialpref._labels.scores import kind_of_scores, vote_shares, votes_given
from sklearn_dialpref._labels.targets import Targets, canonical_order, check_targets
from sklearn_dialpref.metrics.pairs import ordered_pairs

__all__ = [
    "Evidence",
    "bootstrap",
    "both_labels",
    "decisions",
    "dialogue_components",
    "pair_statistics",
    "ratio",
    "reliability_bins",
    "sum_statistics",
    "vote_correlation",
    "vote_counts",
    "vote_statistics",
]

Floats = NDArray[np.float64]
Statistics = Callable[[Floats], dict[str, Floats]]
N_RESAMPLES = 1000
N_PERMUTATIONS = 999
CONFIDENCE = 0.95
_CHUNK = 2**20  # numbers held at once while resampling


@dataclass(frozen=True)
class Evidence:
    """The rows that a person and the LLM have both labelled, in an order of their own.

    Attributes
    ----------
    classes : ndarray of shape (K,)
    multilabel : bool
    row : ndarray of shape (n,), int64
        Their row numbers in the input.
    group : ndarray of shape (n,), int64
        Dialogue, 0 … D − 1.
    scores, truth : ndarray of shape (n, K), float64
        Score and human indicator (0 or 1) of each class; NaN in both where one is missing.
    """

    classes: NDArray[Any]
    multilabel: bool
    row: NDArray[np.int64]
    group: NDArray[np.int64]
    scores: Floats
    truth: Floats

    @property
    def n_dialogues(self) -> int:
        """How many dialogues the rows come from."""
        return int(self.group.max()) + 1


# -- input ----------------------------------------------------------------------------------


def both_labels(
    X: Any, y_human: Any, y_llm: Any, classes: Any = None
) -> tuple[Evidence, Targets, NDArray[np.int64]]:
    """Read the input; return the doubly labelled rows, all targets, and a code per dialogue.

    Neither the order nor the codes of the dialogues depend on the order of the rows.
    """
    for name, labels in (("y_human", y_human), ("y_llm", y_llm)):
        if labels is None:
            raise ValueError(
                f"{name} is None, but a teacher is judged by rows that carry a human and an LLM "
                "label; pass both, None or NaN where a row lacks one"
            )
    dialogues = check_dialogues(X)
    targets = check_targets(y_human, y_llm, len(dialogues), classes)
    assert targets.scores is not None
    # sums of float32, and the tolerance of the validation, may leave [0, 1] by a hair
    scores = np.clip(targets.scores.astype(np.float64), 0, 1)
    if targets.multilabel:
        truth = targets.human.astype(np.float64)
    else:
        human = targets.human[:, None]
        truth = np.where(human < 0, np.nan, human == np.arange(len(targets.classes)))
    known = ~(np.isnan(scores) | np.isnan(truth))
    if not known.any():
        raise ValueError(
            f"no row carries both a human and an LLM label: {targets.has_human.sum()} of "
            f"{len(dialogues)} rows have a human one, {targets.has_score.sum()} an LLM one; label "
            "some of the same utterances"
        )
    order = canonical_order(dialogues, targets)
    code = np.empty(len(order), dtype=np.int64)
    code[order] = dialogues.group[order] if dialogues.has_dialogues else np.arange(len(order))
    row = order[known[order].any(axis=1)]
    scores, truth = (np.where(known, table, np.nan)[row] for table in (scores, truth))
    group = codes_of(code[row])
    return Evidence(targets.classes, targets.multilabel, row, group, scores, truth), targets, code


def vote_counts(y_llm: Any, targets: Targets) -> Floats | None:
    """How many votes each row has for each class, (n, K); None unless there are several a row."""
    llm = label_array(y_llm)
    several = not targets.multilabel and llm.ndim == 2 and llm.shape[1] > 1
    if not several or kind_of_scores(llm) != "votes":
        return None
    given = votes_given(llm)[1].sum(axis=1)
    counts = np.rint(np.nan_to_num(vote_shares(llm, targets.classes)) * given[:, None])
    return counts if (given > 1).any() else None


# -- intervals ------------------------------------------------------------------------------


def bootstrap(
    statistics: Statistics, n_dialogues: int, n_rows: int, rng: np.random.RandomState
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Each statistic on the data, and its percentile interval over resampled dialogues.

    ``statistics`` takes how often each dialogue counts, of shape (draws, dialogues), and
    returns each figure with a row per draw. With one dialogue there is nothing to resample: NaN.
    """
    estimate = {name: rows[0] for name, rows in statistics(np.ones((1, n_dialogues))).items()}
    if n_dialogues < 2:
        return estimate, {
            name: np.full((*np.shape(value), 2), np.nan) for name, value in estimate.items()
        }
    size = max(1, _CHUNK // max(n_rows, n_dialogues))
    # rows of a dialogue depend on each other, so whole dialogues are drawn: with replacement,
    # which is a multinomial count of each
    draws = [
        statistics(
            rng.multinomial(
                n_dialogues,
                np.full(n_dialogues, 1 / n_dialogues),
                size=min(size, N_RESAMPLES - done),
            ).astype(np.float64)
        )
        for done in range(0, N_RESAMPLES, size)
    ]
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    intervals = {}
    for name in estimate:
        drawn = np.concatenate([chunk[name] for chunk in draws])
        intervals[name] = np.moveaxis(_quantiles(drawn, tails), 0, -1)
    return estimate, intervals


def _quantiles(drawn: Floats, tails: list[float]) -> Floats:
    """Quantiles over the draws that are defined; NaN where none is."""
    columns = drawn.reshape(len(drawn), -1)
    result = np.full((len(tails), columns.shape[1]), np.nan)
    for index, column in enumerate(columns.T):
        if (defined := column[~np.isnan(column)]).size:
            result[:, index] = np.quantile(defined, tails)
    return result.reshape(len(tails), *drawn.shape[1:])


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide; NaN where there is nothing to divide by."""
    undefined = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 1e-9)


def _mean_defined(table: Floats) -> Floats:
    """Mean over the last axis of what is not NaN."""
    defined = ~np.isnan(table)
    count = defined.sum(axis=-1, dtype=np.float64)
    return ratio(np.where(defined, table, 0.0).sum(axis=-1), count)


def _sums(table: Floats, group: NDArray[np.int64], n_dialogues: int) -> Floats:
    """Sum the rows of each dialogue, missing entries as 0."""
    return np.asarray(_membership(group, n_dialogues) @ np.nan_to_num(table))


def _membership(group: NDArray[np.int64], n_dialogues: int) -> csr_array:
    """1 where a row (column) is of a dialogue (row)."""
    places = (group, np.arange(len(group)))
    return csr_array((np.ones(len(group)), places), shape=(n_dialogues, len(group)))


# -- labels ---------------------------------------------------------------------------------


def decisions(
    evidence: Evidence,
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_]]:
    """The confidence of each decision, whether it was right, its dialogue; the classes given.

    One decision a row, or one for each known label of a multilabel row. The last array
    is the (n, K) table of the classes that the teacher gives.
    """
    scores, truth = evidence.scores, evidence.truth
    if evidence.multilabel:
        known, predicted = ~np.isnan(scores), scores > 0.5
        confidence = np.maximum(scores, 1 - scores)[known]
        group = np.broadcast_to(evidence.group[:, None], known.shape)[known]
        return confidence, (predicted == (truth == 1))[known], group, predicted
    top = scores.argmax(axis=1)
    predicted = top[:, None] == np.arange(scores.shape[1])
    right = truth[np.arange(len(top)), top] == 1
    return scores.max(axis=1), right, evidence.group, predicted


def sum_statistics(evidence: Evidence) -> Statistics:
    """Accuracy, macro-F1, confidence and class bias, from sums over dialogues."""
    confidence, right, group, predicted = decisions(evidence)
    known, truth = ~np.isnan(evidence.truth), evidence.truth
    frequent = np.nansum(truth, axis=0)
    if evidence.multilabel:
        baseline = (truth == (frequent > known.sum(axis=0) / 2))[known]
    else:
        baseline = truth[:, frequent.argmax()] == 1
    columns = np.column_stack([right, baseline, confidence, np.ones(len(right))])
    per_decision = _sums(columns.astype(np.float64), group, evidence.n_dialogues)
    hit = (truth == 1) & predicted
    tables = [hit, predicted & known, truth, evidence.scores, known]
    per_class = _sums(np.hstack(tables).astype(float), evidence.group, evidence.n_dialogues)

    def statistics(weights: Floats) -> dict[str, Floats]:
        n_right, n_baseline, confidence_sum, n = (weights @ per_decision).T
        hits, answers, humans, score, rows = np.split(weights @ per_class, 5, axis=1)
        accuracy, teacher, human = n_right / n, ratio(score, rows), ratio(humans, rows)
        return {
            "accuracy": accuracy,
            "macro_f1": _mean_defined(ratio(2 * hits, answers + humans)),
            "majority_accuracy": n_baseline / n,
            "accuracy_gain": (n_right - n_baseline) / n,
            "overconfidence": confidence_sum / n - accuracy,
            "teacher_share": teacher,
            "human_share": human,
            "class_bias": teacher - human,
        }

    return statistics


def reliability_bins(
    confidence: Floats, right: NDArray[np.bool_], n_bins: int
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Mean confidence, share right and number of the decisions in bins of equal width."""
    edges = np.linspace(0, 1, n_bins + 1)[1:-1]
    # as in expected_calibration_error; rounded, since the nearest float32 to 0.8 is above 0.8
    place = np.searchsorted(edges, confidence.round(6))
    count = np.bincount(place, minlength=n_bins)
    confidence_sum, hits = (
        np.bincount(place, weights=weights, minlength=n_bins).astype(np.float64)
        for weights in (confidence, right.astype(np.float64))
    )
    size = count.astype(np.float64)
    return ratio(confidence_sum, size), ratio(hits, size), count


# -- dialogues ------------------------------------------------------------------------------


def dialogue_components(
    evidence: Evidence, rng: np.random.RandomState
) -> tuple[Floats, Floats, Floats, float]:
    """Between- and within-dialogue variance and p-value of each class, and one p-value for all.

    Residuals are scores minus the mean score of the rows with the same human label: what a
    dialogue's mix of classes does to its mean is not a bias of the dialogue.
    """
    n_classes = len(evidence.classes)
    if not evidence.multilabel:
        human = evidence.truth.argmax(axis=1)
        return _components(evidence.scores, human, evidence.group, rng)
    parts = []
    for label in range(n_classes):
        known = ~np.isnan(evidence.truth[:, label])
        parts.append(
            _components(
                evidence.scores[known][:, [label]],
                evidence.truth[known, label].astype(np.int64),
                evidence.group[known],
                rng,
            )
        )
    between, within, p = (np.concatenate([part[figure] for part in parts]) for figure in range(3))
    # each label has rows of its own and is tested on its own: Bonferroni over the labels
    tested = p[~np.isnan(p)]
    overall = min(1.0, float(tested.min()) * len(tested)) if len(tested) else float("nan")
    return between, within, p, overall


def _components(
    scores: Floats, human: NDArray[np.int64], group: NDArray[np.int64], rng: np.random.RandomState
) -> tuple[Floats, Floats, Floats, float]:
    n, n_columns = scores.shape
    order = np.argsort(human, kind="stable")
    scores, human = scores[order], codes_of(human[order])
    group = codes_of(group[order])
    size = np.bincount(group).astype(np.float64)
    n_dialogues = len(size)
    undefined = np.full(n_columns, np.nan)
    if n_dialogues < 2 or n_dialogues == n:
        return undefined, undefined, undefined, float("nan")
    means = _sums(scores, human, int(human.max()) + 1) / np.bincount(human)[:, None]
    # less the mean of its human label: a dialogue's mix of classes is no bias of the teacher
    residual = scores - means[human]
    member = _membership(group, n_dialogues)

    def between_squares(values: Floats) -> Floats:
        return np.asarray((np.asarray(member @ values) ** 2 / size[:, None]).sum(axis=0))

    observed, total = between_squares(residual), (residual**2).sum(axis=0)
    within = np.maximum(total - observed, 0) / (n - n_dialogues)
    # n_0 of the random-effects model, which is the common size where dialogues are equally long
    typical_size = (n - (size**2).sum() / n) / (n_dialogues - 1)
    between = np.maximum(0, (observed / (n_dialogues - 1) - within) / typical_size)
    # under the null hypothesis that dialogues do not matter, rows with the same human label are
    # exchangeable; argsort of the label plus noise below 1 shuffles within each label
    exceeded, exceeded_all = np.zeros(n_columns), 0
    for _ in range(N_PERMUTATIONS):
        shuffled = between_squares(residual[np.argsort(human + rng.uniform(size=n))])
        exceeded += shuffled >= observed - 1e-12
        exceeded_all += int(shuffled.sum() >= observed.sum() - 1e-12)
    erring = total > 1e-12
    p = np.where(erring, (1 + exceeded) / (1 + N_PERMUTATIONS), np.nan)
    overall = (1 + exceeded_all) / (1 + N_PERMUTATIONS) if erring.any() else float("nan")
    return between, within, p, overall


# -- pairs ----------------------------------------------------------------------------------


def pair_statistics(evidence: Evidence) -> Statistics:
    """Pair accuracy of each class inside and across dialogues, exact, in linear memory.

    Across dialogues: all pairs, counted by ranks, less those inside.
    """
    columns = [
        _PairColumn(evidence.truth[:, c], evidence.scores[:, c], evidence.group)
        for c in range(len(evidence.classes))
    ]

    def statistics(weights: Floats) -> dict[str, Floats]:
        inside = np.stack([column.inside(weights) for column in columns], axis=1)
        across = np.stack([column.across(weights) for column in columns], axis=1)
        return {
            "class_inside": inside,
            "class_across": across,
            "inside": _mean_defined(inside),
            "across": _mean_defined(across),
            "difference": _mean_defined(inside - across),
        }

    return statistics


class _PairColumn:
    """The pairs of one class, counted under any weights of the dialogues."""

    def __init__(self, truth: Floats, score: Floats, group: NDArray[np.int64]) -> None:
        self.right, self.pairs = ordered_pairs(truth, score, group)
        known = np.flatnonzero(~np.isnan(truth))
        order = known[np.argsort(score[known], kind="stable")]
        ranked = score[order]
        self.group, self.positive = group[order], truth[order] == 1
        self.first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]][: len(order)])

    def inside(self, weights: Floats) -> Floats:
        return ratio(weights @ self.right, weights @ self.pairs)

    def across(self, weights: Floats) -> Floats:
        if not len(self.first):
            return np.full(len(weights), np.nan)
        each = weights[:, self.group]
        total = np.add.reduceat(each, self.first, axis=1)
        positive = np.add.reduceat(each * self.positive, self.first, axis=1)
        negative = total - positive
        # a positive ranks above each negative with a lower score, and half above one that ties
        below = np.cumsum(negative, axis=1) - negative
        right = (positive * (below + negative / 2)).sum(axis=1)
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        # two copies of a drawn dialogue make no pairs across: w² of its pairs are inside
        return ratio(right - weights**2 @ self.right, pairs - weights**2 @ self.pairs)


# -- votes ----------------------------------------------------------------------------------


def vote_statistics(counts: Floats, group: NDArray[np.int64]) -> Statistics:
    """Mean pairwise agreement and Krippendorff's alpha (nominal) of rows with several votes."""
    given = counts.sum(axis=1)
    # each row weighs its pairs by 1 / (votes - 1), so that each vote counts once in alpha
    coinciding = (counts * (counts - 1)).sum(axis=1) / (given - 1)
    table = np.column_stack([coinciding / given, np.ones(len(given)), coinciding, counts])
    sums = _sums(table, group, int(group.max()) + 1)

    def statistics(weights: Floats) -> dict[str, Floats]:
        agreement, rows, same, *votes = (weights @ sums).T
        n, squares = np.sum(votes, axis=0), np.sum(np.square(votes), axis=0)
        disagreement = ratio((n - 1) * (n - same), n**2 - squares)
        return {"agreement": agreement / rows, "alpha": 1 - disagreement}

    return statistics


def vote_correlation(counts: Floats, human: NDArray[np.int64]) -> float:
    """How far two votes on a row agree beyond what its human label explains, 1 if fully.

    NaN where the human label explains all votes.
    """
    given = counts.sum(axis=1)
    observed = ((counts * (counts - 1)).sum(axis=1) / (given * (given - 1))).mean()
    by_human = _sums(counts, human, int(human.max()) + 1)
    share = ratio(by_human, by_human.sum(axis=1, keepdims=True))
    # two votes drawn independently, given the human label, agree with probability sum of p²
    expected = (share**2).sum(axis=1)[human].mean()
    return float((observed - expected) / (1 - expected)) if expected < 1 - 1e-9 else float("nan")

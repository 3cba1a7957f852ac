"""Is the teacher biased, are its pairs cleaner than its labels, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from . import _teacher_statistics as statistics
from ._inspection_displays import ReliabilityDisplay, TeacherConfusionDisplay, to_pandas
from ._label_budget import LabelBudgetCurve, LabelBudgetDisplay, label_budget_curve
from ._pair_display import PairMarginDisplay
from ._targets import Targets
from ._teacher_advice import advice, span
from .metrics import expected_calibration_error

__all__ = [
    "LabelBudgetCurve",
    "LabelBudgetDisplay",
    "PairMarginDisplay",
    "ReliabilityDisplay",
    "TeacherConfusionDisplay",
    "TeacherReport",
    "label_budget_curve",
    "teacher_report",
]

_N_BINS = 15
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TeacherReport:
    """What :func:`teacher_report` found; ``print(report)`` shows it as text.

    An attribute ``…_interval`` is the 95 % bootstrap interval over dialogues of the one before
    it, low and high in its last axis. NaN is what the data cannot say.

    Attributes
    ----------
    classes : ndarray of shape (K,)
        Classes, or the labels of a multilabel problem.
    multilabel : bool
    n_rows, n_dialogues : int
        Rows that carry both labels, and their dialogues.
    accuracy, macro_f1 : float
        Of the teacher's top class against humans; multilabel: share of right decisions, a label
        being given above 0.5, and the mean F1 of the labels. A class that neither gives has no F1.
    accuracy_interval, macro_f1_interval : ndarray of shape (2,)
    majority_accuracy : float
        Accuracy of always answering the most frequent human class.
    accuracy_gain_interval : ndarray of shape (2,)
        Of accuracy − majority_accuracy.
    teacher_share, human_share, class_bias : ndarray of shape (K,)
        Mean score, share of the human labels, and the former minus the latter.
    class_bias_interval : ndarray of shape (K, 2)
    between_variance, within_variance : ndarray of shape (K,)
        Variance of the score errors between and within dialogues.
    class_icc, class_dialogue_pvalue : ndarray of shape (K,)
        Their share between dialogues, and the permutation p-value of none.
    dialogue_icc, dialogue_bias_pvalue : float
        The same for all classes together.
    calibration_error : float
        Expected calibration error in 15 bins.
    overconfidence : float
        Mean top score minus accuracy.
    overconfidence_interval : ndarray of shape (2,)
    reliability_confidence, reliability_accuracy, reliability_count : ndarray of shape (15,)
        Mean top score, share right and number of the decisions in each bin of [0, 1].
    pair_accuracy_inside, pair_accuracy_across : float
        Share of the pairs inside a dialogue, and across dialogues, that are ordered rightly;
        mean over classes.
    pair_accuracy_inside_interval, pair_accuracy_across_interval : ndarray of shape (2,)
    pair_accuracy_difference : float
        Inside − across, mean over the classes that have both.
    pair_accuracy_difference_interval : ndarray of shape (2,)
    class_pair_accuracy_inside, class_pair_accuracy_across : ndarray of shape (K,)
    n_voted_rows : int
        Rows with two votes or more, labelled by humans or not; 0 where `y_llm` holds no votes.
    votes_per_row : float
        Their mean number.
    vote_agreement : float
        Share of the pairs of votes on a row that agree, mean over rows.
    vote_agreement_interval : ndarray of shape (2,)
    vote_alpha : float
        Krippendorff's alpha of nominal labels: 1 is full agreement, 0 is chance.
    vote_alpha_interval : ndarray of shape (2,)
    vote_correlation, effective_votes : float
        How far votes on a row agree beyond what its human label explains, and the number of
        votes without such correlation that would be worth as much.
    vote_level, vote_level_accuracy, vote_level_count : ndarray of shape (n_levels,)
        Share of the votes that the top class has, accuracy there, and rows.
    advice : tuple of str
        What to do, each sentence with its figure.
    """

    classes: NDArray[Any]
    multilabel: bool
    n_rows: int
    n_dialogues: int
    accuracy: float
    accuracy_interval: Floats
    macro_f1: float
    macro_f1_interval: Floats
    majority_accuracy: float
    accuracy_gain_interval: Floats
    teacher_share: Floats
    human_share: Floats
    class_bias: Floats
    class_bias_interval: Floats
    between_variance: Floats
    within_variance: Floats
    class_icc: Floats
    class_dialogue_pvalue: Floats
    dialogue_icc: float
    dialogue_bias_pvalue: float
    calibration_error: float
    overconfidence: float
    overconfidence_interval: Floats
    reliability_confidence: Floats
    reliability_accuracy: Floats
    reliability_count: NDArray[np.int64]
    pair_accuracy_inside: float
    pair_accuracy_inside_interval: Floats
    pair_accuracy_across: float
    pair_accuracy_across_interval: Floats
    pair_accuracy_difference: float
    pair_accuracy_difference_interval: Floats
    class_pair_accuracy_inside: Floats
    class_pair_accuracy_across: Floats
    n_voted_rows: int
    votes_per_row: float
    vote_agreement: float
    vote_agreement_interval: Floats
    vote_alpha: float
    vote_alpha_interval: Floats
    vote_correlation: float
    effective_votes: float
    vote_level: Floats
    vote_level_accuracy: Floats
    vote_level_count: NDArray[np.int64]
    advice: tuple[str, ...] = ()

    def frame(self) -> Any:
        """The figures of each class as a table.

        Returns
        -------
        pandas.DataFrame of K rows
            Index ``class``; shares, bias with its interval, dialogue bias, pair accuracy.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return to_pandas(self._columns(), self.classes.tolist(), "class")

    def _columns(self) -> dict[str, Floats]:
        return {
            "teacher_share": self.teacher_share,
            "human_share": self.human_share,
            "bias": self.class_bias,
            "bias_low": self.class_bias_interval[:, 0],
            "bias_high": self.class_bias_interval[:, 1],
            "icc": self.class_icc,
            "dialogue_pvalue": self.class_dialogue_pvalue,
            "pairs_inside": self.class_pair_accuracy_inside,
            "pairs_across": self.class_pair_accuracy_across,
        }

    def __str__(self) -> str:
        lines = [
            f"Teacher against humans: {self.n_rows} rows of {self.n_dialogues} dialogues carry "
            "both labels (in brackets: 95 % intervals over dialogues)",
            "",
            f"accuracy            {self.accuracy:.2f} ({span(self.accuracy_interval)}), always "
            f"the most frequent class {self.majority_accuracy:.2f}",
            f"macro-F1            {self.macro_f1:.2f} ({span(self.macro_f1_interval)})",
            f"calibration error   {self.calibration_error:.2f}, scores minus accuracy "
            f"{self.overconfidence:+.2f} ({span(self.overconfidence_interval, '+')})",
            f"dialogue bias       {self.dialogue_icc:.2f} of the variance of errors, "
            f"p = {self.dialogue_bias_pvalue:.3f}",
            f"pairs inside        {self.pair_accuracy_inside:.2f} "
            f"({span(self.pair_accuracy_inside_interval)})",
            f"pairs across        {self.pair_accuracy_across:.2f} "
            f"({span(self.pair_accuracy_across_interval)}), inside minus across "
            f"{self.pair_accuracy_difference:+.2f} "
            f"({span(self.pair_accuracy_difference_interval, '+')})",
        ]
        if self.n_voted_rows:
            lines += [
                f"votes               {self.votes_per_row:.1f} on each of {self.n_voted_rows} "
                f"rows, worth {self.effective_votes:.1f} independent ones",
                f"vote agreement      {self.vote_agreement:.2f} "
                f"({span(self.vote_agreement_interval)}), Krippendorff's alpha "
                f"{self.vote_alpha:.2f} ({span(self.vote_alpha_interval)})",
            ]
        return "\n".join([*lines, "", *self._table(), "", *(f"- {said}" for said in self.advice)])

    def _table(self) -> list[str]:
        columns = self._columns()
        names = [str(name) for name in self.classes]
        width = max(len("class"), *map(len, names))
        head = " ".join(f"{name:>{max(7, len(name))}}" for name in columns)
        rows = [f"{'class':<{width}} {head}"]
        for name, values in zip(names, zip(*columns.values(), strict=True), strict=True):
            cells = (
                f"{value:>{max(7, len(column))}.{3 if column.endswith('pvalue') else 2}f}"
                for column, value in zip(columns, values, strict=True)
            )
            rows.append(f"{name:<{width}} {' '.join(cells)}")
        return rows


def teacher_report(
    X: Any,
    y_human: Any,
    y_llm: Any,
    *,
    classes: Any = None,
    budget_curve: LabelBudgetCurve | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> TeacherReport:
    r"""Judge the LLM's labels by the rows that a human has labelled too.

    Is the teacher right, is it biased towards a class or through a dialogue, are its scores
    calibrated, does it order pairs inside a dialogue better than pairs across, do its votes say
    more than one of them: figures, intervals, and advice in words.

    Parameters
    ----------
    X : DataFrame, ndarray or sequence of str, of n rows
        The utterances, in any form that the estimator accepts; only their dialogues matter.
    y_human : array-like of shape (n,) or (n, L)
        Human labels; missing is None, NaN or ``pd.NA``. 2-D: 0, 1 or missing for each of L labels
        (multilabel), each then judged on its own.
    y_llm : array-like of shape (n,), (n, A) or (n, K)
        Labels, votes of A prompts, or float scores, missing ones alike.
    classes : array-like of shape (K,), default=None
        All classes; by default those found.
    budget_curve : LabelBudgetCurve, default=None
        From :func:`label_budget_curve`, for advice on more labels. No student is trained here.
    random_state : int, RandomState instance or None, default=None
        Seed of the resampled dialogues and of the permutations.

    Returns
    -------
    report : TeacherReport
        ``print(report)`` shows it, ``report.advice`` is the advice, ``report.frame()`` a table.

    Raises
    ------
    ValueError
        If no row carries both labels, or labels do not fit.

    See Also
    --------
    TeacherConfusionDisplay, ReliabilityDisplay, PairMarginDisplay : Plots of the same rows.
    label_budget_curve : What fewer labels cost.

    Notes
    -----
    Intervals hold the middle 95 % of 1000 samples of whole dialogues, drawn with replacement
    (the percentile bootstrap over clusters [1]_). Each is for its own figure: of 20 biases that
    are nil, one is expected to exclude 0.

    **Dialogue bias.** The error of row i for class c is its score minus the mean score of the rows
    with the same human label. The one-way random-effects model for D dialogues of
    :math:`n_d` rows, N in all, estimates [2]_

    .. math:: \sigma_w^2 = \frac{\sum_{d, i} (r_i - \bar r_d)^2}{N - D}, \quad
        \sigma_b^2 = \max\Bigl(0, \frac{\mathrm{MS}_b - \sigma_w^2}{n_0}\Bigr), \quad
        n_0 = \frac{N - \sum_d n_d^2 / N}{D - 1}

    with :math:`\mathrm{MS}_b = \sum_d n_d \bar r_d^2 / (D - 1)`. The share between dialogues,
    :math:`\sigma_b^2 / (\sigma_b^2 + \sigma_w^2)`, is what pairs inside a dialogue remove from the
    variance of an error difference, compared with pairs across. The p-value is the share of 999
    permutations of errors among rows with the same human label whose variance between dialogues is
    as large. For multilabel data the common p-value is the least one times the number of labels.

    **Pairs.** As in :func:`pairwise_accuracy_score`, and across dialogues all pairs less those
    inside, counted exactly by ranks.

    **Votes.** Rows with fewer than two votes are left out. With :math:`n_{ic}` votes for class c
    among :math:`m_i` on row i the agreement is the mean of
    :math:`A_i = \sum_c n_{ic} (n_{ic} - 1) / (m_i (m_i - 1))`; alpha is that of [3]_. On rows with
    a human label h, the agreement that votes independent given h would have is the mean of
    :math:`E_i = \sum_c p_{c | h(i)}^2`; the correlation is
    :math:`\rho = (\bar A - \bar E) / (1 - \bar E)`, and m votes are worth
    :math:`m / (1 + (m - 1) \max(\rho, 0))`. Errors in human labels raise it.

    **Advice** follows fixed rules on these figures, whose thresholds the user guide lists.

    References
    ----------
    .. [1] Davison and Hinkley, "Bootstrap methods and their application", section 3.8 (1997).
    .. [2] Searle, Casella and McCulloch, "Variance components", section 3.6 (1992).
    .. [3] Krippendorff, "Content analysis", chapter on reliability (2004).

    Examples
    --------
    >>> from sklearn_dialpref import teacher_report
    >>> from sklearn_dialpref.datasets import load_support_chats
    >>> data = load_support_chats(n_human=300)
    >>> report = teacher_report(data.X, data.y_human, data.y_llm, random_state=0)
    >>> report.n_rows, report.n_dialogues
    (304, 29)
    >>> bool(report.accuracy > report.majority_accuracy)
    True
    """
    if budget_curve is not None and not isinstance(budget_curve, LabelBudgetCurve):
        raise TypeError(
            f"budget_curve must be a LabelBudgetCurve, got {type(budget_curve).__name__}; make it "
            "with label_budget_curve"
        )
    evidence, targets, dialogue = statistics.both_labels(X, y_human, y_llm, classes)
    rng = check_random_state(random_state)
    figures: dict[str, Any] = {
        "classes": evidence.classes,
        "multilabel": evidence.multilabel,
        "n_rows": len(evidence.row),
        "n_dialogues": evidence.n_dialogues,
        **_label_figures(evidence, rng),
        **_dialogue_figures(evidence, rng),
        **_pair_figures(evidence, rng),
        **_vote_figures(evidence, targets, dialogue, y_llm, rng),
    }
    report = TeacherReport(**figures)
    return replace(report, advice=advice(report, budget_curve))


def _plain(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else value


def _label_figures(evidence: statistics.Evidence, rng: np.random.RandomState) -> dict[str, Any]:
    estimate, interval = statistics.bootstrap(
        statistics.sum_statistics(evidence), evidence.n_dialogues, 0, rng
    )
    gain = interval.pop("accuracy_gain")
    del estimate["accuracy_gain"]
    kept = ("accuracy", "macro_f1", "overconfidence", "class_bias")
    confidence, right, _, _ = statistics.decisions(evidence)
    bins = statistics.reliability_bins(confidence, right, _N_BINS)
    if evidence.multilabel:
        known = ~np.isnan(evidence.truth)
        truth, scores, codes = evidence.truth[known], evidence.scores[known], [0.0, 1.0]
    else:
        truth, scores = evidence.truth.argmax(axis=1), evidence.scores
        codes = list(range(len(evidence.classes)))
    return {
        **{name: _plain(value) for name, value in estimate.items()},
        **{f"{name}_interval": interval[name] for name in kept},
        "accuracy_gain_interval": gain,
        "calibration_error": expected_calibration_error(
            truth, scores.round(6), n_bins=_N_BINS, classes=codes
        ),
        "reliability_confidence": bins[0],
        "reliability_accuracy": bins[1],
        "reliability_count": bins[2],
    }


def _dialogue_figures(evidence: statistics.Evidence, rng: np.random.RandomState) -> dict[str, Any]:
    between, within, p, overall = statistics.dialogue_components(evidence, rng)

    def share(b: Any, w: Any) -> Any:
        total = np.asarray(b + w)
        return np.divide(b, total, out=np.full(total.shape, np.nan), where=total > 1e-12)

    return {
        "between_variance": between,
        "within_variance": within,
        "class_icc": share(between, within),
        "class_dialogue_pvalue": p,
        "dialogue_icc": float(share(np.nansum(between), np.nansum(within))),
        "dialogue_bias_pvalue": overall,
    }


def _pair_figures(evidence: statistics.Evidence, rng: np.random.RandomState) -> dict[str, Any]:
    estimate, interval = statistics.bootstrap(
        statistics.pair_statistics(evidence), evidence.n_dialogues, len(evidence.row), rng
    )
    figures: dict[str, Any] = {}
    for name in ("inside", "across", "difference"):
        figures[f"pair_accuracy_{name}"] = float(estimate[name])
        figures[f"pair_accuracy_{name}_interval"] = interval[name]
    figures["class_pair_accuracy_inside"] = estimate["class_inside"]
    figures["class_pair_accuracy_across"] = estimate["class_across"]
    return figures


def _vote_figures(
    evidence: statistics.Evidence,
    targets: Targets,
    dialogue: NDArray[np.int64],
    y_llm: Any,
    rng: np.random.RandomState,
) -> dict[str, Any]:
    counts, nothing = statistics.vote_counts(y_llm, targets), float("nan")
    figures: dict[str, Any] = {
        "n_voted_rows": 0,
        "votes_per_row": nothing,
        "vote_agreement": nothing,
        "vote_agreement_interval": np.full(2, np.nan),
        "vote_alpha": nothing,
        "vote_alpha_interval": np.full(2, np.nan),
        "vote_correlation": nothing,
        "effective_votes": nothing,
        "vote_level": np.empty(0),
        "vote_level_accuracy": np.empty(0),
        "vote_level_count": np.empty(0, dtype=np.int64),
    }
    if counts is None:
        return figures
    several = counts.sum(axis=1) > 1
    group = np.unique(dialogue[several], return_inverse=True)[1]
    estimate, interval = statistics.bootstrap(
        statistics.vote_statistics(counts[several], group), int(group.max()) + 1, 0, rng
    )
    figures["n_voted_rows"] = int(several.sum())
    figures["votes_per_row"] = m = float(counts[several].sum(axis=1).mean())
    for name in ("agreement", "alpha"):
        figures[f"vote_{name}"] = float(estimate[name])
        figures[f"vote_{name}_interval"] = interval[name]
    if (judged := several[evidence.row]).any():
        voted, truth = counts[evidence.row][judged], evidence.truth[judged]
        rho = statistics.vote_correlation(voted, truth.argmax(axis=1))
        figures["vote_correlation"] = rho
        figures["effective_votes"] = m / (1 + (m - 1) * max(rho, 0.0))
        share = (voted.max(axis=1) / voted.sum(axis=1)).round(2)
        level, place = np.unique(share, return_inverse=True)
        right = truth[np.arange(len(truth)), evidence.scores[judged].argmax(axis=1)]
        figures["vote_level"], figures["vote_level_count"] = level, np.bincount(place)
        figures["vote_level_accuracy"] = np.bincount(place, weights=right) / np.bincount(place)
    return figures

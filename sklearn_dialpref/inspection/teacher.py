"""The report on a teacher: its errors, its biases, and what to do about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from sklearn_dialpref._labels.targets import Targets
from sklearn_dialpref.metrics.calibration import expected_calibration_error

from . import statistics
from .advice import advice
from .label_budget import LabelBudgetCurve
from .report import TeacherReport

__all__ = ["teacher_report"]

_N_BINS = 15


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

    The report says how often the teacher is right, whether it is biased towards a class or
    through a dialogue, whether its scores are calibrated, whether it orders pairs inside a
    dialogue better than pairs across dialogues, and how many independent votes its votes are
    worth. It gives figures, intervals, and advice in words.

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
    (the percentile bootstrap over clusters [1]_). They are not corrected for multiple figures:
    where there is no bias, one interval in 20 is still expected to exclude 0.

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
    at least as large. For multilabel data the common p-value is the smallest times the number of
    labels (Bonferroni).

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
    with_interval = ("accuracy", "macro_f1", "overconfidence", "class_bias")
    confidence, right, _, _ = statistics.decisions(evidence)
    bins = statistics.reliability_bins(confidence, right, _N_BINS)
    if evidence.multilabel:
        known = ~np.isnan(evidence.truth)
        # each known label is a decision of its own between no (0) and yes (1)
        truth, scores, codes = evidence.truth[known], evidence.scores[known], [0.0, 1.0]
    else:
        truth, scores = evidence.truth.argmax(axis=1), evidence.scores
        codes = list(range(len(evidence.classes)))
    return {
        **{name: _plain(value) for name, value in estimate.items()},
        **{f"{name}_interval": interval[name] for name in with_interval},
        "accuracy_gain_interval": gain,
        # rounded as in reliability_bins, so that the error is that of the bins in the report
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
    counts, undefined = statistics.vote_counts(y_llm, targets), float("nan")
    figures: dict[str, Any] = {
        "n_voted_rows": 0,
        "votes_per_row": undefined,
        "vote_agreement": undefined,
        "vote_agreement_interval": np.full(2, np.nan),
        "vote_alpha": undefined,
        "vote_alpha_interval": np.full(2, np.nan),
        "vote_correlation": undefined,
        "effective_votes": undefined,
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
    figures["votes_per_row"] = n_votes = float(counts[several].sum(axis=1).mean())
    for name in ("agreement", "alpha"):
        figures[f"vote_{name}"] = float(estimate[name])
        figures[f"vote_{name}_interval"] = interval[name]
    if (judged := several[evidence.row]).any():
        voted, truth = counts[evidence.row][judged], evidence.truth[judged]
        rho = statistics.vote_correlation(voted, truth.argmax(axis=1))
        figures["vote_correlation"] = rho
        # the design effect of a cluster sample whose members correlate by rho
        figures["effective_votes"] = n_votes / (1 + (n_votes - 1) * max(rho, 0.0))
        # rows with other numbers of votes share a level if they agree to two digits
        share = (voted.max(axis=1) / voted.sum(axis=1)).round(2)
        level, bin_of_row = np.unique(share, return_inverse=True)
        right = truth[np.arange(len(truth)), evidence.scores[judged].argmax(axis=1)]
        figures["vote_level"], figures["vote_level_count"] = level, np.bincount(bin_of_row)
        figures["vote_level_accuracy"] = np.bincount(bin_of_row, weights=right) / np.bincount(
            bin_of_row
        )
    return figures

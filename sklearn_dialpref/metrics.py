"""Scores for labels of which some are missing, for orderings and for probabilities."""

from __future__ import annotations

import copy
import functools
import inspect
import warnings
from collections.abc import Callable
from numbers import Integral
from typing import Any, Literal

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import get_scorer, make_scorer
from sklearn.utils import check_array, check_consistent_length, check_scalar, get_tags
from sklearn.utils.metadata_routing import get_routing_for_object

from ._state_metrics import joint_goal_accuracy_score as joint_goal_accuracy_score
from ._state_metrics import slot_f1_score as slot_f1_score
from ._validation import codes_of, indicator_table, is_missing, label_array

_RESPONSES = ("predict", "predict_proba", "predict_log_proba", "decision_function")


def masked_scorer(
    scoring: str | Callable[..., Any],
    *,
    response_method: str | list[str] | tuple[str, ...] = "predict",
    greater_is_better: bool = True,
    **kwargs: Any,
) -> MaskedScorer:
    r"""Make a scorer that scores only the rows that have a human label.

    The estimator predicts all rows that it is given, since an utterance can need the unlabelled
    ones before it; the rows without a label are dropped after that. With multilabel `y` a row
    with any missing entry is dropped.

    Parameters
    ----------
    scoring : str, scorer or metric function
        - the name of a scikit-learn scorer, such as ``"f1_macro"``;
        - a scorer, called as ``scorer(estimator, X, y)``;
        - a metric, called as ``metric(y_true, y_pred, **kwargs)``.

        A callable is taken for a scorer if its second argument is named ``X``, or if it needs
        three arguments and the first is not named ``y…``; any other for a metric.
    response_method : str or sequence of str, default="predict"
        For a metric: which method of the estimator feeds it, "predict", "predict_proba" or
        "decision_function", as in
        :func:`sklearn.metrics.make_scorer`.
    greater_is_better : bool, default=True
        For a metric: whether it is a score, or a loss whose sign is to be turned.
    **kwargs : object
        For a metric: further arguments for it.

    Returns
    -------
    scorer : MaskedScorer
        Called as ``scorer(estimator, X, y, **params)``; for ``scoring=`` of
        :func:`~sklearn.model_selection.cross_validate`,
        :class:`~sklearn.model_selection.GridSearchCV` and the like, also as one of several.
        It raises ValueError if no row has a label.

    Raises
    ------
    ValueError
        If `scoring` is no known name, or arguments for a metric come with a scorer.

    See Also
    --------
    LabelledGroupKFold : Folds whose test rows are all labelled.

    Notes
    -----
    A fold can lack a class. Metrics on probabilities then need the classes by name, for example
    ``masked_scorer(log_loss, response_method="predict_proba", greater_is_better=False,
    labels=classes)`` in place of ``masked_scorer("neg_log_loss")``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn_dialpref.metrics import masked_scorer
    >>> X = np.zeros((4, 1))
    >>> clf = DummyClassifier(strategy="most_frequent").fit(X, ["a", "a", "a", "b"])
    >>> y = np.array(["a", None, "b", None], dtype=object)
    >>> masked_scorer("accuracy")(clf, X, y)
    0.5
    """
    if not isinstance(scoring, str) and not _is_scorer(scoring):
        return MaskedScorer(
            make_scorer(
                scoring,
                response_method=response_method,
                greater_is_better=greater_is_better,
                **kwargs,
            )
        )
    if kwargs or response_method != "predict" or not greater_is_better:
        raise ValueError(
            "response_method, greater_is_better and further arguments are for a metric function,"
            f" but scoring={scoring!r} is a scorer, which has its own; pass the metric function."
        )
    return MaskedScorer(get_scorer(scoring))


class MaskedScorer:
    """A scorer on the rows that have a human label, as :func:`masked_scorer` makes it.

    Parameters
    ----------
    scorer : callable
        Called as ``scorer(estimator, X, y, **params)``, where `y` and each of `params` with an
        entry per row hold the labelled rows only, and so do the answers of `estimator`.
    """

    def __init__(self, scorer: Callable[..., Any]) -> None:
        self.scorer = copy.deepcopy(scorer)

    def __repr__(self) -> str:
        return f"masked_scorer({self.scorer!r})"

    def __call__(self, estimator: Any, X: Any, y_true: Any, **params: Any) -> float:
        """Score the labelled rows.

        Parameters
        ----------
        estimator : estimator
            Fitted.
        X : DataFrame or array-like of n rows
            All of them are predicted.
        y_true : array-like of shape (n,) or (n, L)
            Human labels; missing is None, NaN or ``pd.NA``.
        **params : object
            Metadata for the scorer, such as ``sample_weight`` of shape (n,).

        Returns
        -------
        score : float
            Higher is better.

        Raises
        ------
        ValueError
            If no row has a label.
        """
        labels = label_array(y_true)
        labelled = _labelled(labels, "masked_scorer")
        params = {name: _rows(value, labelled) for name, value in params.items()}
        rows = _LabelledRows(estimator, labelled)
        return self.scorer(rows, X, _typed(labels[labelled]), **params)

    def set_score_request(self, **kwargs: bool | str | None) -> MaskedScorer:
        """Set which metadata the scorer requests, as scikit-learn's scorers do.

        Parameters
        ----------
        **kwargs : bool, str or None
            ``parameter=request``, for example ``sample_weight=True``.

        Returns
        -------
        self : MaskedScorer
            The scorer itself.
        """
        self.scorer.set_score_request(**kwargs)  # type: ignore[attr-defined]
        return self

    def get_metadata_routing(self) -> Any:
        """Return the metadata that the scorer requests.

        Returns
        -------
        routing : MetadataRequest
            That of the scorer within; of a plain function, nothing.
        """
        return get_routing_for_object(self.scorer)

    def _accept_sample_weight(self) -> bool:
        # scikit-learn >= 1.9 asks each scorer of a search, unless metadata routing is on.
        accept = getattr(self.scorer, "_accept_sample_weight", None)
        return accept() if accept else "sample_weight" in inspect.signature(self.scorer).parameters


class _LabelledRows:
    """A fitted estimator that answers for the labelled rows of all the rows it is given."""

    def __init__(self, estimator: Any, labelled: np.ndarray) -> None:
        self._estimator = estimator
        self._labelled = labelled

    def __sklearn_tags__(self) -> Any:
        # scikit-learn 1.6 looks for it on the class.
        return get_tags(self._estimator)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._estimator, name)
        if name not in _RESPONSES:
            return attribute

        @functools.wraps(attribute)
        def respond(X: Any, **params: Any) -> Any:
            response = attribute(X, **params)
            if isinstance(response, list):  # one array per output
                return [_rows(output, self._labelled) for output in response]
            return _rows(response, self._labelled)

        return respond


def _is_scorer(function: Callable[..., Any]) -> bool:
    positional = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(positional) > 1 and positional[1].name == "X":
        return True
    needed = [parameter.name for parameter in positional if parameter.default is parameter.empty]
    return len(needed) == 3 and not needed[0].startswith("y")


def _labelled(labels: np.ndarray, caller: str) -> np.ndarray:
    """Return which rows are labelled, in all columns; refuse if none is."""
    missing = is_missing(labels)
    labelled = np.logical_not(missing if missing.ndim == 1 else missing.any(axis=1))
    if not labelled.any():
        raise ValueError(
            f"{caller} needs rows with a human label, but all {len(labelled)} rows have a missing"
            " one; pass labelled rows, or fold the data with LabelledGroupKFold."
        )
    return labelled


def _typed(labels: np.ndarray) -> np.ndarray:
    """Labels without missing ones in a dtype of their own."""
    return np.asarray(labels.tolist()) if labels.dtype == object else labels


def _rows(values: Any, mask: np.ndarray) -> Any:
    """Pick rows of what has an entry per row; return anything else as it is."""
    if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != len(mask):
        return values
    return np.asarray(values)[mask]


def pairwise_accuracy_score(
    y_true: Any,
    y_score: Any,
    groups: Any,
    *,
    classes: Any = None,
    average: Literal["macro", "micro"] | None = "macro",
) -> float | np.ndarray:
    r"""Share of the pairs inside dialogues that the scores order rightly.

    A pair for class c is two utterances of one dialogue, both labelled, one of class c and one
    not. It is ordered rightly if the former has the higher score for c; a tie counts one half.
    Levels that differ between dialogues, or between classes, do not matter: this is what a
    preference loss on pairs inside dialogues learns.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, K)
        Human labels; missing (None, NaN, ``pd.NA``) ones are skipped. 2-D: 0, 1 or missing for
        each of K labels.
    y_score : array-like of shape (n, K) or (n,)
        Score for each class, such as the output of ``predict_proba`` or ``decision_function``;
        only its order matters. 1-D: scores for the second of two classes.
    groups : array-like of shape (n,)
        The dialogue of each row.
    classes : array-like of shape (K,), default=None
        The class of each column of `y_score`. By default the sorted labels in `y_true`, which
        must then hold all K. Not for 2-D `y_true`.
    average : {"macro", "micro"} or None, default="macro"
        - ``"macro"``: the mean over the classes that have pairs, each class alike;
        - ``"micro"``: over all pairs of all classes, each pair alike;
        - None: a score for each class.

    Returns
    -------
    score : float or ndarray of shape (K,)
        In [0, 1]; 1 is best, 0.5 is chance.

    Raises
    ------
    ValueError
        If lengths or classes do not fit, a score is not finite, or `average` is unknown.

    Warns
    -----
    UndefinedMetricWarning
        If there is no pair, or for ``average=None`` no pair for some class. The score is NaN.

    See Also
    --------
    sklearn.metrics.roc_auc_score : The same over pairs of all rows.

    Notes
    -----
    With :math:`P_c = \{(i, j): g_i = g_j, y_i = c, y_j \ne c\}` the score of class c is

    .. math:: A_c = \frac{1}{|P_c|} \sum_{(i, j) \in P_c}
        [s_{ic} > s_{jc}] + \tfrac{1}{2} [s_{ic} = s_{jc}],

    the area under the ROC curve restricted to pairs inside a dialogue. The sum over a dialogue
    is the Mann-Whitney statistic U, computed exactly from average ranks [1]_ in
    :math:`O(K n \log n)` time and :math:`O(n)` memory.

    References
    ----------
    .. [1] Hanley and McNeil, "The meaning and use of the area under a receiver operating
       characteristic (ROC) curve", Radiology 143 (1982).

    Examples
    --------
    >>> from sklearn_dialpref.metrics import pairwise_accuracy_score
    >>> y_true = ["pos", "neg", None, "pos", "neg"]
    >>> y_score = [[0.4, 0.6], [0.5, 0.5], [0.2, 0.8], [0.9, 0.1], [0.8, 0.2]]
    >>> pairwise_accuracy_score(y_true, y_score, groups=["a", "a", "a", "b", "b"])
    0.5
    """
    if average not in ("macro", "micro", None):
        raise ValueError(f"average must be 'macro', 'micro' or None, got {average!r}.")
    score = _as_columns(y_score, "y_score", lambda second: -second)
    labels, dialogue = label_array(y_true), label_array(groups)
    check_consistent_length(labels, score, dialogue)
    if is_missing(dialogue).any():
        raise ValueError("groups has missing values; give each row its dialogue.")
    truth = _truth_table(labels, score.shape[1], classes)
    group = codes_of(dialogue)
    counts = [
        [counted.sum() for counted in ordered_pairs(column, values, group)]
        for column, values in zip(truth.T, score.T, strict=True)
    ]
    right, pairs = np.transpose(counts)
    if average == "micro":
        right, pairs = right.sum(keepdims=True), pairs.sum(keepdims=True)
    defined = pairs > 0
    if not defined.any() or (average is None and not defined.all()):
        warnings.warn(
            "pairwise_accuracy_score is NaN where no dialogue holds two labelled utterances, one"
            f" of the class and one not: {np.count_nonzero(~defined)} of {len(defined)} scores.",
            UndefinedMetricWarning,
            stacklevel=2,
        )
    result = np.divide(right, pairs, out=np.full(len(pairs), np.nan), where=defined)
    if average is None:
        return result
    return float(result[defined].mean()) if defined.any() else float("nan")


def _as_columns(scores: Any, name: str, first_from_second: Callable[..., Any]) -> np.ndarray:
    """Check scores for finiteness and give those of two classes a column each."""
    table = check_array(scores, ensure_2d=False, dtype=np.float64, input_name=name)
    if table.ndim == 1:
        return np.column_stack([first_from_second(table), table])
    return table


def _truth_table(labels: np.ndarray, n_columns: int, classes: Any) -> np.ndarray:
    """Return 1, 0 or NaN (missing) for each row and class."""
    if labels.ndim == 2:
        if labels.shape[1] != n_columns:
            raise ValueError(
                f"y_true has {labels.shape[1]} labels but y_score has {n_columns} columns; pass"
                " a score for each label."
            )
        return indicator_table(labels, "y_true")
    missing = is_missing(labels)
    code = _class_codes(labels, missing, n_columns, classes)
    return np.where(missing[:, None], np.nan, code[:, None] == np.arange(n_columns))


def _class_codes(
    labels: np.ndarray, missing: np.ndarray, n_columns: int, classes: Any
) -> np.ndarray:
    """Return the column of each label's class, -1 for a missing one."""
    values, inverse = np.unique(_typed(labels[~missing]), return_inverse=True)
    names = (values if classes is None else label_array(classes)).tolist()
    if len(names) != n_columns:
        source = "y_true holds" if classes is None else "classes names"
        raise ValueError(
            f"The scores have {n_columns} columns but {source} {len(names)} classes {names};"
            " pass the classes of the columns, in their order, as classes=..."
        )
    unknown = [value for value in values.tolist() if value not in names]
    if unknown:
        raise ValueError(f"y_true holds {unknown}, which are not among the classes {names}.")
    code = np.full(len(labels), -1)
    code[~missing] = np.array([names.index(value) for value in values.tolist()], int)[inverse]
    return code


def ordered_pairs(
    truth: np.ndarray, score: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count each dialogue's pairs of one class: those ordered rightly (ties: a half), and all.

    ``truth`` holds 1, 0 or NaN (missing) and ``group`` codes from 0; both answers have an entry
    for each code.
    """
    n_groups, known = int(group.max(initial=-1)) + 1, ~np.isnan(truth)
    order = np.lexsort((score[known], group[known]))
    positive, score, group = (a[known][order] for a in (truth == 1, score, group))
    n = len(order)
    if n == 0:
        return np.zeros(n_groups), np.zeros(n_groups)
    new_group = np.r_[True, group[1:] != group[:-1]]
    new_value = new_group | np.r_[True, score[1:] != score[:-1]]
    first, tie = np.flatnonzero(new_value), np.cumsum(new_value) - 1
    start, member = np.flatnonzero(new_group), np.cumsum(new_group) - 1
    end = np.r_[first[1:], n]
    # 0-based average rank inside the dialogue; a tie shares the mean of its first and last.
    rank = (first + end - 1)[tie] / 2 - start[member]
    n_positive = np.bincount(group, weights=positive, minlength=n_groups)
    n_negative = np.bincount(group, minlength=n_groups) - n_positive
    rank_sum = np.bincount(group, weights=rank * positive, minlength=n_groups)
    return rank_sum - n_positive * (n_positive - 1) / 2, n_positive * n_negative


def expected_calibration_error(
    y_true: Any, y_proba: Any, *, n_bins: int = 15, classes: Any = None
) -> float:
    r"""Mean gap between the confidence of the top class and how often it is right.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Human labels; rows with a missing one are skipped.
    y_proba : array-like of shape (n, K) or (n,)
        Class probabilities, rows summing to 1. 1-D: those of the second of two classes.
    n_bins : int, default=15
        Number of bins of equal width on [0, 1].
    classes : array-like of shape (K,), default=None
        The class of each column of `y_proba`. By default the sorted labels in `y_true`, which
        must then hold all K.

    Returns
    -------
    error : float
        In [0, 1]; 0 is best.

    Raises
    ------
    ValueError
        If all labels are missing, `y_true` is multilabel, lengths or classes do not fit,
        `y_proba` holds no probabilities, or `n_bins` is below 1.

    Notes
    -----
    Each row falls into the bin :math:`B_m` of its highest probability, in
    :math:`((m - 1) / M, m / M]`:

    .. math:: \mathrm{ECE} = \sum_{m=1}^{M} \frac{|B_m|}{n}
        \left| \mathrm{acc}(B_m) - \mathrm{conf}(B_m) \right|,

    the top-label form of [2]_ of the measure of [1]_.

    References
    ----------
    .. [1] Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using
       Bayesian binning", AAAI 2015.
    .. [2] Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks",
       ICML 2017.

    Examples
    --------
    >>> from sklearn_dialpref.metrics import expected_calibration_error
    >>> y_proba = [[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.25, 0.75]]
    >>> expected_calibration_error(["a", "a", "b", "a"], y_proba)
    0.25
    """
    check_scalar(n_bins, "n_bins", Integral, min_val=1)
    labels = label_array(y_true)
    if labels.ndim != 1:
        raise ValueError(
            f"expected_calibration_error needs one class per row, got y_true of shape"
            f" {labels.shape}; for multilabel y_true call it label by label."
        )
    proba = _as_columns(y_proba, "y_proba", lambda second: 1 - second)
    check_consistent_length(labels, proba)
    if proba.min() < 0 or proba.max() > 1 or np.abs(proba.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError(
            "y_proba must hold probabilities, in [0, 1] and summing to 1 in each row, but its"
            f" values reach from {proba.min():.3g} to {proba.max():.3g} and its row sums from"
            f" {proba.sum(axis=1).min():.3g} to {proba.sum(axis=1).max():.3g}."
        )
    labelled = _labelled(labels, "expected_calibration_error")
    code = _class_codes(labels, ~labelled, proba.shape[1], classes)[labelled]
    confidence = proba[labelled].max(axis=1)
    right = proba[labelled].argmax(axis=1) == code
    edges = np.linspace(0, 1, n_bins + 1)[1:-1]
    gap = np.bincount(np.searchsorted(edges, confidence), weights=right - confidence)
    return float(np.abs(gap).sum() / len(code))

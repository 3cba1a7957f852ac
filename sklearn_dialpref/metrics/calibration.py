"""Are probabilities as high as the share that is right."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length, check_scalar

from sklearn_dialpref._dialogues.validation import label_array

from ._columns import as_columns, class_codes, labelled_rows

MAX_BINS = 10**6


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
        Number of bins of equal width on [0, 1], at most a million.
    classes : array-like of shape (K,), default=None
        The class of each column of `y_proba`. By default the column names of a DataFrame if they
        are the labels, else the sorted labels in `y_true`, which must then hold all K.

    Returns
    -------
    error : float
        In [0, 1]; 0 is best.

    Raises
    ------
    ValueError
        If all labels are missing, `y_true` is multilabel, lengths or classes do not fit,
        `y_proba` holds no probabilities, or `n_bins` is out of range.

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
    check_scalar(n_bins, "n_bins", Integral, min_val=1, max_val=MAX_BINS)
    labels = label_array(y_true)
    if labels.ndim != 1:
        raise ValueError(
            f"expected_calibration_error needs one class per row, got y_true of shape"
            f" {labels.shape}; for multilabel y_true call it label by label"
        )
    proba = as_columns(y_proba, "y_proba", lambda second: 1 - second)
    check_consistent_length(labels, proba)
    if proba.min() < 0 or proba.max() > 1 or np.abs(proba.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError(
            "y_proba must hold probabilities, in [0, 1] and summing to 1 in each row, but its"
            f" values reach from {proba.min():.3g} to {proba.max():.3g} and its row sums from"
            f" {proba.sum(axis=1).min():.3g} to {proba.sum(axis=1).max():.3g}"
        )
    labelled = labelled_rows(labels, "expected_calibration_error")
    code = class_codes(labels, ~labelled, proba.shape[1], classes, y_proba)[labelled]
    confidence = proba[labelled].max(axis=1)
    right = proba[labelled].argmax(axis=1) == code
    edges = np.linspace(0, 1, n_bins + 1)[1:-1]
    gap = np.bincount(np.searchsorted(edges, confidence), weights=right - confidence)
    return float(np.abs(gap).sum() / len(code))

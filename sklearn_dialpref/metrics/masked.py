"""Scorers that skip rows without a human label."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer, make_scorer
from sklearn.utils import check_consistent_length, get_tags
from sklearn.utils.metadata_routing import get_routing_for_object

from sklearn_dialpref._dialogues.validation import label_array

from ._columns import labelled_rows, typed

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
        If `scoring` is not a known name, or arguments for a metric come with a scorer.
    TypeError
        If `scoring` is neither a name nor callable.

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
    if not isinstance(scoring, str) and not callable(scoring):
        raise TypeError(
            f"scoring must be the name of a scorer, a scorer or a metric function, got {scoring!r}"
        )
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
            f" but scoring={scoring!r} is a scorer, which has its own; pass the metric function"
        )
    return MaskedScorer(get_scorer(scoring))


class MaskedScorer:
    """A scorer on the rows that have a human label, as :func:`masked_scorer` makes it.

    Parameters
    ----------
    scorer : callable
        Called as ``scorer(estimator, X, y, **params)``, where `y` and each of `params` with an
        entry per row hold the labelled rows only, and so do the answers of `estimator`.

    Examples
    --------
    >>> from sklearn_dialpref.metrics import MaskedScorer, masked_scorer
    >>> isinstance(masked_scorer("accuracy"), MaskedScorer)
    True
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
            If no row has a label, lengths differ, or labels mix str with other types.
        """
        labels = label_array(y_true)
        check_consistent_length(X, labels)
        labelled = labelled_rows(labels, "masked_scorer")
        params = {name: _rows(value, labelled) for name, value in params.items()}
        rows = _LabelledRows(estimator, labelled)
        return self.scorer(rows, X, typed(labels[labelled]), **params)

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


def _rows(values: Any, mask: np.ndarray) -> Any:
    """Pick rows of what has an entry per row; return anything else as it is."""
    if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != len(mask):
        return values
    return np.asarray(values)[mask]

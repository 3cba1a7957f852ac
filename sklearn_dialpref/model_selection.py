"""Cross-validation for dialogues of which only some utterances have a human label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_consistent_length, check_random_state, check_scalar

from ._dialogues.validation import (
    check_dialogues,
    codes_of,
    dialogue_ids,
    hashable,
    indicator_table,
    is_missing,
    label_array,
    warn_of_other_order,
)

__all__ = ["LabelledGroupKFold"]


class LabelledGroupKFold(BaseCrossValidator):
    r"""K-fold splitter over dialogues, testing on human-labelled utterances only.

    - A dialogue is never split between training and test.
    - Test indices hold human-labelled rows only.
    - No row of a test dialogue is trained on, not even one that only an LLM has labelled.
    - A dialogue without any human label is in the training part of every fold.
    - The dialogues with labels are spread so that every fold gets a similar share of each class.
    - The folds do not depend on the order of the rows.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=False
        Whether to perturb the order in which the dialogues are assigned to folds, so that another
        `random_state` gives other folds. The rows of a fold always keep their order.
    random_state : int, RandomState instance or None, default=None
        Seed of the perturbation. Pass an int for the same folds in every call. Only for
        ``shuffle=True``.

    See Also
    --------
    sklearn.model_selection.StratifiedGroupKFold : The same for fully labelled data.
    masked_scorer : Scores rows with a human label, if other rows are among the test rows.
    with_context : Writes the preceding utterances into a column, before rows are split apart.

    Notes
    -----
    Dialogues are assigned one by one, those with the largest shares of some class first. Each
    goes to the fold :math:`f` that has the least of the classes that the dialogue holds,

    .. math:: \arg\min_f \sum_c \frac{n_{fc}}{N_c} \frac{n_{dc}}{N_c},

    ties going to the fold with the fewest rows; :math:`n_{fc}` counts the labels :math:`c`
    already in the fold, :math:`n_{dc}` those in the dialogue and :math:`N_c` all of them. This
    is the greedy step for the least sum of squared class shares over the folds, the aim of
    :class:`~sklearn.model_selection.StratifiedGroupKFold`. With multilabel `y` the presence and
    the absence of each label count as two classes.

    The test rows arrive at the estimator without their unlabelled neighbours. A model that
    reads preceding utterances needs them in a ``context`` column: call :func:`with_context`
    before splitting.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklearn_dialpref.model_selection import LabelledGroupKFold
    >>> X = pd.DataFrame({
    ...     "dialogue_id": ["a", "a", "b", "b", "c", "c", "d"],
    ...     "text": ["hi", "great", "hello", "bad", "hey", "fine", "yes"],
    ... })
    >>> y = np.array([None, "pos", "neg", "neg", "pos", None, None], dtype=object)
    >>> for train, test in LabelledGroupKFold(n_splits=2).split(X, y):
    ...     print("train", train, "test", test)
    train [0 1 6] test [2 3 4]
    train [2 3 4 5 6] test [1]
    """

    # scikit-learn's own name for "takes groups whenever metadata routing is on".
    __metadata_request__split = {"groups": True}

    def __init__(
        self,
        n_splits: int = 5,
        *,
        shuffle: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds.

        Parameters
        ----------
        X, y, groups : object, default=None
            Ignored, present for compatibility.

        Returns
        -------
        n_splits : int
            The number of folds.
        """
        return self.n_splits

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the row numbers of the training and of the test part of each fold.

        Parameters
        ----------
        X : DataFrame or array-like of n rows
            The utterances, in any form that the estimator accepts.
        y : array-like of shape (n,) or (n, L)
            Human labels; missing is None, NaN or ``pd.NA``. A row of multilabel `y` counts as
            labelled if any of its entries is present. Dialogue states (dicts) count as
            labels of one class.
        groups : array-like of shape (n,), default=None
            What to keep whole in place of the dialogues of `X`, for example a customer with
            several dialogues. A dialogue named in `X` must lie within one group.

        Yields
        ------
        train : ndarray of int64
            All rows of the other dialogues, labelled or not.
        test : ndarray of int64
            The labelled rows of the fold's dialogues.

        Raises
        ------
        TypeError
            If `n_splits` is not an integer, or `shuffle` not a bool.
        ValueError
            If `y` is None, fewer than `n_splits` dialogues hold a human label, `groups` cut
            through a dialogue, `n_splits` is below 2, or `random_state` comes without `shuffle`.
        """
        self._check_parameters()
        if y is None:
            raise ValueError(
                "LabelledGroupKFold needs y to know which rows have a human label, but y is None;"
                " pass the human labels, with None or NaN where there is none"
            )
        check_consistent_length(X, y, groups)
        warn_of_other_order(X, y=y, groups=groups)
        labelled, indicator = _label_indicator(y)
        unit = check_dialogues(X).group if groups is None else _check_groups(X, groups)
        units, row_unit = np.unique(unit[labelled], return_inverse=True)
        if units.size < self.n_splits:
            kind = "dialogues" if groups is None else "groups"
            raise ValueError(
                f"LabelledGroupKFold(n_splits={self.n_splits}) needs at least {self.n_splits}"
                f" {kind} with a human label, but {units.size} of the {np.unique(unit).size}"
                f" {kind} have one; use fewer splits or label more {kind}"
            )
        counts = np.zeros((units.size, indicator.shape[1]))
        np.add.at(counts, row_unit, indicator)
        rng = check_random_state(self.random_state) if self.shuffle else None
        fold_of_unit = np.full(unit.max() + 1, -1)
        fold_of_unit[units] = _spread(counts, np.bincount(row_unit), self.n_splits, rng)
        fold_of_row = fold_of_unit[unit]
        for fold in range(self.n_splits):
            in_fold = fold_of_row == fold
            yield np.flatnonzero(~in_fold), np.flatnonzero(in_fold & labelled)

    def _check_parameters(self) -> None:
        check_scalar(self.n_splits, "n_splits", Integral, min_val=2)
        check_scalar(self.shuffle, "shuffle", (bool, np.bool_))
        if not self.shuffle and self.random_state is not None:
            raise ValueError(
                f"random_state={self.random_state!r} has no effect with shuffle=False; set"
                " shuffle=True or leave random_state at None"
            )


def _check_groups(X: Any, groups: Any) -> np.ndarray:
    """Code the groups as integers; refuse those that cut through a dialogue named in ``X``."""
    if is_missing(groups).any():
        raise ValueError("groups has missing values; give each row a group")
    labels = label_array(groups, "groups")
    if labels.ndim != 1:
        raise ValueError(f"groups must be 1-D, got shape {labels.shape}; give each row a group")
    group = codes_of(hashable(labels, "groups"))
    ids = dialogue_ids(X)
    if ids is not None:
        dialogue = codes_of(ids)
        first = np.unique(dialogue, return_index=True)[1]
        cut = group != group[first][dialogue]
        if cut.any():
            raise ValueError(
                f"groups put rows of dialogue {ids[cut].tolist()[0]!r} into different groups,"
                " which would split it between training and test; give all its rows one group"
            )
    return group


def _label_indicator(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows are labelled, and for those a 0/1 column per label value."""
    labels = label_array(y, "y")
    if labels.ndim > 2:
        raise ValueError(f"y must be 1-D or 2-D (multilabel), got shape {labels.shape}")
    missing = is_missing(labels)
    if labels.ndim == 1 or labels.shape[1] == 1:
        labelled = np.logical_not(missing.reshape(len(labels)))
        if any(isinstance(label, Mapping) for label in labels.flat):  # states: no classes
            return labelled, np.ones((labelled.sum(), 1))
        code = codes_of(hashable(labels.ravel()[labelled], "y"))
        return labelled, np.eye(code.max(initial=-1) + 1)[code]
    labelled = np.logical_not(missing.all(axis=1))
    table = indicator_table(labels, "y")[labelled]
    return labelled, np.hstack([table == 1, table == 0]).astype(float)


def _spread(
    counts: np.ndarray, rows: np.ndarray, n_splits: int, rng: np.random.RandomState | None
) -> np.ndarray:
    """Assign units with label `counts` (units, labels) and `rows` (units,) to the folds."""
    share = counts / np.maximum(counts.sum(axis=0), 1)
    size = (share**2).sum(axis=1)
    if rng is not None:
        # Still the largest first, roughly: a wholly random order would leave uneven folds.
        size = size * rng.uniform(0.5, 1.0, len(size))
    fold = np.empty(len(counts), dtype=np.int64)
    fold_share, fold_rows = np.zeros((n_splits, share.shape[1])), np.zeros(n_splits)
    for unit in np.argsort(-size, kind="stable"):
        # An empty fold costs exactly 0 and has the fewest rows, so no fold stays empty.
        fold[unit] = best = np.lexsort((fold_rows, fold_share @ share[unit]))[0]
        fold_share[best] += share[unit]
        fold_rows[best] += rows[unit]
    return fold

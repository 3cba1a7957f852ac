"""Which utterances, or which dialogues, people should label next."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_random_state

from sklearn_dialpref._dialogues.validation import (
    Dialogues,
    check_dialogues,
    codes_of,
    is_missing,
)
from sklearn_dialpref._labels.targets import Targets, canonical_order, check_targets

from .drawing import to_pandas
from .labelled_rows import take

__all__ = ["Suggestions", "suggest_annotations"]

_Choice = tuple[NDArray[np.int64], NDArray[np.bool_]]  # rows, and which of them are random
_Case = tuple[NDArray[np.bool_], Callable[[int], str]]  # where it holds, and its words

# chosen on validation dialogues by the linear student of benchmarks/suggestions.py; others were
# within a point of these
SHORT_LIST = 2  # rows that are embedded, for each one that is chosen for its score
RANDOM_SHARE = 0.1
RARITY = 0.5  # exponent of a class's share: the weight of rare classes
RARE = 0.5  # of an equal share: below it a class is called rare
NOVEL = 0.95  # share of the labelled rows that have another one nearer
NEIGHBOURS = 2000  # labelled rows, at most, that a suggestion is compared with
FEWEST_TO_COMPARE = 20
DIFFER = "teacher and student differ"
DIGITS = 6  # of probabilities: rounding in their last digits depends on the order of the rows


@dataclass(frozen=True, eq=False)
class Suggestions:
    """Rows that people should label next, the most useful ones first.

    Made by :func:`suggest_annotations`.

    Attributes
    ----------
    rows : ndarray of int64, shape (n_rows,)
        Positions in ``X``, in the order in which to label them.
    reason : ndarray of str, shape (n_rows,)
        Why each row is there, in words.
    score : ndarray of shape (n_rows,)
        How uncertain the classifier is of each row, above all about rare classes; see Notes of
        :func:`suggest_annotations`. Comparable within one call.
    is_random : ndarray of bool, shape (n_rows,)
        Which rows were drawn at random, whatever their score.

    Examples
    --------
    >>> from sklearn_dialpref import DialoguePreferenceClassifier, suggest_annotations
    >>> from sklearn_dialpref.datasets import make_dialogues
    >>> data = make_dialogues(n_dialogues=40, n_features=8, human_fraction=0.2, random_state=0)
    >>> clf = DialoguePreferenceClassifier(encoder="precomputed", max_epochs=2, random_state=0)
    >>> clf = clf.fit(data.X, data.y_human, data.y_llm)
    >>> suggestions = suggest_annotations(clf, data.X, data.y_human, data.y_llm, n=5)
    >>> suggestions.frame().columns.tolist()
    ['row', 'reason', 'score', 'is_random']
    """

    rows: NDArray[np.int64]
    reason: NDArray[np.str_]
    score: NDArray[np.float64]
    is_random: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)

    def frame(self) -> Any:
        """The suggestions as a table.

        Returns
        -------
        pandas.DataFrame
            One line per row: ``row``, ``reason``, ``score`` and ``is_random``.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return to_pandas(
            {
                "row": self.rows,
                "reason": self.reason,
                "score": self.score,
                "is_random": self.is_random,
            }
        )


def suggest_annotations(
    clf: Any,
    X: Any,
    y_human: Any = None,
    y_llm: Any = None,
    *,
    n: int = 50,
    unit: str = "utterance",
    random_state: int | np.random.RandomState | None = None,
) -> Suggestions:
    r"""Choose the utterances, or the dialogues, that people should label next.

    It suggests utterances of which the classifier is uncertain, above all about rare classes, and
    which differ from each other. One in ten is drawn at random. Label them, fit again with all
    labels, and ask again.

    Parameters
    ----------
    clf : estimator
        A fitted classifier with ``predict_proba``, or a pipeline that ends with one. It is used
        as it is. Utterances are compared by its method ``embed`` where it has one, as
        :class:`DialoguePreferenceClassifier` does, and by their probabilities elsewhere.
    X : DataFrame, ndarray or sequence of str, of n_rows rows
        Utterances, in any form that ``clf`` predicts, those with a label among them.
    y_human : array-like of shape (n_rows,) or (n_rows, n_labels), or None, default=None
        Human labels; missing is None, NaN or ``pd.NA``. Only rows without any are suggested.
        None: nothing has been labelled yet, so that ``clf`` has learned from LLM labels alone.
    y_llm : array-like of shape (n_rows,), (n_rows, A) or (n_rows, n_classes), default=None
        Labels, votes or scores of the LLM. They change the reasons only: rows on which the LLM
        and the classifier differ are no better ones to label.
    n : int, default=50
        How many units to suggest: utterances, or dialogues.
    unit : {"utterance", "dialogue"}, default="utterance"
        With ``"dialogue"``, all utterances without a label of the dialogues with the highest
        mean score. Labels of single utterances teach more.
    random_state : int, RandomState instance or None, default=None
        Seed of the random rows and of the comparison.

    Returns
    -------
    suggestions : Suggestions
        Utterances in the order in which to label them, the random ones spread evenly; dialogues
        one after the other, each in the order of its turns.

    Raises
    ------
    NotFittedError
        If ``clf`` is not fitted.
    TypeError
        If ``clf`` has no ``predict_proba``, or it does not return one array.
    ValueError
        If an option is not as described, labels do not fit ``X`` or the classes of ``clf``, or
        ``unit="dialogue"`` and ``X`` names no dialogues.

    Warns
    -----
    UserWarning
        If fewer than ``n`` units can be suggested. All of them are, then.

    See Also
    --------
    label_budget_curve : Scores of a classifier with fewer labels, to see if more would help.

    Notes
    -----
    With the probability :math:`p_c` of class c, and its share :math:`s_c` of the human labels (of
    the predictions before the first one), each class counted once more, the score is

    .. math:: \sum_c \frac{p_c (1 - p_c)}{\sqrt{s_c}}

    Twice as many utterances as are wanted, those with the highest scores, are clustered by
    k-means; the one nearest to the centre of each cluster is suggested. Nothing grows with the
    square of the rows. ``benchmarks/suggestions.py`` compares this with other strategies.

    A text is suggested once, and for its score only if none of its rows has a human label; whole
    dialogues are not cut. The random rows are drawn from all rows without a label at that time.
    Estimate accuracy or the shares of classes from rows with ``is_random`` alone: the others are
    harder than usual. Such estimates are a little too good once a large share of the rows has
    been labelled for its score.

    The result does not depend on the order of the rows, where turns are numbered.

    Examples
    --------
    >>> from sklearn_dialpref import DialoguePreferenceClassifier
    >>> from sklearn_dialpref.datasets import make_dialogues
    >>> from sklearn_dialpref import suggest_annotations
    >>> data = make_dialogues(n_dialogues=40, n_features=8, human_fraction=0.2, random_state=0)
    >>> clf = DialoguePreferenceClassifier(encoder="precomputed", max_epochs=2, random_state=0)
    >>> clf = clf.fit(data.X, data.y_human, data.y_llm)
    >>> suggestions = suggest_annotations(
    ...     clf, data.X, data.y_human, data.y_llm, n=20, random_state=0
    ... )
    >>> len(suggestions), int(suggestions.is_random.sum())
    (20, 2)
    >>> bool(data.y_human.iloc[suggestions.rows].isna().all())
    True
    """
    _check_options(n, unit)
    dialogues = check_dialogues(X)
    if unit == "dialogue" and not dialogues.has_dialogues:
        raise ValueError(
            "X names no dialogues, so none can be suggested: pass a DataFrame with "
            "'dialogue_id', or unit='utterance'"
        )
    proba = _probabilities(clf, X, len(dialogues))
    targets = _targets(clf, y_human, y_llm, proba)
    rng = check_random_state(random_state)
    pool = _Pool.of(clf, X, dialogues, targets, proba)
    choose = _utterances if unit == "utterance" else _dialogues
    rows, is_random = choose(pool, int(n), rng)
    return Suggestions(rows, _reasons(pool, rows, is_random, rng), pool.score[rows], is_random)


# -- input ----------------------------------------------------------------------------------


def _check_options(n: Any, unit: Any) -> None:
    if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
        raise ValueError(f"n must be a whole number of at least 1, got {n!r}")
    if unit not in ("utterance", "dialogue"):
        raise ValueError(f"unit must be 'utterance' or 'dialogue', got {unit!r}")


def _probabilities(clf: Any, X: Any, n_rows: int) -> NDArray[np.float64]:
    if not hasattr(clf, "predict_proba"):
        raise TypeError(
            f"clf is a {type(clf).__name__} without predict_proba; pass a classifier that has it"
        )
    proba = clf.predict_proba(X)
    if np.ndim(proba) != 2 or len(proba) != n_rows:
        raise TypeError(
            f"predict_proba of clf returned a {type(proba).__name__} of shape {np.shape(proba)}; "
            "pass a classifier that returns an array with one row per utterance and one column "
            "per class"
        )
    proba = np.asarray(proba, dtype=np.float64)
    if not (finite := np.isfinite(proba).all(axis=1)).all():
        raise ValueError(
            f"predict_proba of clf returned {proba[np.argmin(finite)].tolist()} for row "
            f"{np.argmin(finite)}; pass a classifier that returns probabilities"
        )
    return proba.round(DIGITS)


def _targets(clf: Any, y_human: Any, y_llm: Any, proba: NDArray[np.float64]) -> Targets:
    """All labels; also where there are none yet, which a fit would refuse."""
    shape = proba.shape
    multilabel = bool((np.abs(proba.sum(axis=1) - 1) > 1e-3).any())
    nothing = np.full(shape, np.nan) if multilabel else np.full(shape[0], None)
    if y_human is None or (len(y_human) == shape[0] and is_missing(y_human).all()):
        y_human = nothing
    if y_llm is not None and len(y_llm) == shape[0] and is_missing(y_llm).all():
        y_llm = None
    if y_human is nothing and y_llm is None:
        human = nothing if multilabel else np.full(shape[0], -1)
        return Targets(np.asarray(clf.classes_), multilabel, human, None)
    return check_targets(y_human, y_llm, shape[0], clf.classes_)


# -- choice ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Pool:
    """All rows, and what the classifier says of them.

    Attributes
    ----------
    labelled, unlabelled : ndarray of int64
        Rows with and without a human label, in an order that depends on what they hold.
    share : ndarray of shape (n_classes,)
        How frequent the classes are.
    score : ndarray of shape (n_rows,)
        How uncertain the classifier is, above all about rare classes.
    """

    clf: Any
    X: Any
    dialogues: Dialogues
    targets: Targets
    proba: NDArray[np.float64]
    labelled: NDArray[np.int64]
    unlabelled: NDArray[np.int64]
    share: NDArray[np.float64]
    score: NDArray[np.float64]

    @classmethod
    def of(
        cls, clf: Any, X: Any, dialogues: Dialogues, targets: Targets, proba: NDArray[np.float64]
    ) -> _Pool:
        order = canonical_order(dialogues, targets)
        has_label = targets.has_human[order]
        share = _class_shares(targets, proba)
        score = _scores(proba, share)
        return cls(
            clf, X, dialogues, targets, proba, order[has_label], order[~has_label], share, score
        )

    @property
    def names(self) -> list[Any]:
        return self.targets.classes.tolist()

    def embed(self, rows: NDArray[np.int64]) -> NDArray[Any] | None:
        """Embeddings of these rows; None where the classifier has none."""
        clf, X = self.clf, take(self.X, rows)
        if hasattr(clf, "steps"):
            clf, earlier = clf[-1], clf[:-1]
            X = earlier.transform(X) if hasattr(clf, "embed") and len(earlier) else X
        return clf.embed(X) if hasattr(clf, "embed") else None


def _scores(proba: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """The variances of the classes' indicators, weighted by how rare the classes are."""
    return (proba * (1 - proba)) @ share**-RARITY


def _class_shares(targets: Targets, proba: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of the classes in the human labels, or in the predictions where there are none."""
    if not targets.has_human.any():
        count = proba.sum(axis=0)
    elif targets.multilabel:
        count = np.nansum(targets.human, axis=0)
    else:
        count = np.bincount(targets.human[targets.has_human], minlength=proba.shape[1])
    return (count + 1) / (count + 1).sum()


def _utterances(pool: _Pool, n: int, rng: np.random.RandomState) -> _Choice:
    text = _text_codes(pool.dialogues)
    rows = pool.unlabelled[~np.isin(text[pool.unlabelled], text[pool.targets.has_human])]
    rows = _first_of_each(rows, text)
    _warn_of_few(len(rows), n, "utterances without a label whose text has none elsewhere")
    source = rows if n >= len(rows) else pool.unlabelled
    n = min(n, len(rows))
    drawn = _first_of_each(rng.permutation(source), text)[: _n_random(n)]
    rows = rows[~np.isin(text[rows], text[drawn])]
    rows = rows[np.argsort(-pool.score[rows], kind="stable")]
    return _spread(_diverse(pool, rows, n - len(drawn), rng), drawn)


def _dialogues(pool: _Pool, n: int, rng: np.random.RandomState) -> _Choice:
    group = pool.dialogues.group[pool.unlabelled]
    mean = np.bincount(group, pool.score[pool.unlabelled]) / np.maximum(np.bincount(group), 1)
    groups = np.unique(group)
    _warn_of_few(len(groups), n, "dialogues with utterances without a label")
    n = min(n, len(groups))
    drawn = rng.permutation(groups)[: _n_random(n)]
    groups = groups[~np.isin(groups, drawn)]
    groups = groups[np.argsort(-mean[groups], kind="stable")][: n - len(drawn)]
    chosen, is_random = _spread(groups, drawn)
    place = np.full(len(mean), -1)
    place[chosen] = np.arange(len(chosen))
    rows = pool.unlabelled[place[group] >= 0]
    at = place[pool.dialogues.group[rows]]
    order = np.lexsort((pool.dialogues.turn[rows], at))
    return rows[order], is_random[at[order]]


def _text_codes(dialogues: Dialogues) -> NDArray[np.int64]:
    """The same number for the same text, or the same features."""
    if dialogues.text is not None:
        return codes_of(dialogues.text)
    assert dialogues.features is not None
    return np.unique(dialogues.features, axis=0, return_inverse=True)[1].reshape(-1)


def _first_of_each(rows: NDArray[np.int64], text: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[np.sort(np.unique(text[rows], return_index=True)[1])]


def _warn_of_few(n_there: int, n: int, what: str) -> None:
    if n_there < n:
        warnings.warn(
            f"n={n}, but there are only {n_there} {what}; all of them are suggested",
            UserWarning,
            stacklevel=4,
        )


def _n_random(n: int) -> int:
    return int(np.ceil(RANDOM_SHARE * n - 0.5))


def _diverse(
    pool: _Pool, rows: NDArray[np.int64], n: int, rng: np.random.RandomState
) -> NDArray[np.int64]:
    """Of the first rows, which have the highest scores, some that differ; the highest first."""
    if n < 2 or len(rows) <= n:
        return rows[:n]
    rows = rows[: SHORT_LIST * n]
    embedded = pool.embed(rows)
    points = np.asarray(pool.proba[rows] if embedded is None else embedded, dtype=np.float64)
    clusters = KMeans(n, n_init=1, random_state=rng.randint(2**31 - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        cluster = clusters.fit_predict(points)
    distance = ((points - clusters.cluster_centers_[cluster]) ** 2).sum(axis=1)
    near = np.lexsort((distance, cluster))
    central = near[np.unique(cluster[near], return_index=True)[1]]
    others = np.setdiff1d(np.arange(len(rows)), central)[: n - len(central)]
    return rows[np.sort(np.r_[central, others])]


def _spread(chosen: NDArray[np.int64], drawn: NDArray[np.int64]) -> _Choice:
    """Both in one order, with what was drawn at random at even distances."""
    place = [(np.arange(len(some)) + 0.5) / max(len(some), 1) for some in (chosen, drawn)]
    order = np.argsort(np.concatenate(place), kind="stable")
    return np.r_[chosen, drawn][order], order >= len(chosen)


# -- reasons --------------------------------------------------------------------------------


def _reasons(
    pool: _Pool, rows: NDArray[np.int64], is_random: NDArray[np.bool_], rng: np.random.RandomState
) -> NDArray[np.str_]:
    """The first of these that holds for each row."""
    cases = (
        (is_random, lambda row: "random, for honest estimates"),
        (_is_novel(pool, rows, rng), lambda row: "unlike anything labelled"),
        _rare_class(pool, rows),
        _difference(pool, rows),
        (np.ones(len(rows), dtype=bool), _doubt(pool, rows)),
    )
    case = np.argmax([holds for holds, _ in cases], axis=0) if len(rows) else ()
    return np.array([cases[k][1](row) for row, k in enumerate(case)], dtype=np.str_)


def _is_novel(
    pool: _Pool, rows: NDArray[np.int64], rng: np.random.RandomState
) -> NDArray[np.bool_]:
    """Rows farther from each labelled one than nearly all of those are from the next one."""
    enough = len(pool.labelled) >= FEWEST_TO_COMPARE and len(rows) > 0
    embedded = pool.embed(rows) if enough else None
    if embedded is None:
        return np.zeros(len(rows), dtype=bool)
    known = pool.embed(rng.permutation(pool.labelled)[:NEIGHBOURS])
    nearest = NearestNeighbors(n_neighbors=1).fit(known)
    usual = np.quantile(nearest.kneighbors()[0], NOVEL)
    # distances of equal points are not quite zero
    return nearest.kneighbors(embedded)[0][:, 0] > usual + 1e-6


def _rare_class(pool: _Pool, rows: NDArray[np.int64]) -> _Case:
    """Rows whose most probable class is one that few rows have."""
    names = pool.names
    rare = pool.share < RARE / len(names)
    top = pool.proba[rows].argmax(axis=1)
    return rare[top], lambda row: f"likely of the rare class {names[top[row]]!r}"


def _difference(pool: _Pool, rows: NDArray[np.int64]) -> _Case:
    """Rows that the LLM labels in another way; multilabel: the label of largest difference."""
    names, student = pool.names, pool.proba[rows]
    if pool.targets.scores is None:
        return np.zeros(len(rows), dtype=bool), str
    teacher = np.nan_to_num(pool.targets.scores[rows], nan=-1)
    if pool.targets.multilabel:
        differs = ((teacher >= 0.5) != (student >= 0.5)) & (teacher >= 0)
        label = np.where(differs, np.abs(teacher - student), -1).argmax(axis=1)
        return differs.any(axis=1), lambda row: f"{DIFFER} about {names[label[row]]!r}"
    first, second = teacher.argmax(axis=1), student.argmax(axis=1)
    differs = (first != second) & (teacher >= 0).all(axis=1)
    return differs, lambda row: f"{DIFFER}: {names[first[row]]!r} and {names[second[row]]!r}"


def _doubt(pool: _Pool, rows: NDArray[np.int64]) -> Callable[[int], str]:
    names, proba = pool.names, pool.proba[rows]
    if pool.targets.multilabel:
        label = np.abs(proba - 0.5).argmin(axis=1)
        return lambda row: f"uncertain about {names[label[row]]!r}"
    top = np.argsort(-proba, axis=1, kind="stable")
    return lambda row: f"uncertain between {names[top[row, 0]]!r} and {names[top[row, 1]]!r}"

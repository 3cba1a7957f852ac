"""Synthetic dialogues, and what the data sets share."""

from __future__ import annotations

from numbers import Integral, Real
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch, check_random_state, check_scalar

from ._simulated import check_scale, simulate_votes

_SYLLABLES = np.array([c + v for c in "bdfgklmnprstvz" for v in "aeiou"])
_WORDS_PER_VOCABULARY = 30
_COMMON_SHARE = 0.5
_UTTERANCE_WORDS = (4, 12)
_MAX_CLASSES = 100


def make_dialogues(
    n_dialogues: int = 100,
    *,
    n_turns: int | tuple[int, int] = (4, 16),
    n_classes: int = 3,
    n_features: int | None = None,
    n_votes: int = 5,
    human_fraction: float = 0.1,
    separation: float = 2.0,
    signal: float = 2.0,
    class_bias: float | ArrayLike = 0.5,
    dialogue_bias: float = 0.5,
    noise: float = 0.5,
    vote_noise: float = 0.5,
    random_state: int | np.random.RandomState | None = None,
    as_frame: bool = True,
) -> Bunch:
    """Make synthetic dialogues with few human labels and many votes of a noisy LLM.

    The class of each utterance is drawn uniformly and independently. An utterance is 4 to 12
    invented words; half of them, on average, come from a vocabulary that all classes share, the
    others from the vocabulary of a class, which is the right one with odds
    ``exp(separation)`` : 1 against each other class. The vocabularies are the same for every
    `random_state`. With `n_features`, the utterance is instead a normal vector with unit variance
    around a class centre; the centres are random directions of length `separation`.

    The votes come from :func:`simulate_votes`.

    Parameters
    ----------
    n_dialogues : int, default=100
        Number of dialogues.
    n_turns : int or tuple (min, max), default=(4, 16)
        Number of utterances of a dialogue; with a tuple it is drawn from min to max, both
        included.
    n_classes : int, default=3
        Number of classes, 2 to 100. They are called "class_0", "class_1", ...
    n_features : int or None, default=None
        None: utterances are text. Otherwise the number of precomputed features, for
        ``encoder="precomputed"``.
    n_votes : int, default=5
        Number of LLM votes for each utterance.
    human_fraction : float, default=0.1
        Share of utterances with a human label, in [0, 1]. Whole dialogues, drawn at random, are
        labelled until it is reached.
    separation : float, default=2.0
        How well an utterance shows its class. 0: not at all.
    signal : float, default=2.0
        Advantage that the LLM gives to the true class, in logits.
    class_bias : float or array-like of shape (n_classes,), default=0.5
        Standard deviation over classes of the LLM's bias, in logits, or the bias of each class.
    dialogue_bias : float, default=0.5
        Standard deviation of the LLM's bias per dialogue and class, in logits.
    noise : float, default=0.5
        Standard deviation of the LLM's noise per utterance and class, in logits.
    vote_noise : float, default=0.5
        Scale of the LLM's noise per vote and class, in logits.
    random_state : int, RandomState instance or None, default=None
        Seed of all draws.
    as_frame : bool, default=True
        True: `X` and `y_llm_scores` are pandas DataFrames, `y_true` and `y_human` Series. False:
        all are arrays, and `X` loses the columns that an array cannot carry.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the attributes

        X : DataFrame or ndarray with n_utterances rows
            Text: columns `dialogue_id`, `turn`, `speaker`, `text`; as an array `dialogue_id` and
            `text`. Features: columns `dialogue_id`, `x0`, `x1`, ...; as an array the features
            alone, with the dialogues in `groups`.
        y_true : Series or ndarray of shape (n_utterances,)
            All true labels.
        y_human : Series or ndarray of shape (n_utterances,)
            The true labels of the human-labelled dialogues, None elsewhere.
        y_llm : ndarray of shape (n_utterances, n_votes)
            Votes of the simulated LLM.
        y_llm_scores : DataFrame or ndarray of shape (n_utterances, n_classes)
            Share of the votes for each class.
        groups : ndarray of shape (n_utterances,)
            The dialogue of each utterance.
        classes : ndarray of shape (n_classes,)
            The labels, in the order of the columns of `y_llm_scores`.
        DESCR : str
            Description.

    Raises
    ------
    ImportError
        If `as_frame` is True and pandas is not installed.
    ValueError
        If a parameter is out of range.

    See Also
    --------
    simulate_votes : The votes alone, for labels that you have.
    load_support_chats : Written chats with labels and simulated votes.

    Examples
    --------
    >>> from sklearn_dialpref.datasets import make_dialogues
    >>> data = make_dialogues(n_dialogues=20, n_turns=10, random_state=0)
    >>> data.X.columns.tolist()
    ['dialogue_id', 'turn', 'speaker', 'text']
    >>> data.X.shape, data.y_llm.shape, data.y_llm_scores.shape
    ((200, 4), (200, 5), (200, 3))
    >>> int(data.y_human.notna().sum())
    20
    >>> make_dialogues(n_dialogues=20, n_turns=10, n_features=8, as_frame=False).X.shape
    (200, 8)
    """
    _check_parameters(n_dialogues, n_classes, n_features, human_fraction)
    check_scale(separation, "separation")
    shortest, longest = _check_n_turns(n_turns)
    rng = check_random_state(random_state)

    lengths = rng.randint(shortest, longest + 1, size=n_dialogues)
    group = np.repeat(np.arange(n_dialogues), lengths)
    turn = np.arange(len(group)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    y_code = rng.randint(n_classes, size=len(group))
    content: NDArray[Any]
    if n_features is None:
        content = _utterances(y_code, n_classes, separation, rng)
    else:
        content = _feature_vectors(y_code, n_classes, n_features, separation, rng)
    votes = simulate_votes(
        y_code,
        group,
        classes=np.arange(n_classes),
        n_votes=n_votes,
        signal=signal,
        class_bias=class_bias,
        dialogue_bias=dialogue_bias,
        noise=noise,
        vote_noise=vote_noise,
        random_state=rng,
    )
    labelled = draw_dialogues(group, human_fraction * len(group), rng)

    groups = np.array([f"dialogue_{g}" for g in range(n_dialogues)], dtype=object)[group]
    data = Bunch(
        X=np.column_stack([groups, content]) if n_features is None else content,
        **_labels(y_code, votes, labelled, n_classes),
        groups=groups,
        DESCR=(
            f"Synthetic dialogues: {n_dialogues} dialogues, {len(group)} utterances, {n_classes} "
            f"classes, {labelled.sum()} human labels, {n_votes} simulated LLM votes per utterance."
            " See sklearn_dialpref.datasets.make_dialogues."
        ),
    )
    return _as_frames(data, turn, content) if as_frame else data


def _labels(
    y_code: NDArray[np.integer],
    votes: NDArray[np.integer],
    labelled: NDArray[np.bool_],
    n_classes: int,
) -> dict[str, NDArray[Any]]:
    """Give the class codes their names, as labels of people and of the LLM."""
    classes = np.array([f"class_{c}" for c in range(n_classes)], dtype=object)
    y_true = classes[y_code]
    return {
        "y_true": y_true,
        "y_human": np.where(labelled, y_true, None),
        "y_llm": classes[votes],
        "y_llm_scores": (votes[:, :, None] == np.arange(n_classes)).mean(axis=1),
        "classes": classes,
    }


def _as_frames(data: Bunch, turn: NDArray[np.integer], content: NDArray[Any]) -> Bunch:
    pd = import_pandas("make_dialogues")
    data.X = _frame(pd, data.groups, turn, content)
    data.y_llm_scores = pd.DataFrame(data.y_llm_scores, columns=data.classes)
    data.y_true = pd.Series(data.y_true, name="y_true", dtype=object)
    data.y_human = pd.Series(data.y_human, name="y_human", dtype=object)
    return data


def draw_dialogues(
    group: NDArray[np.integer], n_rows: float, rng: np.random.RandomState
) -> NDArray[np.bool_]:
    """Mark the rows of random whole dialogues, as few as hold at least `n_rows` rows."""
    sizes = np.bincount(group)
    order = rng.permutation(len(sizes))
    rows_before = np.cumsum(sizes[order]) - sizes[order]
    chosen = order[rows_before < n_rows]
    return np.isin(group, chosen)


def import_pandas(caller: str) -> ModuleType:
    """Import pandas, or say how to get it or do without."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            f"{caller} with as_frame=True needs pandas, which is not installed; run "
            "`pip install pandas`, or pass as_frame=False to get arrays"
        ) from error
    return pandas


def _check_parameters(
    n_dialogues: int, n_classes: int, n_features: int | None, human_fraction: float
) -> None:
    check_scalar(n_dialogues, "n_dialogues", Integral, min_val=1)
    check_scalar(n_classes, "n_classes", Integral, min_val=2, max_val=_MAX_CLASSES)
    if n_features is not None:
        check_scalar(n_features, "n_features", Integral, min_val=1)
    check_scalar(human_fraction, "human_fraction", Real, min_val=0, max_val=1)


def _check_n_turns(n_turns: int | tuple[int, int]) -> tuple[int, int]:
    bounds: tuple[Any, ...] = n_turns if isinstance(n_turns, tuple) else (n_turns,) * 2
    whole = all(isinstance(b, Integral) for b in bounds)
    if len(bounds) != 2 or not whole or not 1 <= bounds[0] <= bounds[1]:
        raise ValueError(
            f"n_turns must be an int >= 1 or a tuple (min, max) of ints with 1 <= min <= max, "
            f"got {n_turns!r}"
        )
    return bounds[0], bounds[1]


def _words(numbers: NDArray[np.integer]) -> NDArray[Any]:
    """Give the invented word of each number: three syllables, distinct for distinct numbers."""
    base = len(_SYLLABLES)
    # the factor shares no divisor with the base: distinct numbers stay so, neighbours look unlike
    mixed = numbers * 100_003 % base**3
    first, second, third = mixed // base**2, mixed // base % base, mixed % base
    return np.char.add(np.char.add(_SYLLABLES[first], _SYLLABLES[second]), _SYLLABLES[third])


def _utterances(
    y_code: NDArray[np.integer], n_classes: int, separation: float, rng: np.random.RandomState
) -> NDArray[np.object_]:
    """Draw the words of each utterance from the vocabularies of its class and of all classes."""
    n, longest = len(y_code), _UTTERANCE_WORDS[1]
    own = np.exp(separation) / (np.exp(separation) + n_classes - 1)
    other = (y_code[:, None] + rng.randint(1, n_classes, size=(n, longest))) % n_classes
    topic = np.where(rng.uniform(size=(n, longest)) < own, y_code[:, None], other)
    topic[rng.uniform(size=(n, longest)) < _COMMON_SHARE] = n_classes
    # the common vocabulary comes first, so that it is the same for any number of classes
    vocabulary = (topic + 1) % (n_classes + 1)
    number = vocabulary * _WORDS_PER_VOCABULARY + rng.randint(
        _WORDS_PER_VOCABULARY, size=topic.shape
    )
    words = _words(number)
    lengths = rng.randint(_UTTERANCE_WORDS[0], longest + 1, size=n)
    texts = [" ".join(row[:length]) for row, length in zip(words, lengths, strict=True)]
    return np.array(texts, dtype=object)


def _feature_vectors(
    y_code: NDArray[np.integer],
    n_classes: int,
    n_features: int,
    separation: float,
    rng: np.random.RandomState,
) -> NDArray[np.float64]:
    centres = rng.standard_normal((n_classes, n_features))
    centres *= separation / np.linalg.norm(centres, axis=1, keepdims=True)
    return centres[y_code] + rng.standard_normal((len(y_code), n_features))


def _frame(
    pd: ModuleType, groups: NDArray[np.object_], turn: NDArray[np.integer], content: NDArray[Any]
) -> Any:
    if content.ndim == 2:
        frame = pd.DataFrame(content, columns=[f"x{k}" for k in range(content.shape[1])])
        frame.insert(0, "dialogue_id", groups)
        return frame
    speaker = np.where(turn % 2 == 0, "customer", "agent")
    return pd.DataFrame({"dialogue_id": groups, "turn": turn, "speaker": speaker, "text": content})

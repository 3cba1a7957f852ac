"""The bundled corpus of written support chats."""

from __future__ import annotations

import csv
from importlib.resources import files
from io import StringIO
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch, check_random_state, check_scalar

from ._dialogues import draw_dialogues, import_pandas
from ._simulated import simulate_votes


class _SimulatedLLM(NamedTuple):
    """How the simulated LLM errs, in logits; its bias also names the classes of the target."""

    signal: float
    class_bias: dict[str, float]
    dialogue_bias: float
    noise: float
    vote_noise: float


_X_COLUMNS = ("dialogue_id", "turn", "speaker", "text")
_N_VOTES = 5
_VOTES_SEED = 0
_LLM = {
    # sees feelings where people see none
    "sentiment": _SimulatedLLM(
        signal=1.9,
        class_bias={"negative": 0.25, "neutral": -0.7, "positive": 0.45},
        dialogue_bias=0.6,
        noise=0.8,
        vote_noise=0.5,
    ),
    # sees a purpose where people only pass on facts
    "act": _SimulatedLLM(
        signal=2.6,
        class_bias={
            "action": 0.0,
            "apology": 0.2,
            "closing": 0.0,
            "complaint": 0.6,
            "greeting": -0.2,
            "inform": -0.7,
            "question": 0.0,
            "request": 0.4,
            "thanks": 0.1,
        },
        dialogue_bias=0.5,
        noise=0.8,
        vote_noise=0.5,
    ),
}


def load_support_chats(
    *,
    target: str = "sentiment",
    n_human: int | None = 100,
    random_state: int | np.random.RandomState | None = 0,
    as_frame: bool = True,
    return_X_y: bool = False,
) -> Any:
    """Load 84 written support chats with labels, and SIMULATED votes of an LLM.

    The chats are synthetic: a language model wrote them, and their labels, for this package. They
    show no real conversation, person or company. Each of the 889 utterances has a sentiment and a
    dialogue act. A third of the chats, the same for every call, is held out: it has neither human
    labels nor votes to train on.

    The votes do not come from an LLM but from :func:`simulate_votes`, which adds random errors
    to the right labels. These errors do not depend on the text, so they average out more easily
    than those of a real LLM. Use the corpus to learn and to test, not to judge which method is
    better.

    ==================  =======
    Dialogues                84
    Utterances              889
    … held out              295
    Sentiments                3
    Dialogue acts             9
    ==================  =======

    Parameters
    ----------
    target : {"sentiment", "act"}, default="sentiment"
        What the labels say.
    n_human : int or None, default=100
        Number of utterances in `y_human` with a label. Whole dialogues that are not held out are
        labelled until it is reached, so there may be a few more. None: all that are not held out.
    random_state : int, RandomState instance or None, default=0
        Seed for the choice of the dialogues that have labels in `y_human`. The votes and the
        held-out chats do not depend on it.
    as_frame : bool, default=True
        True: `X` is a pandas DataFrame, `y` and `y_human` are Series. False: all are arrays.
    return_X_y : bool, default=False
        Return ``(X, y)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the attributes

        X : DataFrame of shape (889, 4) or ndarray of shape (889, 2)
            Columns `dialogue_id`, `turn`, `speaker`, `text`; as an array `dialogue_id` and
            `text`.
        y : Series or ndarray of shape (889,)
            The label of every utterance.
        y_human : Series or ndarray of shape (889,)
            A few of these labels, None elsewhere.
        y_llm : ndarray of shape (889, 5)
            Simulated votes, None in held-out chats.
        y_llm_is_simulated : bool
            True.
        test : ndarray of shape (889,), bool
            Which utterances are held out.
        groups : ndarray of shape (889,)
            The dialogue of each utterance.
        classes : ndarray of shape (n_classes,)
            The sorted labels.
        DESCR : str
            Description of the corpus and of its labels.
    (X, y) : tuple
        If `return_X_y` is True.

    Raises
    ------
    ImportError
        If `as_frame` is True and pandas is not installed.
    ValueError
        If `target` is unknown or `n_human` is out of range.

    See Also
    --------
    make_dialogues : Synthetic dialogues of any size.

    Examples
    --------
    >>> from sklearn_dialpref.datasets import load_support_chats
    >>> data = load_support_chats()
    >>> data.X.shape, data.classes.tolist()
    ((889, 4), ['negative', 'neutral', 'positive'])
    >>> int(data.y_human.notna().sum()), int(data.test.sum())
    (106, 295)

    Train on the one part and score on the other::

        clf.fit(data.X[~data.test], data.y_human[~data.test], data.y_llm[~data.test])
        clf.score(data.X[data.test], data.y[data.test])
    """
    if target not in _LLM:
        raise ValueError(f"target must be one of {sorted(_LLM)}, got {target!r}")
    columns = _read_columns()
    y, groups = columns[target], columns["dialogue_id"]
    if as_frame:
        pd = import_pandas("load_support_chats")
        X = pd.DataFrame({name: columns[name] for name in _X_COLUMNS}).astype({"turn": np.int64})
    else:
        X = np.column_stack([groups, columns["text"]])

    test = columns["split"] == "test"
    y_human = y.copy()
    y_human[~_draw_human(groups, test, n_human, random_state)] = None
    y_llm = _votes(target, y, groups)
    y_llm[test] = None
    if as_frame:
        y = pd.Series(y, name=target, dtype=object)
        y_human = pd.Series(y_human, name="y_human", dtype=object)
    if return_X_y:
        return X, y
    return Bunch(
        X=X,
        y=y,
        y_human=y_human,
        y_llm=y_llm,
        y_llm_is_simulated=True,
        test=test,
        groups=groups,
        classes=np.array(sorted(_LLM[target].class_bias), dtype=object),
        DESCR=_data_file("support_chats.rst"),
    )


def _data_file(name: str) -> str:
    return (files("sklearn_dialpref.datasets") / "data" / name).read_text(encoding="utf-8")


def _read_columns() -> dict[str, NDArray[Any]]:
    rows = csv.reader(StringIO(_data_file("support_chats.csv")))
    header = next(rows)
    return dict(zip(header, np.array(list(rows), dtype=object).T, strict=True))


def _draw_human(
    groups: NDArray[Any],
    test: NDArray[np.bool_],
    n_human: int | None,
    random_state: int | np.random.RandomState | None,
) -> NDArray[np.bool_]:
    """Mark the utterances outside the held-out chats that keep their human label."""
    n_train = int((~test).sum())
    n_wanted = n_train if n_human is None else n_human
    check_scalar(n_wanted, "n_human", Integral, min_val=0, max_val=n_train)
    _, group = np.unique(groups[~test], return_inverse=True)
    human = np.zeros(len(test), dtype=bool)
    human[~test] = draw_dialogues(group, n_wanted, check_random_state(random_state))
    return human


def _votes(target: str, y: NDArray[Any], groups: NDArray[Any]) -> NDArray[Any]:
    llm = _LLM[target]
    return simulate_votes(
        y,
        groups,
        classes=np.array(list(llm.class_bias), dtype=object),
        n_votes=_N_VOTES,
        signal=llm.signal,
        class_bias=list(llm.class_bias.values()),
        dialogue_bias=llm.dialogue_bias,
        noise=llm.noise,
        vote_noise=llm.vote_noise,
        random_state=_VOTES_SEED,
    )

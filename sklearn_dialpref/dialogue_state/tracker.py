"""Dialogue states, tracked by classifying what each utterance does to each slot."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from sklearn_dialpref._classifier import DialoguePreferenceClassifier
from sklearn_dialpref._dialogues.validation import Dialogues, check_whole_dialogues
from sklearn_dialpref.metrics._state_values import (
    NO_VALUE,
    Slots,
    check_single,
    normalise_state,
    read_slots,
    spellings,
)
from sklearn_dialpref.metrics.states import joint_goal_accuracy_score

from .changes import (
    States,
    accumulate,
    change_table,
    changes_in,
    collect_slots,
    most_probable,
    read_states,
    spans_of,
)

__all__ = ["DialogueStateTracker"]


class DialogueStateTracker(BaseEstimator):
    """Track the state of dialogues by predicting what each utterance changes.

    A multilabel classifier learns, for each slot, whether an utterance sets it (and to which
    value), clears it, or says that any value will do. A slot for which no change is predicted
    keeps its value. The predicted state is the sum of the changes so far.

    Parameters
    ----------
    estimator : estimator or None, default=None
        Multilabel classifier with ``fit(X, y_human, y_llm)``, ``predict`` and ``predict_proba``;
        None stands for a :class:`DialoguePreferenceClassifier` with its defaults.
    slots : dict or None, default=None
        The slots. A categorical slot has the list of its values; a free slot has None, and only
        whether it is set is learned and predicted. By default all slots in the labels, as
        categorical slots with the values that the labels give them.
    dontcare : object, default="dontcare"
        The value that stands for "any will do", in all slots.

    Attributes
    ----------
    slots_ : dict
        The slots, with a tuple of values for categorical ones and None for free ones.
    changes_ : list of Change
        The labels of the classifier: named tuples of ``slot`` and ``value``, which is a value, or
        one of the strings ``"<set>"`` (a free slot) and ``"<cleared>"``.
    speakers_ : set, or None
        Speakers whose utterances can change the state: those with a labelled utterance. None if
        ``X`` names no speakers.
    estimator_ : estimator
        Fitted classifier.

    See Also
    --------
    flatten_states : Makes states of one level of nested ones, such as those of MultiWOZ.
    joint_goal_accuracy_score : Measures whole states.
    slot_f1_score : Measures slot by slot.

    Notes
    -----
    The label of an utterance is the state after it. The utterance made the difference from the
    last labelled state before it in the dialogue, or from an empty state at the beginning. If
    utterances in between have no label, it is unknown which of them changed a slot that differs;
    a slot that is the same is taken as unchanged by all of them. Whether an utterance repeated
    what held already is unknown and makes no difference.

    A later value replaces an earlier one; of several predicted changes of a slot in one utterance
    the most probable counts. Human labels must not name slots or values that are not in
    ``slots``; those in LLM labels are left out, with a warning.

    Values of free slots (names, times) would have to be copied out of the text, which is not a
    classification; ``"<set>"`` takes their place. Services and domains are part of a slot's name,
    such as ``("Hotels", "stars")``.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_dialpref import DialoguePreferenceClassifier, DialogueStateTracker
    >>> X = pd.DataFrame({
    ...     "dialogue_id": [0, 0, 1, 1],
    ...     "text": ["north please", "four stars", "south please", "any stars"],
    ... })
    >>> y = [{"area": "north"}, {"area": "north", "stars": "4"},
    ...      {"area": "south"}, {"area": "south", "stars": "dontcare"}]
    >>> tracker = DialogueStateTracker(DialoguePreferenceClassifier(random_state=0))
    >>> tracker.fit(X, y).predict(X).tolist() == y
    True
    """

    __metadata_request__fit = {"y_human": UNUSED, "y_llm": True}

    def __init__(
        self,
        estimator: Any = None,
        *,
        slots: Mapping[Any, Sequence[Any] | None] | None = None,
        dontcare: Any = "dontcare",
    ) -> None:
        self.estimator = estimator
        self.slots = slots
        self.dontcare = dontcare

    def fit(self, X: Any, y_human: Any, y_llm: Any = None) -> DialogueStateTracker:
        """Train the classifier of changes.

        Parameters
        ----------
        X : DataFrame of n rows
            Utterances, as for the classifier, of whole dialogues.
        y_human : sequence of n dict, or None
            State after each utterance, slots and values; None, NaN or pd.NA where missing. So is
            a slot's value: the slot is then absent. A list or array of values stands for
            different spellings of one value.
        y_llm : sequence of n dict, array-like of dict of shape (n, n_votes), or None, default=None
            States that an LLM gave, or several of them, such as
            :meth:`DialogueStateAnnotator.predict` returns.

        Returns
        -------
        self : DialogueStateTracker

        Raises
        ------
        ValueError
            If a human label names an unknown slot or value, nothing is labelled, no slot ever
            changes, or a state is nested (see :func:`flatten_states`).
        TypeError
            If a state is not a dict, a value cannot be compared, or `slots` is not a dict of
            lists and None.
        """
        check_single(self.dontcare, "dontcare")
        dialogues = check_whole_dialogues(X)
        unlabelled: States = [None] * len(dialogues)
        human, *others = read_states(y_human, len(dialogues), "y_human") or [unlabelled]
        if others:
            raise ValueError(
                "y_human must hold one state for each utterance, but has several; pass those of "
                "an LLM as y_llm"
            )
        votes = read_states(y_llm, len(dialogues), "y_llm")
        _warn_of_placeholders([human], "y_human")
        _warn_of_placeholders(votes, "y_llm")
        self.slots_ = self._slots([human, *votes])
        human = self._normalised(human, "y_human")
        votes = [self._normalised(vote, "y_llm") for vote in votes]
        self.speakers_ = _speakers(dialogues, [human, *votes])
        can_change = self._can_change(dialogues)

        spans = [spans_of(states, dialogues, can_change) for states in (human, *votes)]
        made = set().union(*map(changes_in, spans))
        if not made:
            raise ValueError(
                "no slot ever changes in y_human or y_llm: there is nothing to learn; label the "
                "states of some dialogues from their beginning"
            )
        order = {slot: index for index, slot in enumerate(self.slots_)}
        self.changes_ = sorted(
            made,
            key=lambda change: (
                order[change.slot],
                str(change.value),
                type(change.value).__name__,  # of 1 and "1": sets have no order of their own
            ),
        )
        tables = [change_table(some, len(dialogues), self.changes_) for some in spans]
        scores = _mean_of_known(np.stack(tables[1:])) if votes else None
        estimator = DialoguePreferenceClassifier() if self.estimator is None else self.estimator
        self.estimator_ = clone(estimator).fit(X, tables[0], scores)
        return self

    def _slots(self, states: list[States]) -> Slots:
        if self.slots is None:
            return collect_slots((state for vote in states for state in vote), self.dontcare)
        return read_slots(self.slots)

    def _normalised(self, states: States, name: str) -> States:
        """The states in the values of the slots; human labels must hold no other values."""
        normalised: States = []
        n_unknown = 0
        for row, state in enumerate(states):
            if state is None:
                normalised.append(None)
                continue
            known, unknown = normalise_state(state, self.slots_, self.dontcare)
            if unknown and name == "y_human":
                raise ValueError(
                    f"y_human has {unknown[0][0]!r}: {unknown[0][1]!r} in row {row}, which slots= "
                    "does not name; add it there, or correct the label"
                )
            n_unknown += bool(unknown)
            normalised.append(known)
        if n_unknown:
            warnings.warn(
                f"{name}: {n_unknown} states name slots or values that are not in slots; these "
                "are left out",
                UserWarning,
                stacklevel=3,
            )
        return normalised

    def _can_change(self, dialogues: Dialogues) -> NDArray[np.bool_]:
        if self.speakers_ is None or dialogues.speaker is None:
            return np.ones(len(dialogues), dtype=bool)
        return np.array([speaker in self.speakers_ for speaker in dialogues.speaker], dtype=bool)

    def predict(self, X: Any) -> NDArray[Any]:
        """The state after each utterance.

        Parameters
        ----------
        X : DataFrame of n rows
            Utterances, with all that came before them in their dialogues.

        Returns
        -------
        states : ndarray of shape (n,), of dict
            Slots and values, ``"<set>"`` for a free slot that has one.
        """
        check_is_fitted(self, "estimator_")
        dialogues = check_whole_dialogues(X)
        predicted = np.asarray(self.estimator_.predict(X)) == 1
        predicted &= self._can_change(dialogues)[:, None]
        made = most_probable(self.estimator_.predict_proba(X), predicted, self.changes_)
        return accumulate(made, dialogues)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Joint goal accuracy of the categorical slots, on the utterances that have a state.

        Parameters
        ----------
        X : DataFrame of n rows
            Whole dialogues.
        y : sequence of n dict
            True states; missing where None, NaN or pd.NA.
        sample_weight : array-like of shape (n,), default=None
            Weights of the utterances.

        Returns
        -------
        float
            See :func:`joint_goal_accuracy_score`.

        Raises
        ------
        ValueError
            If all slots are free, or no utterance has a state.
        """
        predicted = self.predict(X)
        categorical = [slot for slot, values in self.slots_.items() if values is not None]
        if not categorical:
            raise ValueError(
                "score compares the values of categorical slots, but all slots are free; use "
                "slot_f1_score on predict(X) and y with '<set>' for each value"
            )
        return joint_goal_accuracy_score(
            y, predicted, slots=categorical, sample_weight=sample_weight
        )


def _warn_of_placeholders(votes: list[States], name: str) -> None:
    for states in votes:
        for row, state in enumerate(states):
            for slot, value in (state or {}).items():
                if any(option in NO_VALUE for option in spellings(value)):
                    warnings.warn(
                        f"{name}, row {row}, slot {slot!r}: {value!r} is learned as a value; if "
                        f"it stands for none, pass flatten_states({name})",
                        UserWarning,
                        stacklevel=3,
                    )
                    return


def _speakers(dialogues: Dialogues, votes: list[States]) -> set[Any] | None:
    """Speakers of labelled utterances."""
    if dialogues.speaker is None:
        return None
    labelled = np.array([[state is not None for state in vote] for vote in votes]).any(axis=0)
    return set(dialogues.speaker[labelled])


def _mean_of_known(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over the first axis, of what is there; NaN where nothing is."""
    known = ~np.isnan(tables)
    count = known.sum(axis=0)
    total = np.where(known, tables, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)

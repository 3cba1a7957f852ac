"""The teacher of dialogue states: an ensemble of prompts and models that track them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklearn_dialpref._compat import Interval
from sklearn_dialpref._dialogues.validation import Dialogues, check_whole_dialogues
from sklearn_dialpref.metrics._state_values import (
    normalise_state,
    read_state,
    state_column,
)

from .base import BaseAnnotator
from .card import state_card_content
from .checks import check_members
from .panel import Panel
from .questions import Examples
from .state_answers import ChangeAnswers, add_up
from .state_prompts import MOST_PROMPTS, state_prompts
from .state_slots import DONTCARE, SlotNames

__all__ = ["DialogueStateAnnotator"]


class DialogueStateAnnotator(BaseAnnotator):
    r"""Track the states of dialogues by language models, asked in several ways.

    Each model is asked, by each of several prompts, what an utterance changes: which slots it
    sets, to which values, for which it leaves the value open, and which it clears. The changes
    add up to the state after each utterance. ``predict`` returns one state for each member of
    the ensemble, which is what :meth:`DialogueStateTracker.fit` takes as ``y_llm``.

    Parameters
    ----------
    slots : dict
        The slots, as for :class:`DialogueStateTracker`: a categorical slot has the list of its
        values, a free slot has None. Of a free slot the value is a few words of the
        conversation. Slots may be tuples, and values may be numbers: models see distinct names
        of them.
    model : str, callable, or list of them, default="gpt-4o-mini"
        Name of a model of the endpoint, or a function of the messages (a list of dict with
        ``role`` and ``content``) that returns the answer as str or as a ``Completion``.
    task : str, default="what the user wants"
        What the slots describe, such as "the hotel that the user looks for".
    descriptions : mapping of slot to str, default=None
        What slots mean; all prompts show it.
    dontcare : object, default="dontcare"
        The value that stands for "any will do", in all slots.
    n_prompts : int, default=4
        How many prompts, of at most 32. They differ in wording, role, order of the slots, and
        whether one or three earlier turns are shown.
    utterances_per_call : int or "dialogue", default=1
        How many utterances of a dialogue one call asks about, at most 100. "dialogue": all, but
        equal parts of dialogues of more than 50. Far fewer tokens than one by one.
    json_schema : bool, default=True
        Whether answers are bound by a JSON schema of the slots. Answers are checked in any case;
        False is for endpoints that know no ``response_format``.
    mode : {"live", "batch"}, default="live"
        How endpoints are asked, as of :class:`LLMAnnotator`.
    base_url : str, default=None
        Address of an endpoint that speaks the OpenAI API. None: OpenAI.
    api_key_env : str, default="OPENAI_API_KEY"
        Name of the environment variable that holds the key. The key itself is never kept.
    extra_body : mapping, default=None
        Further entries of each request.
    cache : "auto", str, Path or None, default="auto"
        File of all answers, as of :class:`LLMAnnotator`. It holds no utterances, but the values
        of free slots, which are words of the conversation.
    concurrency : int or "auto", default="auto"
        How many calls are made at once. "auto": 16, or 1 for a function that is not a coroutine
        function.
    timeout : float, default=60.0
        Seconds until a call counts as lost.
    max_retries : int, default=6
        How often a call that failed for a while is repeated.
    requests_per_minute, tokens_per_minute : float, default=None
        Highest rates of the calls that are made; retries come on top.
    prices : tuple of float, or mapping of model to them, default=None
        Price of a million tokens in, and of a million out, and optionally of a million in that
        the endpoint had cached.
    budget : float, default=None
        What a ``predict`` may cost at most, in the currency of ``prices``.
    token_budget : int, default=None
        How many tokens a ``predict`` may take at most, in and out together.
    random_state : int, RandomState or None, default=0
        Seed of the prompts.
    verbose : int, default=0
        1 shows a progress bar with calls, cost and time left.

    Attributes
    ----------
    slots_ : dict
        The slots, with a tuple of values for categorical ones and None for free ones.
    speakers_ : set, or None
        Speakers whose utterances are asked about: those with a human-labelled utterance. None:
        all.
    prompts_ : list of StatePrompt
    members_ : list of (model, prompt id)
        The members of the ensemble.
    votes_ : ndarray of object, shape (n, n_members)
        What the last ``predict`` returned.
    agreement_ : ndarray of shape (n,)
        Share of the members with a state that have the commonest one; NaN where none has one.
    failures_ : list of dict
        Questions of the last pass without an answer: ``row``, ``model``, ``prompt``, ``reason``.
    usage_ : dict
        What the last pass used, as of :class:`LLMAnnotator`.

    See Also
    --------
    DialogueStateTracker : The student.
    LLMAnnotator : The teacher of labels.

    Notes
    -----
    Answers are JSON. One with an unknown slot or value, with a slot that comes twice, or that
    cannot be read counts as none, and ``failures_`` says why. What such an utterance changed is
    unknown: for that member its state and all that follow in the dialogue are None.

    Values are matched without regard to capitals. A value of a free slot that differs from the
    one that held before in capitals alone is no change.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_dialpref import DialogueStateAnnotator
    >>> def model(messages):  # stands for a language model
    ...     utterance = messages[-1]["content"].split("\n\n")[-2]
    ...     return '[{"area": "north"}]' if "north" in utterance else "[]"
    >>> X = pd.DataFrame({"dialogue_id": [0, 0], "text": ["Something in the north.", "Thanks!"]})
    >>> annotator = DialogueStateAnnotator({"area": ["north", "south"]}, model, n_prompts=2)
    >>> annotator.fit(X).predict(X).tolist()
    [[{'area': 'north'}, {'area': 'north'}], [{'area': 'north'}, {'area': 'north'}]]
    """

    _parameter_constraints = {
        **BaseAnnotator._parameter_constraints,
        "slots": [Mapping],
        "descriptions": [Mapping, None],
        "n_prompts": [Interval(Integral, 1, MOST_PROMPTS, closed="both")],
        "json_schema": ["boolean"],
    }

    def __init__(
        self,
        slots: Mapping[Any, Any],
        model: str | Callable[..., Any] | list[Any] = "gpt-4o-mini",
        *,
        task: str = "what the user wants",
        descriptions: Mapping[Any, str] | None = None,
        dontcare: Any = DONTCARE,
        n_prompts: int = 4,
        utterances_per_call: int | str = 1,
        json_schema: bool = True,
        mode: str = "live",
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        extra_body: Mapping[str, Any] | None = None,
        cache: str | Path | None = "auto",
        concurrency: int | str = "auto",
        timeout: float = 60.0,
        max_retries: int = 6,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        prices: tuple[float, ...] | Mapping[str, tuple[float, ...]] | None = None,
        budget: float | None = None,
        token_budget: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: int = 0,
    ) -> None:
        self.slots = slots
        self.model = model
        self.task = task
        self.descriptions = descriptions
        self.dontcare = dontcare
        self.n_prompts = n_prompts
        self.utterances_per_call = utterances_per_call
        self.json_schema = json_schema
        self.mode = mode
        self.base_url = base_url
        self.api_key_env = api_key_env
        self.extra_body = extra_body
        self.cache = cache
        self.concurrency = concurrency
        self.timeout = timeout
        self.max_retries = max_retries
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute
        self.prices = prices
        self.budget = budget
        self.token_budget = token_budget
        self.random_state = random_state
        self.verbose = verbose

    # -- fitting ----------------------------------------------------------------------------

    def fit(self, X: Any, y_human: Any = None) -> DialogueStateAnnotator:
        """Check the settings, and learn from human labels whose utterances change states.

        Nothing is asked.

        Parameters
        ----------
        X : DataFrame of n rows
            Utterances of whole dialogues.
        y_human : sequence of n dict, default=None
            State after each utterance, as for :meth:`DialogueStateTracker.fit`.

        Returns
        -------
        self : DialogueStateAnnotator

        Raises
        ------
        ValueError
            If a parameter or ``X`` is not as described, or a label has a slot or a value that
            ``slots`` does not name.
        TypeError
            If ``slots`` is not a dict of lists and None, or a label not a dict.
        """
        models = self._start()
        dialogues = self._dialogues(X)
        self._names = SlotNames(self.slots, self.dontcare)
        self.slots_ = self._names.slots
        self.speakers_ = self._speakers(dialogues, y_human)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        self.prompts_ = state_prompts(
            self._names, int(self.n_prompts), self.task, self.descriptions, seed
        )
        on_disk = self.cache not in (None, "auto")
        check_members(models, self.prompts_, "schema", given=self.model, on_disk=on_disk)
        for result in ("votes_", "agreement_"):
            self.__dict__.pop(result, None)
        self.members_ = self._panel().members
        return self

    def _speakers(self, dialogues: Dialogues, y_human: Any) -> set[Any] | None:
        """Those with a labelled utterance, as the tracker has them."""
        if y_human is None:
            return None
        states = [
            read_state(state, row, "y_human")
            for row, state in enumerate(state_column(y_human, "y_human"))
        ]
        if len(states) != len(dialogues):
            raise ValueError(
                f"y_human must hold a state for each of the {len(dialogues)} utterances, None "
                f"where missing, but has {len(states)}"
            )
        labelled = [row for row, state in enumerate(states) if state is not None]
        for row in labelled:
            _, unknown = normalise_state(states[row] or {}, self.slots_, self.dontcare)
            if unknown:
                raise ValueError(
                    f"y_human has {unknown[0][0]!r}: {unknown[0][1]!r} in row {row}, which slots "
                    "does not name; add it there, or correct the label"
                )
        if dialogues.speaker is None or not labelled:
            return None
        return set(dialogues.speaker[labelled])

    # -- tracking ---------------------------------------------------------------------------

    def predict(self, X: Any) -> NDArray[Any]:
        """Ask what each utterance changes, and add it up.

        Parameters
        ----------
        X : DataFrame of n rows
            Utterances of whole dialogues, from their beginning.

        Returns
        -------
        states : ndarray of object, shape (n, n_members)
            The state after each utterance as each member has it, a dict; None from where an
            answer is missing to the end of the dialogue, see ``failures_``, and where a speaker
            is not among ``speakers_``.

        Raises
        ------
        NotFittedError
            If the annotator is not fitted.
        EndpointError
            If the endpoint cannot be used at all, or no longer.
        """
        check_is_fitted(self, "prompts_")
        dialogues = self._dialogues(X)
        asked = self._asked(dialogues)
        answers = ChangeAnswers(len(dialogues), self.members_, self._names)
        self._pass(dialogues, np.flatnonzero(asked), answers)
        columns = [add_up(changes, asked, dialogues, self.slots_) for changes in answers.changes]
        self.votes_ = np.stack(columns, axis=1)
        self.agreement_ = np.array([_agreement(states) for states in self.votes_])
        if self.failures_:
            unknown = sum(state is None for state in self.votes_[asked].ravel())
            warnings.warn(
                f"{len(self.failures_)} questions got no answer, so that {unknown} of "
                f"{self.votes_[asked].size} states are unknown; failures_ says why, for "
                f"instance: {self.failures_[0]['reason']}",
                UserWarning,
                stacklevel=2,
            )
        return self.votes_

    def _dialogues(self, X: Any) -> Dialogues:
        return check_whole_dialogues(X, precomputed=False)

    def _asked(self, dialogues: Dialogues) -> NDArray[np.bool_]:
        """Utterances that can change a state."""
        if self.speakers_ is None or dialogues.speaker is None:
            return np.ones(len(dialogues), dtype=bool)
        return np.array([speaker in self.speakers_ for speaker in dialogues.speaker], dtype=bool)

    def _card_content(self) -> dict[str, Any]:
        return state_card_content(
            self._panel(),
            date=self._date,
            base_url=self.base_url,
            names=self._names,
            states=self.votes_,
            agreement=self.agreement_,
            usage=self.usage_,
            failures=self.failures_,
        )

    def _panel(self) -> Panel:
        # one answer at temperature 0, bound by the schema or not
        scoring = {
            "scoring": "schema" if self.json_schema else "samples",
            "n_samples": 1,
            "sampling_temperature": 0.0,
        }
        params = {**self.get_params(deep=False), **scoring}
        memory = self._answer_memory()
        return Panel.from_params(params, self.prompts_, Examples(), np.array([]), memory)


def _agreement(states: NDArray[Any]) -> float:
    known = Counter(frozenset(state.items()) for state in states if state is not None)
    return max(known.values()) / known.total() if known else float("nan")

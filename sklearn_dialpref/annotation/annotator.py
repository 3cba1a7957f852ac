"""The teacher: an ensemble of prompts and models as a scikit-learn classifier."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklearn_dialpref._compat import Interval, StrOptions
from sklearn_dialpref._dialogues.validation import Dialogues, check_dialogues, missing_in

from . import ensemble, several_labels
from .answers import Answers
from .bank import PromptBank
from .base import BaseAnnotator
from .card import card_content
from .checks import (
    LEARNABLE,
    check_asked,
    check_labels,
    check_members,
    check_prompts,
    labels_to_score,
)
from .panel import Panel
from .questions import Examples, examples_among, labelled_rows
from .scoring import SCORINGS
from .stopping import DEFAULT_LEAD, asking_order, choose_threshold, is_sure, stopped

__all__ = ["LLMAnnotator"]


class LLMAnnotator(ClassifierMixin, BaseAnnotator):
    r"""Label the utterances of dialogues by language models, asked in several ways.

    Each utterance is put to each model by each prompt of a bank; the answers are averaged to one
    score per class, so that ``predict_proba`` is what
    :meth:`DialoguePreferenceClassifier.fit` takes as ``y_llm``. An utterance that no prompt got
    an answer for has a row of NaN: no label is made up. Utterances are asked about one by one or,
    for fewer tokens, whole stretches of a dialogue at once.

    Parameters
    ----------
    classes : sequence, default=None
        The labels. None: those of ``y_human``.
    model : str, callable, or list of them, default="gpt-4o-mini"
        Name of a model of the endpoint, or a function of the messages (a list of dict with
        ``role`` and ``content``) that returns the answer as str or as a ``Completion``. Several
        models are averaged.
    prompts : PromptBank, default=None
        The prompts. None: the eight of :meth:`PromptBank.default`.
    task : str, default="the label"
        What the default prompts ask for, with its article, such as "the sentiment".
    definitions : mapping of class to str, default=None
        What each class means; the default prompts show it.
    multilabel : bool, default=False
        Whether any number of labels may apply to an utterance.
    n_examples : int, default=0
        How many labelled examples every second default prompt shows. They are never taken from
        the dialogue that is being labelled, and need ``y_human``.
    scoring : {"auto", "logprobs", "samples", "schema"}, default="auto"
        How an answer becomes scores: by the log-probabilities of the codes of the labels; by
        the shares of ``n_samples`` sampled answers; by one answer, bound to the codes by a JSON
        schema, which gets all the score. "auto": log-probabilities where the endpoint gives
        them, otherwise samples; of a function its one answer.
    utterances_per_call : int or "dialogue", default=1
        How many utterances of a dialogue one call asks about, at most 100. "dialogue": all, but
        equal parts of dialogues of more than 50. Far fewer tokens than one by one; the model
        then sees turns that come later. Prompts given must be for stretches.
    stop_when_sure : bool or float, default=False
        Whether members are asked in turn, and no further about an utterance once the answers so
        far agree: once the label that leads is so many answers ahead of the next. True: by the
        lead that human labels speak for, or 3.5 where they are few.
    n_samples : int, default=5
        How many answers are sampled to each question, where answers are sampled.
    sampling_temperature : float, default=1.0
        The temperature at which they are sampled.
    learn : tuple of {"temperature", "bias", "weights"}, default=all three
        What ``fit`` may learn from human labels: a temperature, a bias for each class, and
        weights of the members.
    mode : {"live", "batch"}, default="live"
        How endpoints are asked. "batch": through ``/files`` and ``/batches``, which providers
        process within a day, many at half the price. A pass waits for its batches; what was
        killed meanwhile is taken in by the next pass with the same ``cache``. Models must be
        given by name. "live" asks at once, even what still waits in a batch.
    base_url : str, default=None
        Address of an endpoint that speaks the OpenAI API, such as vLLM, llama.cpp, Ollama or
        OpenRouter. None: OpenAI.
    api_key_env : str, default="OPENAI_API_KEY"
        Name of the environment variable that holds the key. The key itself is never kept.
    extra_body : mapping, default=None
        Further entries of each request, such as ``{"reasoning_effort": "none"}``. A model that
        thinks before it answers must be told not to.
    cache : "auto", str, Path or None, default="auto"
        File of all answers (sqlite), so that none is paid for twice, whatever happens; several
        processes may share one, and the work. It holds hashes and answers, no utterances. "auto":
        ``answers.sqlite`` in the user's cache folder for models of an endpoint; answers of
        functions stay in the memory of this annotator, as those of all models do with None.
    concurrency : int or "auto", default="auto"
        How many calls are made at once. "auto": 16, or 1 for a function that is not a coroutine
        function.
    timeout : float, default=60.0
        Seconds until a call counts as lost.
    max_retries : int, default=6
        How often a call that failed for a while (429, 5xx, timeout, broken connection) is
        repeated.
    requests_per_minute, tokens_per_minute : float, default=None
        Highest rates of the calls that are made; retries come on top.
    prices : tuple of two or three floats, or mapping of model to them, default=None
        Price of a million tokens in, of a million out and, where it differs, of a million in that
        the endpoint had in its cache of prompts, in any currency. With ``mode="batch"``, the
        prices of batches.
    budget : float, default=None
        What a pass (a ``fit`` with labels, a ``predict_proba``) may cost at most, in the currency
        of ``prices``. Calls that could pass it are not made; their failure says so. In batches
        they wait until others are billed, up to five times.
    token_budget : int, default=None
        How many tokens a pass may take at most, in and out together.
    random_state : int, RandomState or None, default=0
        Seed of the default prompts, the choice of examples and the folds.
    verbose : int, default=0
        1 shows a progress bar with calls, cost and time left.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    prompts_ : PromptBank
    combination_ : Combination, or list of them
        Weights of the members, temperature and bias per class. Where several labels may apply,
        one for each label, of no and yes.
    lead_ : float or None
        How far the leading label must be ahead; None where all members are asked.
    members_ : list of (model, prompt id)
        The members of the ensemble.
    scores_ : ndarray of shape (n, n_members, n_classes)
        Scores of the last ``predict_proba``; NaN where a member gave no answer, or was not asked.
    votes_ : ndarray of object, shape (n, n_members)
        The likeliest label of each member, or a tuple of labels; None where it gave none.
    agreement_ : ndarray of shape (n,)
        Share of the members with an answer that vote for the commonest label; NaN where none.
    failures_ : list of dict
        Questions of the last pass without an answer: ``row``, ``model``, ``prompt``, ``reason``.
    usage_ : dict
        What the last pass used: ``calls``, answers ``cached`` and ``failed``, ``tokens_in``,
        ``tokens_out``, ``tokens_cached`` of those in, and ``cost``.

    See Also
    --------
    DialoguePreferenceClassifier : The student.
    votes_to_scores : For labels that were got elsewhere.

    Notes
    -----
    Without human labels the score of class *c* is the mean over members,
    :math:`\bar s_c = \sum_a w_a s_{ac}` with equal weights. With human labels it is
    :math:`\mathrm{softmax}_c(\log(\bar s_c + 0.01) / T + b_c)`, and each of *T*, *b* and *w* is
    learned only if cross-validation over dialogues finds the log-loss to fall by more than its
    standard error. With fewer than 20 labels, or 5 dialogues, nothing is learned.

    More than 52 classes have codes of several characters and need ``scoring="schema"`` or
    ``"samples"``. The user guide says how utterances are shortened, and how answers are kept.

    Examples
    --------
    >>> from sklearn_dialpref import LLMAnnotator
    >>> def model(messages):  # stands for a language model
    ...     options = dict(line.split(": ") for line in messages[-1]["content"].splitlines()
    ...                    if line.endswith(("complaint", "thanks")))
    ...     code = {label: code for code, label in options.items()}
    ...     return code["thanks" if "Thank" in messages[-1]["content"] else "complaint"]
    >>> annotator = LLMAnnotator(["complaint", "thanks"], model).fit(["Where is my parcel?"])
    >>> annotator.predict(["My parcel is late.", "Thank you!"]).tolist()
    ['complaint', 'thanks']
    >>> annotator.usage_["calls"]
    16
    """

    _parameter_constraints = {
        **BaseAnnotator._parameter_constraints,
        "classes": ["array-like", None],
        "definitions": [Mapping, None],
        "multilabel": ["boolean"],
        "n_examples": [Interval(Integral, 0, None, closed="left")],
        "scoring": [StrOptions(SCORINGS.keys())],  # a view: ways that are added count
        "stop_when_sure": ["boolean", Interval(Real, 0, None, closed="neither")],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "sampling_temperature": [Interval(Real, 0, None, closed="left")],
        "learn": [tuple, list],
    }

    def __init__(
        self,
        classes: Sequence[Any] | None = None,
        model: str | Callable[..., Any] | list[Any] = "gpt-4o-mini",
        *,
        prompts: PromptBank | None = None,
        task: str = "the label",
        definitions: Mapping[Any, str] | None = None,
        multilabel: bool = False,
        n_examples: int = 0,
        scoring: str = "auto",
        utterances_per_call: int | str = 1,
        stop_when_sure: bool | float = False,
        n_samples: int = 5,
        sampling_temperature: float = 1.0,
        learn: Sequence[str] = LEARNABLE,
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
        self.classes = classes
        self.model = model
        self.prompts = prompts
        self.task = task
        self.definitions = definitions
        self.multilabel = multilabel
        self.n_examples = n_examples
        self.scoring = scoring
        self.utterances_per_call = utterances_per_call
        self.stop_when_sure = stop_when_sure
        self.n_samples = n_samples
        self.sampling_temperature = sampling_temperature
        self.learn = learn
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

    def fit(self, X: Any, y_human: Any = None) -> LLMAnnotator:
        """Check the settings; with human labels, learn how to combine the answers.

        Without human labels nothing is asked. With them the labelled utterances are.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            Utterances, as for :meth:`DialoguePreferenceClassifier.fit`, with whole dialogues.
        y_human : array-like of shape (n,) or (n, n_classes), default=None
            Human labels; None, NaN or pd.NA where missing. 2-D where several labels may apply:
            0, 1 or missing for each.

        Returns
        -------
        self : LLMAnnotator

        Raises
        ------
        ValueError
            If a parameter, ``X`` or the labels are not as described.
        EndpointError
            If there are labels, and the endpoint cannot be used.
        """
        models = self._start()
        dialogues = check_dialogues(X, precomputed=False)
        n_examples = self.n_examples or sum(prompt.n_examples for prompt in self.prompts or ())
        labels, self.classes_ = check_labels(
            y_human, len(dialogues), self.classes, n_examples, self.multilabel
        )
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        self.prompts_ = self._bank(seed)
        on_disk = self.cache not in (None, "auto")
        check_members(models, self.prompts_, self.scoring, given=self.model, on_disk=on_disk)
        for result in ("scores_", "votes_", "agreement_"):
            self.__dict__.pop(result, None)
        known = labelled_rows(dialogues, labels)
        shown = examples_among(labels, known, self.classes_)
        self._examples = Examples.drawn_from(dialogues, *shown, seed)
        self.members_ = self._panel().members
        self.lead_ = None
        if self.stop_when_sure:
            self.lead_ = DEFAULT_LEAD if self._learns_lead else float(self.stop_when_sure)
        self.combination_ = self._ensemble.plain(len(self.members_), len(self.classes_))
        if len(known) and (self.learn or self._learns_lead):
            self._learn(dialogues, known, labels[known], seed)
        return self

    def _bank(self, seed: int) -> PromptBank:
        if self.prompts is not None:
            stretches = self.utterances_per_call != 1
            check_prompts(self.prompts, self.classes_, self.multilabel, stretches)
            return self.prompts
        return PromptBank.default(
            self.task,
            self.classes_.tolist(),
            self.definitions,
            n_examples=self.n_examples,
            random_state=seed,
            multilabel=self.multilabel,
            stretches=self.utterances_per_call != 1,
        )

    def _learn(
        self, dialogues: Dialogues, rows: NDArray[np.int64], labels: NDArray[Any], seed: int
    ) -> None:
        """How answers are combined, and when enough have come, from rows with human labels."""
        groups = dialogues.group[rows]
        if self._learns_lead:
            scores = self._annotate(dialogues, rows, lead=None)
            order = asking_order(len(self.members_) // len(self.prompts_), len(self.prompts_))
            self.lead_ = choose_threshold(
                scores, labels, groups, order, multilabel=self.multilabel, seed=seed
            )
            scores = stopped(scores, self.lead_, order, multilabel=self.multilabel)
        else:
            scores = self._annotate(dialogues, rows, self.lead_)
        parts = {part: part in self.learn for part in LEARNABLE}
        self.combination_ = self._ensemble.fit_combination(
            scores, labels, groups, seed=seed, **parts
        )

    @property
    def _learns_lead(self) -> bool:
        """Whether the lead is not given; 1 is one, and no True."""
        return isinstance(self.stop_when_sure, bool | np.bool_) and bool(self.stop_when_sure)

    @property
    def _ensemble(self) -> Any:
        """How answers become scores: of one label, or of any number."""
        return several_labels if self.multilabel else ensemble

    # -- labelling --------------------------------------------------------------------------

    def predict_proba(self, X: Any, *, asked: Any = None) -> NDArray[np.float64]:
        """Ask for the label of each utterance.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            Utterances, with whole dialogues where prompts show context.
        asked : array-like of bool, shape (n,), default=None
            Utterances that are asked about; the others are only shown as context, and their rows
            are NaN. None: all.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Columns in the order of ``classes_``. Rows sum to 1 or, where several labels may
            apply, hold the probability of each; NaN where no prompt got an answer, see
            ``failures_``.

        Raises
        ------
        NotFittedError
            If the annotator is not fitted.
        ValueError
            If ``X`` or ``asked`` is not as described.
        EndpointError
            If the endpoint cannot be used at all, or no longer.
        """
        check_is_fitted(self, "combination_")
        dialogues = check_dialogues(X, precomputed=False)
        rows = self._last_rows = np.flatnonzero(check_asked(asked, len(dialogues)))
        scores = self._annotate(dialogues, rows, self.lead_)
        self.scores_ = np.full((len(dialogues), *scores.shape[1:]), np.nan)
        self.scores_[rows] = scores
        self.votes_ = self._ensemble.votes(self.scores_, self.classes_)
        self.agreement_ = self._ensemble.agreement(self.scores_)
        combined = self._ensemble.combine(self.scores_, self.combination_)
        if lost := int(np.isnan(combined[rows, 0]).sum()):
            warnings.warn(
                f"{lost} of {len(rows)} utterances got no answer and are NaN; failures_ says "
                f"why, for instance: {self.failures_[0]['reason']}",
                UserWarning,
                stacklevel=2,
            )
        return combined

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class of each utterance.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            As for :meth:`predict_proba`.

        Returns
        -------
        ndarray of shape (n,) or (n, n_classes)
            Of the labels' type; of object, with None, where an utterance got no answer. Where
            several labels may apply, 1 for each of at least 0.5, else 0, and NaN without an
            answer.
        """
        scores = self.predict_proba(X)
        missing = np.isnan(scores[:, 0])
        if self.multilabel:
            table = (np.nan_to_num(scores) >= 0.5).astype(float)
            table[missing] = np.nan
            return table if missing.any() else table.astype(np.int64)
        labels = self.classes_[np.nan_to_num(scores).argmax(axis=1)]
        if missing.any():
            labels = labels.astype(object)
            labels[missing] = None
        return labels

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on the rows with a label; an utterance without an answer counts as wrong.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            As for :meth:`predict_proba`.
        y : array-like of shape (n,) or (n, n_classes)
            Human labels, missing where None, NaN or pd.NA. Where several labels may apply, a row
            is right if all that it has are.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If no row has a label, or ``y`` is of another shape.
        """
        n_rows = len(check_dialogues(X, precomputed=False))
        labels = labels_to_score(y, n_rows, self.classes_, self.multilabel)
        missing = np.isnan(labels) if self.multilabel else missing_in(labels)
        known = ~(missing.all(axis=1) if self.multilabel else missing)
        if not known.any():
            raise ValueError("score needs labels, but all of y is missing")
        right = self.predict(X).astype(object) == labels.astype(object)
        if self.multilabel:
            right = (right | missing).all(axis=1)
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(right[known], weights=weight))

    def _card_content(self) -> dict[str, Any]:
        return card_content(
            self._panel(),
            date=self._date,
            base_url=self.base_url,
            scores=self.scores_[self._last_rows],
            agreement=self.agreement_[self._last_rows],
            combination=self.combination_,
            lead=self.lead_,
            usage=self.usage_,
            failures=self.failures_,
        )

    # -- one pass ---------------------------------------------------------------------------

    def _annotate(
        self, dialogues: Dialogues, rows: NDArray[np.int64], lead: float | None
    ) -> NDArray[np.float64]:
        """Scores of the rows by each member, or by as many as it takes to be ahead by a lead."""
        panel = self._panel()
        shown = [prompt.classes for _ in panel.models for prompt in self.prompts_]
        classes = self.classes_.tolist()
        answers = Answers(rows, panel.members, classes, shown, panel.settings.scoring)
        done = None
        if lead is not None:

            def done(answers: Answers) -> NDArray[np.bool_]:
                return is_sure(answers.scores, lead, multilabel=self.multilabel)

        self._pass(dialogues, rows, answers, done)
        return answers.scores

    def _panel(self) -> Panel:
        params = self.get_params(deep=False)
        memory = self._answer_memory()
        return Panel.from_params(params, self.prompts_, self._examples, self.classes_, memory)

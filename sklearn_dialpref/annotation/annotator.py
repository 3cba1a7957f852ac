"""The teacher: an ensemble of prompts and models as a scikit-learn classifier."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.validation import check_is_fitted

from sklearn_dialpref._compat import Interval, StrOptions, validate_parameter_constraints
from sklearn_dialpref._dialogues.validation import (
    Dialogues,
    check_dialogues,
    label_array,
    missing_in,
)

from .bank import PromptBank
from .cache import AnswerCache
from .card import card_content, card_markdown
from .checks import LEARNABLE, check_labels, check_members, check_prompts, check_settings
from .ensemble import Combination, agreement, combine, fit_combination, votes
from .estimate import estimate
from .labelling import Record, label_rows
from .panel import Panel, models_from
from .questions import Examples, labelled_rows
from .scoring import SCORINGS

__all__ = ["LLMAnnotator"]


class LLMAnnotator(ClassifierMixin, BaseEstimator):
    r"""Label the utterances of dialogues by language models, asked in several ways.

    Each utterance is put to each model by each prompt of a bank; the answers are averaged to one
    score per class, so that ``predict_proba`` is what
    :meth:`DialoguePreferenceClassifier.fit` takes as ``y_llm``. An utterance that no prompt got
    an answer for has a row of NaN: no label is made up.

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
    n_examples : int, default=0
        How many labelled examples every second default prompt shows. They are never taken from
        the dialogue that is being labelled, and need ``y_human``.
    scoring : {"auto", "logprobs", "samples", "schema"}, default="auto"
        How an answer becomes scores: by the log-probabilities of the codes of the labels; by
        the shares of ``n_samples`` sampled answers; by one answer, bound to the codes by a JSON
        schema, which gets all the score. "auto": log-probabilities where the endpoint gives
        them, otherwise samples; of a function its one answer.
    n_samples : int, default=5
        How many answers are sampled to each question, where answers are sampled.
    sampling_temperature : float, default=1.0
        The temperature at which they are sampled.
    learn : tuple of {"temperature", "bias", "weights"}, default=all three
        What ``fit`` may learn from human labels: a temperature, a bias for each class, and
        weights of the members.
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
    prices : tuple of (float, float), or mapping of model to them, default=None
        Price of a million tokens in, and of a million out, in any currency.
    budget : float, default=None
        What a pass (a ``fit`` with labels, a ``predict_proba``) may cost at most, in the currency
        of ``prices``. Calls that could pass it are not made; their failure says so.
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
    combination_ : Combination
        Weights of the members, temperature and bias per class.
    members_ : list of (model, prompt id)
        The members of the ensemble.
    scores_ : ndarray of shape (n, n_members, n_classes)
        Scores of the last ``predict_proba``; NaN where a member gave no answer.
    votes_ : ndarray of object, shape (n, n_members)
        The likeliest label of each member; None where it gave none.
    agreement_ : ndarray of shape (n,)
        Share of the members with an answer that vote for the commonest label; NaN where none.
    failures_ : list of dict
        Questions of the last pass without an answer: ``row``, ``model``, ``prompt``, ``reason``.
    usage_ : dict
        What the last pass used: ``calls``, ``cached``, ``failed``, ``tokens_in``, ``tokens_out``,
        ``cost``.

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
        "classes": ["array-like", None],
        "model": [str, callable, list],
        "prompts": [PromptBank, None],
        "task": [str],
        "definitions": [Mapping, None],
        "n_examples": [Interval(Integral, 0, None, closed="left")],
        "scoring": [StrOptions(SCORINGS.keys())],  # a view: ways that are added count
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "sampling_temperature": [Interval(Real, 0, None, closed="left")],
        "learn": [tuple, list],
        "base_url": [str, None],
        "api_key_env": [str],
        "extra_body": [Mapping, None],
        "cache": [str, Path, None],
        "concurrency": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "timeout": [Interval(Real, 0, None, closed="neither")],
        "max_retries": [Interval(Integral, 0, None, closed="left")],
        "requests_per_minute": [Interval(Real, 0, None, closed="neither"), None],
        "tokens_per_minute": [Interval(Real, 0, None, closed="neither"), None],
        "prices": [tuple, list, Mapping, None],
        "budget": [Interval(Real, 0, None, closed="left"), None],
        "token_budget": [Interval(Integral, 0, None, closed="left"), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        classes: Sequence[Any] | None = None,
        model: str | Callable[..., Any] | list[Any] = "gpt-4o-mini",
        *,
        prompts: PromptBank | None = None,
        task: str = "the label",
        definitions: Mapping[Any, str] | None = None,
        n_examples: int = 0,
        scoring: str = "auto",
        n_samples: int = 5,
        sampling_temperature: float = 1.0,
        learn: Sequence[str] = LEARNABLE,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        extra_body: Mapping[str, Any] | None = None,
        cache: str | Path | None = "auto",
        concurrency: int | str = "auto",
        timeout: float = 60.0,
        max_retries: int = 6,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        prices: tuple[float, float] | Mapping[str, tuple[float, float]] | None = None,
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
        self.n_examples = n_examples
        self.scoring = scoring
        self.n_samples = n_samples
        self.sampling_temperature = sampling_temperature
        self.learn = learn
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
        y_human : array-like of shape (n,), default=None
            Human labels; None, NaN or pd.NA where missing.

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
        params = self.get_params(deep=False)
        validate_parameter_constraints(
            self._parameter_constraints, params, caller_name=type(self).__name__
        )
        models = models_from(params)
        check_settings(params, models)
        dialogues = check_dialogues(X, precomputed=False)
        n_examples = self.n_examples or sum(prompt.n_examples for prompt in self.prompts or ())
        labels, self.classes_ = check_labels(y_human, len(dialogues), self.classes, n_examples)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        if self.prompts is None:
            self.prompts_ = PromptBank.default(
                self.task,
                self.classes_.tolist(),
                self.definitions,
                n_examples=self.n_examples,
                random_state=seed,
            )
        else:
            check_prompts(self.prompts, self.classes_)
            self.prompts_ = self.prompts
        on_disk = self.cache not in (None, "auto")
        check_members(models, self.prompts_, self.scoring, given=self.model, on_disk=on_disk)
        for result in ("scores_", "votes_", "agreement_"):
            self.__dict__.pop(result, None)
        self._memory: AnswerCache | None = None
        self._token_ratio: dict[str, float] = {}  # billed for each token counted, by model
        known = labelled_rows(dialogues, labels)
        self._examples = Examples.drawn_from(dialogues, known, self.classes_[labels[known]], seed)
        self.members_ = self._panel().members
        self.combination_ = Combination.plain(len(self.members_), len(self.classes_))
        if len(known) and self.learn:
            self.combination_ = fit_combination(
                self._annotate(dialogues, known),
                labels[known],
                dialogues.group[known],
                seed=seed,
                **{part: part in self.learn for part in LEARNABLE},
            )
        return self

    # -- labelling --------------------------------------------------------------------------

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Ask for the label of each utterance.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            Utterances, with whole dialogues where prompts show context.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Rows sum to 1, columns in the order of ``classes_``; NaN where no prompt got an
            answer, see ``failures_``.

        Raises
        ------
        NotFittedError
            If the annotator is not fitted.
        EndpointError
            If the endpoint cannot be used at all, or no longer.
        """
        check_is_fitted(self, "combination_")
        dialogues = check_dialogues(X, precomputed=False)
        self.scores_ = self._annotate(dialogues, np.arange(len(dialogues)))
        self.votes_ = votes(self.scores_, self.classes_)
        self.agreement_ = agreement(self.scores_)
        combined = combine(self.scores_, self.combination_)
        if lost := int(np.isnan(combined[:, 0]).sum()):
            warnings.warn(
                f"{lost} of {len(combined)} utterances got no answer and are NaN; failures_ says "
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
        ndarray of shape (n,)
            Of the labels' type; of object, with None, where an utterance got no answer.
        """
        scores = self.predict_proba(X)
        missing = np.isnan(scores[:, 0])
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
        y : array-like of shape (n,)
            Human labels, missing where None, NaN or pd.NA.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If no row has a label.
        """
        labels = label_array(y)
        known = ~missing_in(labels)
        if not known.any():
            raise ValueError("score needs labels, but all of y is missing")
        right = self.predict(X).astype(object) == labels.astype(object)
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(right[known], weights=weight))

    def estimate_cost(self, X: Any) -> Bunch:
        """What labelling would take, without asking anything.

        Tokens are counted without a tokenizer, and corrected by what known answers were billed.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            As for :meth:`predict_proba`.

        Returns
        -------
        Bunch
            ``calls`` to make, ``cached`` answers, ``tokens_in``, ``tokens_out``, ``cost``.
        """
        check_is_fitted(self, "combination_")
        dialogues = check_dialogues(X, precomputed=False)
        return estimate(self._panel(), dialogues, self._token_ratio)

    def card(self, format: str = "markdown") -> str:
        """What was asked, of which models, at what cost, and how far the answers agree.

        Parameters
        ----------
        format : {"markdown", "json"}, default="markdown"
            JSON also has the whole prompts.

        Returns
        -------
        str

        Raises
        ------
        NotFittedError
            If nothing was labelled yet.
        ValueError
            If the format is another.
        """
        check_is_fitted(self, "scores_")
        if format not in ("markdown", "json"):
            raise ValueError(f"format must be 'markdown' or 'json', got {format!r}")
        content = card_content(
            self._panel(),
            date=self._date,
            base_url=self.base_url,
            scores=self.scores_,
            agreement=self.agreement_,
            combination=self.combination_,
            usage=self.usage_,
            failures=self.failures_,
        )
        if format == "json":
            return json.dumps(content, indent=1, ensure_ascii=False)
        return card_markdown(content)

    # -- one pass ---------------------------------------------------------------------------

    def _annotate(self, dialogues: Dialogues, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores of the rows by each member."""
        self._date = datetime.now(UTC).isoformat(timespec="seconds")
        record = Record()
        try:
            return label_rows(self._panel(), dialogues, rows, record)
        finally:  # what was used counts, also where the pass is cut short
            self.usage_, self.failures_ = asdict(record.usage), record.failures
            self._token_ratio |= record.token_ratio
            if record.lost:
                warnings.warn(
                    f"{record.lost} answers of the cache were damaged and are lost; they are "
                    "asked for again",
                    UserWarning,
                    stacklevel=3,
                )

    def _panel(self) -> Panel:
        """Who is asked, how, and within what limits, by the parameters as they are now."""
        if self._memory is None:
            self._memory = AnswerCache(":memory:")
        params = self.get_params(deep=False)
        return Panel.from_params(
            params, self.prompts_, self._examples, self.classes_, self._memory
        )

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {**state, "_memory": None} if "_memory" in state else state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.target_tags.required = False
        return tags

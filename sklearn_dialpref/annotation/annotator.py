"""The teacher: an ensemble of prompts and models as a scikit-learn classifier."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from numbers import Integral, Real
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from sklearn_dialpref._compat import Interval, StrOptions, validate_parameter_constraints
from sklearn_dialpref._targets import check_targets
from sklearn_dialpref._validation import Dialogues, check_dialogues, is_missing, missing_in

from .answers import OffList, label_scores
from .cache import AnswerCache
from .card import card_markdown
from .client import (
    CallableModel,
    Completion,
    Job,
    Limits,
    Model,
    OpenAIModel,
    Settings,
    Usage,
    ask_all,
    count_tokens,
)
from .ensemble import Combination, combine, fit_combination
from .prompts import MAX_CONTEXT, PromptBank, as_data

__all__ = ["LLMAnnotator"]

TOKENS_OUT = {"logprobs": 1, "auto": 1, "schema": 12, "samples": 2}  # of one answer, about
MOST_COUNTED = 50_000  # questions that estimate_cost reads; it scales up from there


class LLMAnnotator(ClassifierMixin, BaseEstimator):
    r"""Label the utterances of dialogues by a language model, asked in several ways.

    Each utterance is put to each model by each prompt of a bank; the answers are averaged to one
    score per class, so that ``predict_proba`` is what
    :meth:`DialoguePreferenceClassifier.fit` takes as ``y_llm``.  An utterance that no prompt got
    an answer for has a row of NaN: no label is made up.

    Parameters
    ----------
    classes : sequence, default=None
        The labels; None: those of ``y_human``.
    model : str, callable, or list of them, default="gpt-4o-mini"
        Name of a model of the endpoint, or a function of the messages (a list of dict with
        ``role`` and ``content``) that returns the answer as str or as a ``Completion``.  The
        answers of a function are kept in the cache under its qualified name, or its attribute
        ``name``.  Several models are averaged.
    prompts : PromptBank, default=None
        None: :meth:`PromptBank.default`, eight prompts.
    task : str, default="the label"
        What is labelled, with its article, for the default prompts: "the sentiment".
    definitions : mapping of class to str, default=None
        What each class means, for the default prompts.
    n_examples : int, default=0
        Labelled examples that every second default prompt shows; needs ``y_human``.
    scoring : {"auto", "logprobs", "samples", "schema"}, default="auto"
        How an answer becomes scores: by the log-probabilities of the codes of the labels; by
        the shares of ``n_samples`` sampled answers; by one answer, bound to the codes by a JSON
        schema, which gets all the score.  "auto": log-probabilities where the endpoint gives
        them, otherwise samples; of a function its one answer.
    n_samples : int, default=5
    sampling_temperature : float, default=1.0
        Of samples.
    learn : tuple of {"temperature", "bias", "weights"}, default=all three
        What ``fit`` may learn from human labels: a temperature, a bias for each class, and
        weights of the prompts.
    base_url : str, default=None
        Of an endpoint that speaks the OpenAI API, such as vLLM, llama.cpp, Ollama or OpenRouter;
        None: OpenAI.
    api_key_env : str, default="OPENAI_API_KEY"
        Name of the environment variable that holds the key.  The key itself is never kept.
    cache : str or Path, default=None
        File of all answers (sqlite), so that none is paid for twice, whatever happens; several
        processes may share one.  None: answers are kept for the pass alone.
    concurrency : int, default=16
        Calls at once.
    timeout : float, default=60.0
        Seconds until a call counts as lost.
    max_retries : int, default=6
        Of a call that failed for a while (429, 5xx, timeout, broken connection).
    requests_per_minute, tokens_per_minute : float, default=None
        Rates of calls that are really made.
    prices : tuple of (float, float), or mapping of model to them, default=None
        Of a million tokens in, and out, in any currency.
    budget : float, default=None
        What a pass may cost at most, in the currency of ``prices``.  Calls that could pass it are
        not made; their failure says so.
    token_budget : int, default=None
        How many tokens a pass may take at most, in and out together.
    random_state : int, RandomState or None, default=0
        Of the default prompts, the choice of examples and the folds.
    verbose : int, default=0
        1: a progress bar with calls, cost and time left.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    prompts_ : PromptBank
    combination_ : Combination
        Weights of the members, temperature and bias per class.
    members_ : list of (model, prompt id)
        Of the ensemble.
    scores_ : ndarray of shape (n, n_members, n_classes)
        Of the last pass; NaN where a member gave no answer.
    votes_ : ndarray of object, shape (n, n_members)
        The likeliest label of each member; None where it gave none.
    agreement_ : ndarray of shape (n,)
        Share of the members with an answer that vote for the commonest label; NaN where none.
    failures_ : list of dict
        With ``row``, ``model``, ``prompt`` and ``reason``.
    usage_ : dict
        Of the last pass: ``calls``, ``cached``, ``failed``, ``tokens_in``, ``tokens_out``,
        ``cost``.

    See Also
    --------
    DialoguePreferenceClassifier : The student.
    votes_to_scores : For labels that were got elsewhere.

    Notes
    -----
    Without human labels the score of class *c* is the mean over members,
    :math:`\bar s_c = \sum_a w_a s_{ac}` with equal weights.  With human labels it is
    :math:`\mathrm{softmax}_c(\log(\bar s_c + 0.01) / T + b_c)`, and each of *T*, *b* and *w* is
    learned only if cross-validation over dialogues finds the log-loss to fall by more than its
    standard error.  With fewer than 20 labels nothing is learned.

    Utterances stand in the prompts as JSON, shortened to 2,000 characters (turns around them to
    500), of which 70 % are from the beginning and 30 % from the end.

    Of an endpoint's log-probabilities the twenty likeliest tokens are seen; a code that is not
    among them gets the score 0.  More than 52 classes have codes of several tokens and need
    ``scoring="schema"`` or ``"samples"``.

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
        "scoring": [StrOptions({"auto", "logprobs", "samples", "schema"})],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "sampling_temperature": [Interval(Real, 0, None, closed="left")],
        "learn": [tuple, list],
        "base_url": [str, None],
        "api_key_env": [str],
        "cache": [str, Path, None],
        "concurrency": [Interval(Integral, 1, None, closed="left")],
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
        learn: Sequence[str] = ("temperature", "bias", "weights"),
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        cache: str | Path | None = None,
        concurrency: int = 16,
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

        Without human labels nothing is asked.  With them the labelled utterances are.

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
        self._check_parameters()
        dialogues = check_dialogues(X, precomputed=False)
        labels, self.classes_ = self._labels(y_human, len(dialogues))
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        self.prompts_ = self._bank(seed)
        self._check_members()
        known = np.flatnonzero(labels >= 0)
        assert dialogues.text is not None
        self._examples = [
            (dialogues.dialogue_id[row], str(dialogues.text[row]), self.classes_[labels[row]])
            for row in np.random.RandomState(seed).permutation(known)
        ]
        n_members = len(self.members_)
        self.combination_ = Combination.plain(n_members, len(self.classes_))
        self._ratio = 1.0
        if len(known) and self.learn:
            scores = self._annotate(dialogues, known)
            self.combination_ = fit_combination(
                scores,
                labels[known],
                dialogues.group[known],
                seed=seed,
                **{part: part in self.learn for part in ("temperature", "bias", "weights")},
            )
        return self

    def _check_parameters(self) -> None:
        parameters = self.get_params(deep=False)
        validate_parameter_constraints(
            self._parameter_constraints, parameters, caller_name=type(self).__name__
        )
        if unknown := set(self.learn) - {"temperature", "bias", "weights"}:
            raise ValueError(
                f"learn holds {sorted(unknown)}; it may hold 'temperature', 'bias', 'weights'"
            )
        if self.budget is not None and self.prices is None:
            raise ValueError(
                f"budget={self.budget} needs prices=(in, out) of a million tokens; or set "
                "token_budget"
            )
        if self.base_url is not None and "@" in urlsplit(self.base_url).netloc:
            raise ValueError(
                "base_url holds a password, which would show in cards and logs; put it into an "
                "environment variable and name that as api_key_env"
            )
        if self.prompts is not None and self.n_examples:
            raise ValueError(
                "n_examples is for the default prompts; the prompts given say themselves how "
                "many examples they show (Prompt(..., n_examples=...))"
            )

    def _labels(self, y_human: Any, n_rows: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
        if y_human is None or bool(is_missing(y_human).all()):
            if self.classes is None:
                raise ValueError("without human labels the classes must be named: classes=[...]")
            names = np.unique(np.asarray(list(self.classes)))
            if set(names.tolist()) != set(self.classes) or len(names) < 2:
                raise ValueError(
                    "classes must be at least two distinct labels of one type, got "
                    f"{self.classes!r}"
                )
            return np.full(n_rows, -1), names
        targets = check_targets(y_human, None, n_rows, self.classes)
        if targets.multilabel:
            raise ValueError(
                "y_human is 2-D (multilabel), but an annotator gives one label per utterance; "
                "use one annotator for each label, with classes=[0, 1]"
            )
        return targets.human, targets.classes

    def _bank(self, seed: int) -> PromptBank:
        if self.prompts is None:
            return PromptBank.default(
                self.task,
                self.classes_.tolist(),
                self.definitions,
                n_examples=self.n_examples,
                random_state=seed,
            )
        if set(self.prompts.classes) != set(self.classes_.tolist()):
            raise ValueError(
                f"the prompts ask for {self.prompts.classes} but the classes are "
                f"{self.classes_.tolist()}; build the bank for these"
            )
        return self.prompts

    def _check_members(self) -> None:
        models = self._models()
        if len({model.name for model in models}) != len(models) or not models:
            raise ValueError(
                f"model must name at least one model, each once, got {self.model!r}; give "
                "functions different attributes `name`"
            )
        self.members_ = [(model.name, prompt.id) for model in models for prompt in self.prompts_]
        long = [code for prompt in self.prompts_ for code in prompt.codes or () if len(code) > 1]
        if self.scoring == "logprobs" and long:
            raise ValueError(
                f"scoring='logprobs' reads one token, but there are codes such as {long[0]!r}; "
                "use codes of one character, or scoring='schema' or 'samples'"
            )

    def _models(self) -> list[Model]:
        given = self.model if isinstance(self.model, list) else [self.model]
        return [
            OpenAIModel(one, self.base_url, self.api_key_env, self.timeout, self.max_retries)
            if isinstance(one, str)
            else CallableModel(one)
            for one in given
        ]

    # -- labelling --------------------------------------------------------------------------

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Ask for the label of each utterance.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            Utterances, in any order, with whole dialogues where prompts show context.

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
            If the endpoint cannot be used at all.
        """
        check_is_fitted(self, "combination_")
        dialogues = check_dialogues(X, precomputed=False)
        scores = self._annotate(dialogues, np.arange(len(dialogues)))
        self.scores_ = scores
        self.votes_ = self._vote(scores)
        self.agreement_ = _agreement(scores)
        combined = combine(scores, self.combination_)
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
        y : array-like of shape (n,)
            Human labels, missing where None, NaN or pd.NA.
        sample_weight : array-like of shape (n,), default=None

        Returns
        -------
        float
        """
        labels = np.asarray(y, dtype=object)
        known = ~missing_in(labels)
        right = (self.predict(X).astype(object) == labels)[known]
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(right, weights=weight))

    def estimate_cost(self, X: Any) -> Bunch:
        """What labelling would take, without asking anything.

        Tokens are counted without the model's tokenizer, and corrected by what earlier answers
        were billed.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str

        Returns
        -------
        Bunch
            ``calls`` to make, ``cached`` answers, ``tokens_in``, ``tokens_out``, ``cost``.
        """
        check_is_fitted(self, "combination_")
        dialogues = check_dialogues(X, precomputed=False)
        rows = np.arange(len(dialogues))
        total = len(rows) * len(self.prompts_)
        chosen = rows
        if total > MOST_COUNTED:
            chosen = np.sort(
                np.random.RandomState(0).permutation(rows)[: MOST_COUNTED // len(self.prompts_)]
            )
        scale = len(rows) / len(chosen)
        out = TOKENS_OUT[self.scoring] * (self.n_samples if self.scoring == "samples" else 1)
        estimate = Bunch(calls=0, cached=0, tokens_in=0, tokens_out=0, cost=0.0)
        with self._cache() as cache:
            for at, model in enumerate(self._models()):
                asked: dict[str, int] = {}
                for job in self._jobs(dialogues, chosen, model, at):
                    asked[job.key] = 0 if job.key in asked else count_tokens(job.messages)
                known = cache.get_many(list(asked))
                counted = [tokens for key, tokens in asked.items() if key not in known]
                limits = self._limits(model)
                tokens_in = scale * sum(counted) * self._ratio
                tokens_out = scale * len(counted) * out
                estimate.calls += round(scale * len(counted))
                estimate.cached += round(scale * len(known))
                estimate.tokens_in += round(tokens_in)
                estimate.tokens_out += round(tokens_out)
                estimate.cost += limits.cost(tokens_in, tokens_out)
        return estimate

    def card(self, format: str = "markdown") -> str:
        """What was asked, of which models, at what cost, and how far the answers agree.

        Parameters
        ----------
        format : {"markdown", "json"}, default="markdown"

        Returns
        -------
        str

        Raises
        ------
        NotFittedError
            If nothing was labelled yet.
        """
        check_is_fitted(self, "scores_")
        content = self._card_content()
        if format == "json":
            return json.dumps(content, indent=1, ensure_ascii=False)
        if format == "markdown":
            return card_markdown(content)
        raise ValueError(f"format must be 'markdown' or 'json', got {format!r}")

    def _card_content(self) -> dict[str, Any]:
        reasons: dict[str, int] = {}
        for failure in self.failures_:
            reasons[failure["reason"]] = reasons.get(failure["reason"], 0) + 1
        agreement = self.agreement_[~np.isnan(self.agreement_)]
        return {
            "date": self._date,
            "models": [model.name for model in self._models()],
            "base_url": self.base_url,
            "classes": self.classes_.tolist(),
            "settings": asdict(self._settings()),
            "prompts": [{"id": prompt.id, **prompt.to_dict()} for prompt in self.prompts_],
            "utterances": len(self.scores_),
            "without_answer": int(np.isnan(self.scores_[:, :, 0]).all(axis=1).sum()),
            "agreement": float(agreement.mean()) if len(agreement) else None,
            "weights": self.combination_.weights.tolist(),
            "temperature": self.combination_.temperature,
            "bias": self.combination_.bias.tolist(),
            "usage": self.usage_,
            "failures": reasons,
        }

    # -- one pass ---------------------------------------------------------------------------

    def _annotate(self, dialogues: Dialogues, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores of the rows by each member; sets ``failures_`` and ``usage_``."""
        from datetime import UTC, datetime

        scores = np.full((len(rows), len(self.members_), len(self.classes_)), np.nan)
        failures: list[dict[str, Any]] = []
        place = {int(row): at for at, row in enumerate(rows)}
        order = [self._order_of(prompt.classes) for prompt in self.prompts_]
        usage = Usage()
        total = len(rows) * len(self.members_)
        self.failures_, self._date = failures, datetime.now(UTC).isoformat(timespec="seconds")
        with (
            self._cache() as cache,
            tqdm(total=total, unit="answer", disable=not self.verbose) as bar,
        ):
            for at, model in enumerate(self._models()):
                limits = self._limits(model, usage)

                def deliver(
                    job: Job,
                    outcome: Completion | str,
                    limits: Limits = limits,
                    before: float = usage.cost,
                ) -> None:
                    bar.update(1)
                    if bar.n % 50 == 0:
                        spent = before + limits.usage.cost
                        bar.set_postfix(calls=limits.usage.calls, cost=f"{spent:.4f}")
                    try:
                        if isinstance(outcome, str):
                            raise OffList(outcome)
                        shown = label_scores(outcome, job.codes)
                    except OffList as error:
                        name, prompt_id = self.members_[job.member]
                        failures.append(
                            {"row": job.row, "model": name, "prompt": prompt_id,
                             "reason": str(error)}
                        )  # fmt: skip
                        return
                    to = order[job.member % len(self.prompts_)]
                    scores[place[job.row], job.member, to] = shown

                try:
                    jobs = self._jobs(dialogues, rows, model, at)
                    ask_all(model, jobs, self._settings(), limits, cache, deliver)
                finally:
                    usage = _sum(usage, limits.usage)
                    if limits.usage.calls:
                        self._ratio = limits.seen_ratio
                    self.usage_ = asdict(usage)
        failures.sort(key=lambda failure: (failure["row"], failure["model"], failure["prompt"]))
        return scores

    def _jobs(
        self, dialogues: Dialogues, rows: NDArray[np.int64], model: Model, number: int
    ) -> Iterator[Job]:
        """The questions about the rows, row by row."""
        before, after = _neighbours(dialogues)
        assert dialogues.text is not None
        speaker = _speakers(dialogues)
        settings = json.dumps([model.name, model.base_url, asdict(self._settings())])
        for row in rows.tolist():
            utterance = as_data(dialogues.text[row], speaker[row])
            earlier, later = before(row), after(row)
            for at, prompt in enumerate(self.prompts_):
                messages = prompt.render_data(
                    utterance, earlier, later, self._examples_for(dialogues, row, prompt)
                )
                text = json.dumps([settings, prompt.id, messages])
                yield Job(
                    row,
                    number * len(self.prompts_) + at,
                    hashlib.sha256(text.encode()).hexdigest(),
                    prompt.id,
                    messages,
                    tuple(prompt.codes or ()),
                )

    def _examples_for(self, dialogues: Dialogues, row: int, prompt: Any) -> list[tuple[str, Any]]:
        """Examples for a prompt, of other dialogues and texts, the classes in turn."""
        if not prompt.n_examples:
            return []
        own, text = dialogues.dialogue_id[row], dialogues.text[row]  # type: ignore[index]
        found: list[tuple[str, Any]] = []
        seen: dict[Any, int] = {}
        for dialogue, example, label in self._examples:
            share = -(-prompt.n_examples // len(self.classes_))
            if dialogue == own or example == text or seen.get(label, 0) >= share:
                continue
            seen[label] = seen.get(label, 0) + 1
            found.append((example, label))
            if len(found) == prompt.n_examples:
                break
        return found

    def _order_of(self, shown: Sequence[Any]) -> NDArray[np.int64]:
        """Column of each shown class."""
        column = {label: at for at, label in enumerate(self.classes_.tolist())}
        return np.array([column[label] for label in shown])

    def _settings(self) -> Settings:
        return Settings(self.scoring, int(self.n_samples), float(self.sampling_temperature))

    def _cache(self) -> AnswerCache:
        return AnswerCache(":memory:" if self.cache is None else self.cache)

    def _limits(self, model: Model, used: Usage | None = None) -> Limits:
        price = self.prices
        if isinstance(price, Mapping):
            if model.name not in price:
                raise ValueError(f"prices has no entry for {model.name!r}, only {sorted(price)}")
            price = price[model.name]
        used = used or Usage()
        tokens = used.tokens_in + used.tokens_out
        return Limits(
            int(self.concurrency),
            self.requests_per_minute,
            self.tokens_per_minute,
            None if self.budget is None else self.budget - used.cost,
            None if self.token_budget is None else self.token_budget - tokens,
            (0.0, 0.0) if price is None else (float(price[0]), float(price[1])),
        )

    def _vote(self, scores: NDArray[np.float64]) -> NDArray[Any]:
        missing = np.isnan(scores[:, :, 0])
        votes = self.classes_.astype(object)[np.nan_to_num(scores).argmax(axis=2)]
        votes[missing] = None
        return votes

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.target_tags.required = False
        tags.requires_fit = True
        return tags


def _agreement(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    given = ~np.isnan(scores[:, :, 0])
    best = np.nan_to_num(scores).argmax(axis=2)
    counts = np.stack([((best == at) & given).sum(axis=1) for at in range(scores.shape[2])])
    with np.errstate(invalid="ignore"):
        return counts.max(axis=0) / given.sum(axis=1)


def _sum(first: Usage, second: Usage) -> Usage:
    return Usage(*(a + b for a, b in zip(asdict(first).values(), asdict(second).values(),
                                         strict=True)))  # fmt: skip


def _speakers(dialogues: Dialogues) -> list[str | None]:
    if dialogues.speaker is None:
        return [None] * len(dialogues)
    missing = missing_in(dialogues.speaker)
    return [None if gone else str(who) for who, gone in zip(dialogues.speaker, missing,
                                                            strict=True)]  # fmt: skip


def _neighbours(
    dialogues: Dialogues,
) -> tuple[Callable[[int], list[str]], Callable[[int], list[str]]]:
    """The turns before and after a row, as data for prompts, the nearest thirty at most."""
    assert dialogues.text is not None
    order = np.lexsort((dialogues.turn, dialogues.group))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    group = dialogues.group[order]
    start = np.searchsorted(group, group)
    end = np.searchsorted(group, group, side="right")
    text, speaker = dialogues.text, _speakers(dialogues)
    most = 30

    def data(rows: NDArray[np.int64]) -> list[str]:
        return [as_data(text[row], speaker[row], MAX_CONTEXT) for row in rows.tolist()]

    def before(row: int) -> list[str]:
        if dialogues.context is not None:
            ready = dialogues.context[row]
            return [as_data(ready, limit=MAX_CONTEXT)] if ready else []
        at = place[row]
        return data(order[max(start[at], at - most) : at])

    def after(row: int) -> list[str]:
        at = place[row]
        return data(order[at + 1 : min(end[at], at + 1 + most)])

    return before, after

"""Generated answers, prompts, settings and caches: a right result, or an error that says why."""

import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from annotating import CLASSES, bank
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_dialpref import LLMAnnotator, PromptBank
from sklearn_dialpref.annotation import Completion, EndpointError, Prompt
from sklearn_dialpref.annotation.cache import AnswerCache
from sklearn_dialpref.annotation.completion import BadAnswer, error_text, read_completion, redact
from sklearn_dialpref.annotation.ensemble import (
    Combination,
    agreement,
    combine,
    fit_combination,
    votes,
)
from sklearn_dialpref.annotation.scoring import OffList, label_scores

SLOW_FACTOR = 40


def fuzzed(examples, **strategies):
    """A test of a property with so many examples, and with many more in a long run."""

    def decorate(check):
        longer = pytest.param(SLOW_FACTOR * examples, marks=pytest.mark.fuzz)

        @pytest.mark.parametrize("examples", [examples, longer])
        def test(examples):
            options = settings(
                max_examples=examples, deadline=None, derandomize=True, database=None
            )
            options(given(**strategies)(check))()

        return test

    return decorate


# -- strategies -------------------------------------------------------------------------------

texts = st.text(
    st.characters(codec="utf-8") | st.sampled_from("\ud83d\udc80AB{[\"':"), max_size=20
)
numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 1e308])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def mostly(valid):
    """Values that are valid, but for one in six."""
    return st.sampled_from([True] * 5 + [False]).flatmap(lambda keep: valid if keep else values)


logprobs = st.dictionaries(
    st.sampled_from(["A", " B", "C", "x"]) | texts, st.floats(-20, 0) | numbers, max_size=4
)
completions = st.fixed_dictionaries(
    {"texts": st.lists(st.sampled_from(["A", "b.", '{"label": "B"}', "[" * 5000]) | texts)},
    optional={
        "logprobs": st.none() | logprobs,
        "finish_reason": st.sampled_from(["stop", "content_filter"]),
        "tokens_in": st.integers(0, 100) | numbers,
    },
)


@st.composite
def damaged_bodies(draw):
    """The body of a right answer with another value at one place, or none there."""
    entry = {"token": "A", "logprob": -0.1}
    body = {
        "choices": [
            {
                "message": {"content": "A"},
                "finish_reason": "stop",
                "logprobs": {"content": [{**entry, "top_logprobs": [entry, dict(entry)]}]},
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 1},
    }
    place = body
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or draw(st.booleans()):
            break
        place = place[key]
    if draw(st.booleans()):
        place[key] = draw(values)
    else:
        del place[key]
    return body


# -- answers ----------------------------------------------------------------------------------


def check_answer(answer):
    """It can be stored and read back, and is scores or something else than a code."""
    stored = json.dumps(answer.to_dict(), ensure_ascii=False, allow_nan=False).encode()
    assert Completion.from_dict(json.loads(stored)) == answer
    try:
        scores = label_scores(answer, ("A", "B"))
    except OffList as error:
        str(error).encode()
    else:
        assert (scores >= 0).all()
        assert abs(scores.sum() - 1) < 1e-9


@fuzzed(300, options=completions | st.fixed_dictionaries({"texts": values, "logprobs": values}))
def test_completions(options):
    try:
        answer = Completion(**options)
    except BadAnswer as error:
        str(error).encode()
    else:
        check_answer(answer)


@fuzzed(300, body=damaged_bodies() | values)
def test_bodies_of_answers(body):
    try:
        answer = read_completion(body, "sk-Secret123")
    except BadAnswer as error:
        str(error).encode()
    else:
        check_answer(answer)


@fuzzed(150, error=values, key=st.text("abcdefk-123", min_size=8, max_size=20), data=st.data())
def test_errors_of_providers(error, key, data):
    start = data.draw(st.integers(0, len(key) - 4))
    for message in (error, f"{data.draw(texts)}{key[start:]}{data.draw(texts)}"):
        text = error_text({"code": error, "message": message}, key)[1]
        text.encode()
        assert len(text) <= 200
        assert not [part for part in range(len(key) - 3) if key[part : part + 4] in text.lower()]


@fuzzed(100, text=texts, key=st.text(min_size=1, max_size=12))
def test_redact(text, key):
    assert redact(text, key, 4) == text or "***" in redact(text, key, 4)
    assert redact(key, key, 4) == "***"


@fuzzed(60, answers=st.lists(completions | texts, min_size=12, max_size=12))
def test_functions_that_answer_anything(answers):
    """Each answer is a score or a failure with its reason; the rerun asks what failed only."""
    left = list(answers)

    async def model(messages):
        answer = left.pop()
        return Completion(**answer) if isinstance(answer, dict) else answer

    model.name = "anything"
    teacher = LLMAnnotator(CLASSES, model, prompts=bank(1)).fit(["hi"])
    X = [f"Utterance {number}" for number in range(12)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            proba = teacher.predict_proba(X)
        except EndpointError:  # none of the first ten could be used
            return
    given_answer = ~np.isnan(proba[:, 0])
    np.testing.assert_allclose(proba[given_answer].sum(axis=1), 1)
    assert sorted(f["row"] for f in teacher.failures_) == np.flatnonzero(~given_answer).tolist()
    assert left == []
    json.loads(teacher.card("json").encode())
    left += ["A"] * 12
    calls = teacher.usage_["calls"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = teacher.predict_proba(X)
    np.testing.assert_array_equal(again[given_answer], proba[given_answer])
    assert teacher.usage_["calls"] == len(X) - calls


# -- the ensemble -----------------------------------------------------------------------------


@st.composite
def ensembles(draw):
    """Scores with missing answers, as sharp as they can be, and labels."""
    n, members, classes = (draw(st.integers(1, most)) for most in (60, 4, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sharp = draw(st.sampled_from([1e-3, 0.1, 1, 100]))
    scores = rng.dirichlet(np.full(classes + 1, sharp), size=(n, members))
    scores[rng.random((n, members)) < draw(st.floats(0, 1))] = np.nan
    return scores, rng.integers(classes + 1, size=n), rng.integers(20, size=n)


@fuzzed(25, ensemble=ensembles())
def test_ensembles(ensemble):
    scores, y, groups = ensemble
    answered = ~np.isnan(scores[:, :, 0]).all(axis=1)
    for how in (Combination.plain(*scores.shape[1:]), fit_combination(scores, y, groups)):
        combined = combine(scores, how)
        np.testing.assert_array_equal(np.isnan(combined), np.repeat(~answered, combined.shape[1])
                                      .reshape(combined.shape))  # fmt: skip
        np.testing.assert_allclose(combined[answered].sum(axis=1), 1)
    share = agreement(scores)
    assert (np.isnan(share) == ~answered).all()
    assert ((share[answered] > 0) & (share[answered] <= 1)).all()
    none = votes(scores, np.arange(scores.shape[2])) == None  # noqa: E711 - element by element
    np.testing.assert_array_equal(none, np.isnan(scores[:, :, 0]))


# -- prompts and settings -----------------------------------------------------------------------

templates = st.sampled_from(
    [
        "{{ utterance }}{% for l in labels %} {{ l.code }}={{ l.name }}{% endfor %}",
        "{{ utterance }}{{ labels }}{{ before }}{{ after }}{{ examples }}{{ task }}",
        "{{ utterance }}{{ labels|join('x', attribute='name') }}",
    ]
)
labels = st.lists(texts | st.integers(-3, 3) | st.floats() | st.booleans(), max_size=4)
prompt_options = st.fixed_dictionaries(
    {
        "user": mostly(templates),
        "classes": st.just(["a", "b"]) | st.just([0, True, 2.5]) | labels | values,
    },
    optional={
        "codes": mostly(st.lists(texts, min_size=2, max_size=3, unique=True)),
        "system": mostly(texts),
        "definitions": mostly(st.dictionaries(st.sampled_from(["a", "b"]), texts)),
        "task": mostly(texts),
        "context_turns": mostly(st.integers(0, 3)),
        "n_examples": mostly(st.integers(0, 3)),
    },
)


@fuzzed(200, options=prompt_options)
def test_prompts(options):
    try:
        prompt = Prompt(**options)
    except (ValueError, TypeError) as error:
        str(error).encode("utf-8", "backslashreplace")
        return
    messages = prompt.render("Hello {{ 1 }}", before=[("x", "y")] * 3)
    json.dumps(messages, ensure_ascii=False).encode()
    with tempfile.TemporaryDirectory() as folder:
        PromptBank([prompt]).save(Path(folder) / "bank.json")
        assert PromptBank.load(Path(folder) / "bank.json")[0].id == prompt.id


@fuzzed(60, classes=mostly(st.just(CLASSES)), definitions=mostly(st.none()),
        size=st.integers(-1, 9), n_examples=mostly(st.integers(0, 2)))  # fmt: skip
def test_default_banks(classes, definitions, size, n_examples):
    try:
        made = PromptBank.default("the label", classes, definitions, size, n_examples)
    except (ValueError, TypeError):
        return
    assert len(made) == size
    assert len({prompt.id for prompt in made}) == size


@fuzzed(100, content=values | st.fixed_dictionaries({"format": numbers | st.just(1),
        "prompts": st.lists(values | prompt_options)}))  # fmt: skip
def test_files_of_banks(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.json"
        try:
            path.write_text(json.dumps(content))
        except ValueError:  # an int that Python would not write
            return
        try:
            bank = PromptBank.load(path)
        except ValueError:
            return
    assert len(bank) == len(content["prompts"])  # a whole one came about


annotators = st.fixed_dictionaries(
    {"classes": mostly(st.just(CLASSES))},
    optional={
        "model": texts | st.lists(texts, max_size=2),
        "task": texts,
        "definitions": mostly(st.dictionaries(st.sampled_from(CLASSES), texts)),
        "n_examples": mostly(st.just(0)),
        "scoring": mostly(st.sampled_from(["auto", "schema"])),
        "learn": mostly(st.lists(st.sampled_from(["bias", "weights"]))),
        "base_url": mostly(st.none() | texts),
        "extra_body": mostly(st.dictionaries(texts, values)),
        "prices": mostly(st.tuples(st.floats(0, 9), numbers)),
        "budget": mostly(st.none()),
        "timeout": mostly(st.floats(0.1, 100)),
        "requests_per_minute": mostly(st.floats(1, 1e9)),
    },
)


@fuzzed(60, options=annotators)
def test_settings_of_annotators(options):
    with tempfile.TemporaryDirectory() as folder:
        try:
            teacher = LLMAnnotator(cache=Path(folder) / "c", **options).fit(["Hello?"])
        except (ValueError, TypeError) as error:
            str(error).encode("utf-8", "backslashreplace")
            return
        estimate = teacher.estimate_cost(["Hello?"])
        assert estimate.calls == len(teacher.members_)
        assert estimate.cost >= 0


# -- the cache --------------------------------------------------------------------------------


@fuzzed(60, key=st.text(st.characters(codec="utf-8")), texts=st.lists(texts, max_size=3))
def test_what_the_cache_is_given_comes_back(key, texts):
    with AnswerCache(":memory:") as cache:
        answer = {"texts": [text.encode("utf-8", "replace").decode() for text in texts]}
        cache.put(key, "m", "p", answer)
        assert cache.get_many([key, key + "x"]) == {key: answer}
        assert cache.lost == set()


def stored_cache():
    """A cache of 40 answers as bytes, and what it holds."""
    content = {f"{n:02}" * 32: {"texts": ["A"] * 90, "tokens_in": n} for n in range(40)}
    with tempfile.TemporaryDirectory() as folder:
        with AnswerCache(Path(folder) / "c") as cache:
            for key, answer in content.items():
                cache.put(key, "m", "p", answer)
        return (Path(folder) / "c").read_bytes(), content


RAW, CONTENT = stored_cache()


@fuzzed(200, start=st.integers(0, len(RAW) - 1), length=st.sampled_from([0, 1, 2, 9, 99, 5000]),
        patch=st.binary(max_size=40) | st.just(b"\0" * 99))  # fmt: skip
def test_damaged_caches(start, length, patch):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c"
        path.write_bytes(RAW[:start] + patch + RAW[start + length :])
        try:
            with AnswerCache(path) as cache:
                answers = cache.get_many(list(CONTENT))
                lost = cache.lost
        except ValueError as error:
            if str(path) not in str(error):
                raise
            return
    assert answers == {key: answer for key, answer in CONTENT.items() if key not in lost}

"""Ways to score answers: a new one needs its registration alone, and those there stay."""

import json

import numpy as np
import pytest
from annotating import CLASSES, bank, right, utterances
from fake_llm import FakeLLM
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_dialpref import LLMAnnotator
from sklearn_dialpref.annotation import Completion
from sklearn_dialpref.annotation.models import Settings
from sklearn_dialpref.annotation.scoring import SCORINGS, Scoring, off_list

# -- a new way: the model states a probability for each code ----------------------------------


def stated_scores(answer, codes):
    """Mean over the answers that are a JSON object of probabilities."""
    scores = []
    for text in answer.texts:
        try:
            scores.append([float(json.loads(text)[code]) for code in codes])
        except (ValueError, KeyError, TypeError):
            continue
    if not scores:
        raise off_list(answer)
    mean = np.mean(scores, axis=0)
    return mean / mean.sum()


def stated(**options):
    return Scoring(
        most_tokens=lambda codes: 10 * len(codes),
        typical_tokens=15,
        options=lambda codes: {"response_format": {"type": "json_object"}},
        read=stated_scores,
        **options,
    )


class StatingLLM(FakeLLM):
    """States 0.8 for the right code, off the list for an utterance with number 3."""

    def body(self, request, fault):
        code, codes, text = self.answer(request)
        shares = {other: 0.8 if other == code else 0.2 for other in codes}
        body = super().body(request, fault)
        for choice in body["choices"]:
            choice["message"]["content"] = "{}" if "number 3" in text else json.dumps(shares)
        return body


@pytest.mark.parametrize("n_samples", [1, 3])
def test_a_new_way_at_an_endpoint(monkeypatch, tmp_path, n_samples):
    sampled = n_samples > 1
    monkeypatch.setitem(SCORINGS, "stated", stated(sampled=sampled))
    X = utterances(6)
    with StatingLLM(one_sample=True, refused="number 4") as server:
        teacher = LLMAnnotator(
            CLASSES, "tiny", prompts=bank(), base_url=server.base_url, cache=tmp_path / "c",
            scoring="stated", n_samples=n_samples, token_budget=10**6,
        ).fit(X)  # fmt: skip
        assert teacher.estimate_cost(X).tokens_out == 12 * 15 * n_samples
        with pytest.warns(UserWarning, match=r"2 of 6 utterances .*off-list answer '\{\}'"):
            proba = teacher.predict_proba(X)
        asked = len(server.requests)
        request = server.requests[0]
        with pytest.warns(UserWarning, match="2 of 6"):
            assert_array_equal(teacher.predict_proba(X), proba)
        assert len(server.requests) == asked and teacher.usage_["cached"] == 12
    answered = [0, 1, 2, 5]
    labels = teacher.classes_[proba[answered].argmax(axis=1)]
    assert_array_equal(labels, np.array(right(X))[answered])
    assert_allclose(proba[answered].max(axis=1), 0.8)
    assert [f["reason"] for f in teacher.failures_][2:] == ["content filter"] * 2
    assert request["response_format"] == {"type": "json_object"}
    assert request["max_tokens"] == 20
    assert request["temperature"] == (1 if sampled else 0)
    assert request.get("n", 1) == n_samples and "logprobs" not in request


def test_a_new_way_with_a_function(monkeypatch):
    answers = iter(['{"A": 0.5, "B": 0.5}', '{"A": 0.9, "B": 0.1}', "A"])
    monkeypatch.setitem(SCORINGS, "stated", stated(sampled=True))
    teacher = LLMAnnotator(
        CLASSES, lambda messages: next(answers), prompts=bank(1), scoring="stated", n_samples=3
    )
    assert_allclose(teacher.fit(["hi"]).predict_proba(["one"]), [[0.7, 0.3]])
    assert "scoring stated, n_samples 3" in teacher.card()


def test_a_new_way_that_needs_logprobs(monkeypatch):
    way = Scoring(
        most_tokens=lambda codes: 1,
        typical_tokens=1,
        read=lambda answer, codes: np.array([float(answer.logprobs[code] > -1) for code in codes]),
        logprobs=True,
    )
    monkeypatch.setitem(SCORINGS, "likeliest", way)
    answers = iter([Completion(["A"], {"A": -0.1, "B": -2.0}), "A"])
    teacher = LLMAnnotator(
        CLASSES, lambda messages: next(answers), prompts=bank(1), scoring="likeliest"
    ).fit(["hi"])
    with pytest.warns(UserWarning, match="1 of 2 .* without log-probabilities"):
        assert_array_equal(teacher.predict_proba(["one", "two"]), [[1, 0], [np.nan] * 2])
    teacher.set_params(prompts=bank(1, codes=["yes", "no"]))
    with pytest.raises(ValueError, match="scoring='likeliest' reads one token"):
        teacher.fit(["hi"])


# -- the ways that are there ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scoring", "content"),
    [
        ("auto", '{"scoring": "auto", "n_samples": 3, "temperature": 0.5}'),
        ("logprobs", '{"scoring": "logprobs"}'),
        ("samples", '{"scoring": "samples", "n_samples": 3, "temperature": 0.5}'),
        ("schema", '{"scoring": "schema"}'),
    ],
)
def test_old_answers_are_found_again(scoring, content):
    """The cache's keys hash these very characters."""
    assert json.dumps(Settings(scoring, 3, 0.5).to_dict()) == content

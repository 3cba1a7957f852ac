"""Any number of labels of an utterance: asked, read, combined, and handed to a student."""

import numpy as np
import pandas as pd
import pytest
from annotating import bank
from fake_llm import LABEL, UTTERANCE, FakeLLM
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_dialpref import DialoguePreferenceClassifier, LLMAnnotator, PromptBank
from sklearn_dialpref.annotation import Prompt

LABELS = ["offer", "need", "thanks"]
SINGLE = (
    "{% for l in labels %}\n{{ l.code }}: {{ l.name }}{% endfor %}\n"
    "A speaker says: {{ utterance }}\n"
)


class Erring:
    """Names the labels in a text, each wrongly at a rate of its own, the same way each time."""

    name = "erring"

    def __init__(self, rates=(0.0, 0.0, 0.0)):
        self.rates = dict(zip(LABELS, rates, strict=True))

    def __call__(self, messages):
        content = messages[-1]["content"]
        text = UTTERANCE.search(content).group(1)
        rng = np.random.default_rng([len(content), *text.encode()])
        codes = [
            code
            for code, label in LABEL.findall(content)
            if (label in text) != (rng.random() < self.rates[label])
        ]
        return (" ".join(codes) or "none") + ";"


@pytest.fixture(scope="module")
def chats():
    rng = np.random.default_rng(0)
    given = rng.random((400, 3)) < [0.4, 0.2, 0.3]
    text = [
        " ".join(
            [label for label, on in zip(LABELS, row, strict=True) if on] + [f"number {number}"]
        )
        for number, row in enumerate(given)
    ]
    X = pd.DataFrame(
        {"dialogue_id": np.arange(400) // 8, "turn": np.arange(400) % 8, "text": text}
    )
    return X, given.astype(float)


def prompts(size=3):
    return PromptBank([Prompt(f"{n}{SINGLE}", LABELS, multilabel=True) for n in range(size)])


def annotator(model, **options):
    options = {"prompts": prompts(), "cache": None, **options}
    return LLMAnnotator(LABELS, model, multilabel=True, **options)


def test_labels_scores_and_what_comes_with_them(chats):
    X, y = chats
    teacher = annotator(Erring()).fit(X)
    assert_array_equal(teacher.predict(X), y)
    assert teacher.predict(X).dtype == np.int64
    assert teacher.scores_.shape == (400, 3, 3)
    assert teacher.votes_[0, 0] == tuple(np.array(LABELS)[y[0] == 1])
    assert_array_equal(teacher.agreement_, 1)
    assert teacher.classes_.tolist() == LABELS  # in the order given, as the student has them
    assert teacher.score(X, y) == 1
    half = np.where(np.arange(400)[:, None] % 2, np.nan, y)
    half[0, 0] = 1 - half[0, 0]
    assert teacher.score(X, half) == pytest.approx(199 / 200)
    assert "Labels of an utterance: any number" in teacher.card()
    with pytest.raises(ValueError, match="all of y is missing"):
        teacher.score(X, np.full((400, 3), np.nan))


def test_an_utterance_without_an_answer_is_nan(chats):
    X, _ = chats

    def model(messages):
        return "no idea" if "number 3" in messages[-1]["content"] else "none;"

    teacher = annotator(model).fit(X[:6])
    with pytest.warns(UserWarning, match=r"1 of 6 .*off-list answer 'no idea'"):
        predicted = teacher.predict(X[:6])
    assert np.isnan(predicted[3]).all() and not np.delete(predicted, 3, axis=0).any()
    assert teacher.votes_[3].tolist() == [None] * 3
    assert np.isnan(teacher.agreement_[3])


def test_scores_are_calibrated_after_fit(chats):
    """A model that errs at rates of .05, .3 and .15, the same way by all prompts."""
    X, y = chats
    rates = (0.05, 0.3, 0.15)
    plain = annotator(Erring(rates), prompts=prompts(1)).fit(X[200:])
    learned = annotator(Erring(rates), prompts=prompts(1)).fit(X[:200], y[:200])
    assert all(one.temperature > 1 for one in learned.combination_)
    for how in (plain, learned):
        how.loss = -np.log(np.clip(1 - np.abs(y[200:] - how.predict_proba(X[200:])), 0.01, None))
    assert (learned.loss.mean(axis=0) < plain.loss.mean(axis=0) - 0.03).all()
    proba, voted = learned.predict_proba(X[200:]), plain.predict_proba(X[200:]) > 0.5
    for label in range(3):
        for side in (False, True):
            chosen = voted[:, label] == side
            assert proba[chosen, label].mean() == pytest.approx(
                y[200:][chosen, label].mean(), abs=0.12
            )


def test_members_that_know_nothing_weigh_less(chats):
    X, y = chats
    knows, guesses = Erring(), Erring((0.5, 0.5, 0.5))
    guesses.name = "guessing"
    teacher = annotator([knows, guesses], prompts=prompts(1)).fit(X[:200], y[:200])
    weights = [one.weights[0] for one in teacher.combination_]
    assert min(weights) > 0.7, weights
    assert (teacher.predict(X[200:]) == y[200:]).mean() > 0.97


def test_partly_labelled_rows_and_examples(chats):
    X, y = chats
    some = y[:40].copy()
    some[::2, 1] = np.nan
    some[5:10] = np.nan
    shown = []

    def model(messages):
        shown.append(messages[-1]["content"])
        return "none;"

    examples = "{% for e in examples %}Example: {{ e.utterance }} -> {{ e.code }}\n{% endfor %}"
    with_examples = PromptBank([Prompt(examples + SINGLE, LABELS, multilabel=True, n_examples=3)])
    annotator(model, prompts=with_examples).fit(X[:40], some)
    assert len(shown) == 35
    lines = [line for text in shown for line in text.splitlines() if line.startswith("Example")]
    assert lines
    for line in lines:
        row = int(line.split("number ")[1].split('"')[0])
        codes = [code for code, on in zip("ABC", y[row], strict=True) if on]
        assert row % 2 and line.endswith(f"-> {' '.join(codes) or 'none'};")


def test_it_is_what_a_multilabel_student_takes(chats):
    X, y = chats
    y_human = np.full_like(y, np.nan)
    y_human[:80] = y[:80]
    with FakeLLM() as server:
        teacher = LLMAnnotator(
            LABELS, "tiny", multilabel=True, base_url=server.base_url, cache=None,
            utterances_per_call="dialogue",
            prompts=PromptBank.default("acts", LABELS, size=2, multilabel=True, stretches=True),
        )  # fmt: skip
        y_llm = teacher.fit(X, y_human).predict_proba(X)
    assert ((y_llm >= 0) & (y_llm <= 1)).all()
    features = pd.DataFrame(y + np.random.default_rng(1).normal(size=y.shape)).assign(
        dialogue_id=X["dialogue_id"]
    )
    student = DialoguePreferenceClassifier("precomputed", classes=LABELS, random_state=0)
    student.fit(features, y_human, y_llm)
    assert student.multilabel_ and student.classes_.tolist() == LABELS


def test_one_label_alone():
    teacher = LLMAnnotator(
        ["spam"], lambda messages: "A;", multilabel=True, cache=None,
        prompts=PromptBank([Prompt(SINGLE, ["spam"], multilabel=True)]),
    )  # fmt: skip
    assert_allclose(teacher.fit(["hi"]).predict_proba(["hi"]), [[1.0]])


def test_what_does_not_fit_is_refused(chats):
    X, y = chats
    with pytest.raises(ValueError, match="multilabel=True takes a 2-D y_human"):
        annotator(Erring()).fit(X, ["offer"] * 400)
    with pytest.raises(ValueError, match="set multilabel=True"):
        LLMAnnotator(LABELS, Erring(), prompts=bank(1)).fit(X, y)
    with pytest.raises(ValueError, match="one column; for one label leave multilabel=False"):
        LLMAnnotator(["offer"], Erring(), multilabel=True).fit(X, y[:, :1])
    with pytest.raises(ValueError, match="3 columns but classes names 2"):
        LLMAnnotator(LABELS[:2], Erring(), multilabel=True).fit(X, y)


# -- asking until it is sure ------------------------------------------------------------------


def test_asking_stops_once_the_answers_agree(chats):
    X, y = chats
    sure = annotator(Erring(), prompts=prompts(8), stop_when_sure=2.5).fit(X)
    assert_array_equal(sure.predict(X), y)
    assert sure.usage_["calls"] == 3 * 400
    assert np.isnan(sure.scores_[:, 3:]).all()
    every = annotator(Erring(), prompts=prompts(8)).fit(X)
    every.predict(X)
    assert every.usage_["calls"] == 8 * 400
    assert "asked in turn, until a label is 2.5 answers ahead" in sure.card()


def test_the_lead_is_chosen_on_human_labels(chats):
    X, y = chats
    teacher = annotator(Erring(), prompts=prompts(8), stop_when_sure=True)
    assert teacher.fit(X).lead_ == 3.5
    assert teacher.fit(X[:160], y[:160]).lead_ < 3.5
    assert teacher.usage_["calls"] == 8 * 160
    teacher.predict(X)
    assert teacher.usage_["calls"] < 0.4 * 8 * 400
    for bad in (0, -1.0, "yes"):
        with pytest.raises(ValueError, match="stop_when_sure"):
            annotator(Erring(), stop_when_sure=bad).fit(X)

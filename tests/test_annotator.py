"""The annotator as a scikit-learn classifier: scores, human labels, examples, cards."""

import json
import pickle
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from fake_llm import FakeLLM
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_dialpref import DialoguePreferenceClassifier, LLMAnnotator, PromptBank
from sklearn_dialpref.annotation import Completion, Prompt
from sklearn_dialpref.annotation.prompts import as_data
from sklearn_dialpref.annotation.scoring import OffList, label_scores

CLASSES = ["bad", "good", "so-so"]
LABELS = "{% for l in labels %}{{ l.code }}: {{ l.name }}\n{% endfor %}"
EXAMPLES = "{% for e in examples %}{{ e.code }}<{{ e.utterance }}>{% endfor %}"


def bank(size=2, classes=CLASSES, **options):
    """Prompts without context, as small as can be."""
    return PromptBank(
        [
            Prompt(f"{n}\n{LABELS}{EXAMPLES}\nA speaker says: {{{{ utterance }}}}\n", classes,
                   **options)
            for n in range(size)
        ]
    )  # fmt: skip


def never(text):
    return False


class Oracle:
    """A model that names the class whose name the utterance has, and keeps what it saw."""

    def __init__(self, name="oracle", errs=never):
        self.name, self.errs, self.seen = name, errs, []

    def __call__(self, messages):
        content = messages[-1]["content"]
        self.seen.append(content)
        text = re.search(r'"text": "(.*)"\}', content.rsplit("says: ")[-1]).group(1)
        codes = dict(re.findall(r"^(\S+): (\S+)$", content, re.M))
        answer = next((code for code, label in codes.items() if label in text), next(iter(codes)))
        if self.errs(text):
            answer = {"A": "B", "B": "C", "C": "A"}[answer]
        return answer


@pytest.fixture
def chats():
    rng = np.random.default_rng(0)
    labels = rng.choice(CLASSES, 120)
    return pd.DataFrame(
        {
            "dialogue_id": np.repeat([f"d{n}" for n in range(20)], 6),
            "turn": list(range(6)) * 20,
            "speaker": ["agent", "user"] * 60,
            "text": [f"This is {label}, number {n}." for n, label in enumerate(labels)],
            "label": labels,
        }
    )


# -- from answers to scores -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Completion([], {"A": np.log(0.5), " A": np.log(0.1), "B": np.log(0.2)}), [0.75, 0.25]),
        (Completion([], {"▁A": np.log(0.3), "ĠB": np.log(0.1)}), [0.75, 0.25]),
        (Completion([], {"B\n": np.log(0.02), "The": np.log(0.9)}), [0, 1]),
        (Completion(["A", "B", "A", "A"]), [0.75, 0.25]),
        (Completion(["A", "nothing of it"]), [1, 0]),
        (Completion([" A\n"]), [1, 0]),
        (Completion(["(B)"]), [0, 1]),
        (Completion(["**B**"]), [0, 1]),
        (Completion(["B: bad"]), [0, 1]),
        (Completion(["B. It is bad, and A is not."]), [0, 1]),
        (Completion(['{"label": "B"}']), [0, 1]),
    ],
)
def test_scores_of_answers(answer, expected):
    assert_allclose(label_scores(answer, ("A", "B")), expected)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Completion(["A good question"]), "off-list answer 'A good question'"),
        (Completion(["C"]), "off-list answer 'C'"),
        (Completion(["a"]), "off-list answer 'a'"),
        (Completion(["AB"]), "off-list answer 'AB'"),
        (Completion([""]), "off-list answer ''"),
        (Completion([]), r"off-list answer \(nothing\)"),
        (Completion(['{"label": "C"}']), "off-list"),
        (Completion(['{"label": ']), "off-list"),
        (Completion(['{"label": ["A"]}']), "off-list"),
        (Completion(["[1"]), "off-list"),
        (Completion(["The"], {"The": -0.01, "A": -9.0}), "off-list answer 'The'"),
        (Completion(["A"], finish_reason="content_filter"), "content filter"),
    ],
)
def test_no_label_is_made_up(answer, reason):
    with pytest.raises(OffList, match=reason):
        label_scores(answer, ("A", "B"))


def test_codes_of_several_characters():
    assert_allclose(label_scores(Completion(["12"]), ("1", "12")), [0, 1])
    assert_allclose(label_scores(Completion(["so-so"]), ("so", "so-so")), [0, 1])


@pytest.mark.parametrize("scoring", ["logprobs", "samples", "schema", "auto"])
def test_each_way_of_scoring(scoring, chats):
    with FakeLLM() as server:
        teacher = LLMAnnotator(
            CLASSES, "tiny", base_url=server.base_url, scoring=scoring, n_samples=2, cache=None
        ).fit(chats)
        proba = teacher.predict_proba(chats[:12])
        request = server.requests[-1]
    assert_array_equal(teacher.classes_[proba.argmax(axis=1)], chats["label"][:12])
    assert_allclose(proba.sum(axis=1), 1)
    assert_allclose(proba.max(axis=1), 0.9 if scoring in ("auto", "logprobs") else 1)
    assert request.get("n", 1) == (2 if scoring == "samples" else 1)
    assert ("response_format" in request) == (scoring == "schema")
    if scoring == "schema":
        schema = request["response_format"]["json_schema"]["schema"]
        codes = [list(prompt.codes) for prompt in teacher.prompts_]
        assert schema["properties"]["label"]["enum"] in codes


def test_extra_body_reaches_the_endpoint_and_the_cache_key(chats, tmp_path):
    with FakeLLM() as server:
        for effort in ("none", "low", "low"):
            LLMAnnotator(
                CLASSES, "tiny", base_url=server.base_url, prompts=bank(1), cache=tmp_path / "c",
                extra_body={"reasoning_effort": effort},
            ).fit(chats).predict(chats[:1])  # fmt: skip
        assert [r["reasoning_effort"] for r in server.requests] == ["none", "low"]


# -- the ensemble -----------------------------------------------------------------------------


def test_scores_are_the_mean_over_prompts_and_models(chats):
    first, second = Oracle("first"), Oracle("second", errs=lambda text: "bad" in text)
    teacher = LLMAnnotator(CLASSES, [first, second], prompts=bank(3)).fit(chats)
    proba = teacher.predict_proba(chats)
    bad = (chats["label"] == "bad").to_numpy()
    assert_allclose(proba[bad], [[0.5, 0.5, 0]] * bad.sum())
    assert_allclose(proba[~bad].max(axis=1), 1)
    assert teacher.scores_.shape == (120, 6, 3)
    assert [model for model, _ in teacher.members_] == ["first"] * 3 + ["second"] * 3
    assert teacher.votes_[bad][0].tolist() == ["bad"] * 3 + ["good"] * 3
    assert_allclose(teacher.agreement_, np.where(bad, 0.5, 1))
    assert teacher.usage_ == {
        "calls": 720, "cached": 0, "failed": 0,
        "tokens_in": 0, "tokens_out": 0, "tokens_cached": 0, "cost": 0.0
    }  # fmt: skip


def test_it_is_what_the_student_wants(chats):
    teacher = LLMAnnotator(CLASSES, Oracle(), prompts=bank(1))
    y_llm = teacher.fit(chats).predict_proba(chats)
    X = chats[["dialogue_id"]].assign(**{f"f{n}": y_llm[:, n] for n in range(3)})
    student = DialoguePreferenceClassifier("precomputed", classes=CLASSES, random_state=0)
    assert student.fit(X, None, y_llm).score(X, chats["label"]) == 1


def test_only_some_utterances_are_asked_about(chats):
    model = Oracle()
    prompts = PromptBank([Prompt(
        LABELS + "{% for c in before %}{{ c }}\n{% endfor %}A speaker says: {{ utterance }}\n",
        CLASSES, context_turns=1,
    )])  # fmt: skip
    teacher = LLMAnnotator(CLASSES, model, prompts=prompts).fit(chats)
    asked = np.arange(len(chats)) % 6 == 5
    estimate = teacher.estimate_cost(chats, asked=asked)
    proba = teacher.predict_proba(chats, asked=asked)  # the others are no failures: no warning
    assert_array_equal(np.isnan(proba).all(axis=1), ~asked)
    assert_array_equal(teacher.classes_[proba[asked].argmax(axis=1)], chats["label"][asked])
    assert len(model.seen) == estimate.calls == teacher.usage_["calls"] == 20
    assert "number 4." in model.seen[0].split("says:")[0]
    assert "number 5." in model.seen[0].split("says:")[1]
    assert teacher.failures_ == []
    assert teacher.scores_.shape == (120, 1, 3)
    assert teacher.votes_[~asked].tolist() == [[None]] * 100
    assert_array_equal(np.isnan(teacher.agreement_), ~asked)
    card = json.loads(teacher.card("json"))
    assert (card["utterances"], card["without_answer"]) == (20, 0)


def test_nobody_may_be_asked_about(chats):
    model = Oracle()
    teacher = LLMAnnotator(CLASSES, model, prompts=bank(1)).fit(chats)
    assert np.isnan(teacher.predict_proba(chats, asked=np.zeros(len(chats), dtype=bool))).all()
    assert not model.seen


def test_utterances_asked_about_that_got_no_answer_are_told(chats):
    teacher = LLMAnnotator(CLASSES, lambda m: "?", prompts=bank(1)).fit(chats)
    asked = np.arange(len(chats)) < 3
    with pytest.warns(UserWarning, match="3 of 3 utterances got no answer"):
        teacher.predict_proba(chats, asked=asked)


@pytest.mark.parametrize("asked", [[True], [1] * 120, [[True]] * 120, [True, None] * 60])
def test_the_mask_of_utterances_is_checked(asked, chats):
    teacher = LLMAnnotator(CLASSES, Oracle(), prompts=bank(1)).fit(chats)
    with pytest.raises(ValueError, match="asked must hold True or False for each of the 120"):
        teacher.predict_proba(chats, asked=asked)


@pytest.mark.parametrize("classes", [[0, 1], [True, False], np.array(["x", "y"])])
def test_labels_keep_their_type(classes):
    teacher = LLMAnnotator(classes, lambda m: "A", prompts=bank(2, classes)).fit(["hi"])
    labels = teacher.predict(["hi", "ho"])
    assert labels.dtype == np.asarray(classes).dtype
    assert labels.tolist() == [np.asarray(classes).tolist()[0]] * 2


def test_forms_of_x(chats):
    frames = [chats, pl.from_pandas(chats), chats[["dialogue_id", "text"]].to_numpy(),
              chats["text"].tolist(), chats["text"]]  # fmt: skip
    for X in frames:
        teacher = LLMAnnotator(CLASSES, Oracle(), prompts=bank(1)).fit(X)
        assert teacher.score(X, chats["label"]) == 1
    with pytest.raises(ValueError, match="text must not be empty"):
        teacher.predict(["", "hi"])


def test_context_is_what_stands_around_in_the_same_dialogue(chats):
    seen = Oracle()
    around = "{{ before|join('|') }}#{{ after|join('|') }}\n"
    prompts = PromptBank(
        [Prompt(around + LABELS + "says: {{ utterance }}\n", CLASSES, context_turns=2,
                look_ahead=1)]
    )  # fmt: skip
    shuffled = chats.sample(frac=1, random_state=0)
    LLMAnnotator(CLASSES, seen, prompts=prompts).fit(shuffled).predict(shuffled)
    shown = dict(zip(shuffled.index, seen.seen, strict=True))

    def texts(row):
        return [as_data(chats["text"][r], chats["speaker"][r]) for r in row]

    for row, around in [(6, ([], [7])), (7, ([6], [8])), (9, ([7, 8], [10])), (11, ([9, 10], []))]:
        before, after = shown[row].split("\n")[0].split("#")
        assert before == "|".join(texts(around[0])) and after == "|".join(texts(around[1]))


def test_a_ready_made_context_is_shown(chats):
    seen = Oracle()
    prompts = PromptBank(
        [Prompt("{{ before|join }}\n" + LABELS + "says: {{ utterance }}\n", CLASSES,
                context_turns=1)]
    )  # fmt: skip
    X = chats.assign(context=["", "ready\nmade"] * 60)[:2]
    LLMAnnotator(CLASSES, seen, prompts=prompts).fit(X).predict(X)
    assert [content.split("\n")[0] for content in seen.seen] == ["", '{"text": "ready\\nmade"}']


# -- human labels -----------------------------------------------------------------------------


def test_without_labels_fit_asks_nothing(chats):
    model = Oracle()
    LLMAnnotator(CLASSES, model).fit(chats)
    LLMAnnotator(CLASSES, model).fit(chats, [None] * 120)
    LLMAnnotator(model=model, learn=()).fit(chats, chats["label"])
    assert model.seen == []


def test_bad_members_lose_their_weight(chats):
    good = Oracle("good one", errs=lambda text: text[-2] == "0")
    poor = Oracle("poor one", errs=lambda text: int(text[-2]) % 3 < 2)
    known = chats["label"].where(np.arange(120) < 90)
    teacher = LLMAnnotator(model=[good, poor], prompts=bank(1)).fit(chats, known)
    assert len(good.seen) == 90  # only what is labelled
    assert teacher.combination_.weights[0] > 0.7
    plain = LLMAnnotator(CLASSES, [good, poor], prompts=bank(1)).fit(chats)
    assert teacher.score(chats[90:], chats["label"][90:]) == pytest.approx(0.9)

    def log_loss(one):
        proba = one.predict_proba(chats[90:])
        right = proba[np.arange(30), np.searchsorted(CLASSES, chats["label"][90:])]
        return -np.log(right + 0.01).mean()

    assert log_loss(teacher) < log_loss(plain) - 0.1
    fixed = LLMAnnotator(model=[good, poor], prompts=bank(1), learn=["temperature"])
    assert_allclose(fixed.fit(chats, known).combination_.weights, [0.5, 0.5])


def test_what_is_learned_does_not_depend_on_the_order_of_rows(chats):
    known = chats["label"].where(np.arange(120) < 90)
    options = {"prompts": bank(2, n_examples=2)}
    order = np.random.default_rng(1).permutation(120)
    one, other = (LLMAnnotator(model=Oracle("m", lambda t: "0" in t), **options) for _ in "ab")
    one.fit(chats, known)
    other.fit(chats.iloc[order], known.iloc[order])
    assert_array_equal(one.predict_proba(chats)[order], other.predict_proba(chats.iloc[order]))
    assert sorted(one.model.seen) == sorted(other.model.seen)


def test_examples_are_of_other_dialogues_the_classes_in_turn(chats):
    model = Oracle()
    known = chats["label"].where(chats["dialogue_id"].isin(["d0", "d1", "d2", "d3"]))
    teacher = LLMAnnotator(model=model, prompts=bank(1, n_examples=3), learn=())
    teacher.fit(chats, known).predict(chats)
    for content, dialogue in zip(model.seen, chats["dialogue_id"], strict=True):
        shown = re.findall(r'(\w)<\{"text": "This is (\S+), number (\d+)\."\}>', content)
        assert len(shown) == 3
        assert {("ABC"[CLASSES.index(label)], label) for _, label, _ in shown} == {
            (code, label) for code, label, _ in shown
        }
        assert len({label for _, label, _ in shown}) == 3
        rows = [int(number) for *_, number in shown]
        assert dialogue not in set(chats["dialogue_id"][rows])
        assert set(chats["dialogue_id"][rows]) <= {"d0", "d1", "d2", "d3"}


def test_default_prompts_with_definitions_and_examples(chats):
    model = Oracle()
    teacher = LLMAnnotator(
        model=model, task="the mood", definitions={"so-so": "neither of both"}, n_examples=2,
        learn=(),
    ).fit(chats, chats["label"])  # fmt: skip
    assert len(teacher.prompts_) == 8
    assert [prompt.n_examples for prompt in teacher.prompts_].count(2) == 4
    assert sum("neither of both" in str(prompt.definitions) for prompt in teacher.prompts_) == 4
    assert all("the mood" in prompt.task for prompt in teacher.prompts_)


# -- as an estimator --------------------------------------------------------------------------


def test_tools_of_scikit_learn(chats):
    teacher = LLMAnnotator(CLASSES, Oracle(), prompts=bank(1))
    assert cross_val_score(teacher, chats, chats["label"], cv=3).mean() == 1
    assert make_pipeline(FunctionTransformer(), teacher).fit(chats).predict(chats)[0] in CLASSES
    copy = clone(teacher)
    assert copy.get_params()["classes"] == CLASSES and copy.prompts == teacher.prompts
    assert "LLMAnnotator" in repr(teacher) and "LLMAnnotator" in teacher._repr_html_()
    with pytest.raises(NotFittedError):
        copy.predict(chats)
    fitted = pickle.loads(pickle.dumps(teacher.fit(chats)))
    assert_array_equal(fitted.predict_proba(chats), teacher.predict_proba(chats))


def test_score_skips_missing_labels(chats):
    teacher = LLMAnnotator(CLASSES, Oracle("m", lambda t: "0." in t), prompts=bank(1)).fit(chats)
    y = chats["label"].where(np.arange(120) < 20)
    assert teacher.score(chats, y) == pytest.approx(0.9)
    weight = np.r_[np.full(10, 3.0), np.zeros(110)]
    assert teacher.score(chats, y, sample_weight=weight) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="all of y is missing"):
        teacher.score(chats, [None] * 120)


def test_refitting_forgets_the_last_pass(chats):
    teacher = LLMAnnotator(CLASSES, Oracle(), prompts=bank(1)).fit(chats)
    teacher.predict(chats)
    teacher.fit(chats)
    with pytest.raises(NotFittedError):
        teacher.card()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": None}, "the classes must be named"),
        ({"classes": ["one"]}, "at least two distinct"),
        ({"classes": ["a", "a", "b"]}, "at least two distinct"),
        ({"classes": ["a", 1]}, "of one type"),
        ({"classes": ["a", "\ud83d"]}, "classes has a lone surrogate"),
        ({"definitions": {"bad": "\ud83d"}}, "definition of 'bad' has a lone surrogate"),
        ({"task": "the \ud83d"}, "task has a lone surrogate"),
        ({"model": "\ud83d"}, "name of a model has a lone surrogate"),
        ({"extra_body": {"a": {"b": "\ud83d"}}}, "extra_body has a lone surrogate"),
        ({"extra_body": {"a": {1, 2}}}, "extra_body must be what JSON can hold.*set"),
        ({"extra_body": {"a": float("nan")}}, "extra_body must be what JSON can hold"),
        ({"model": []}, "at least one model, each once"),
        ({"model": ["m", "m"]}, "each once"),
        ({"model": 5}, "'model' parameter"),
        ({"scoring": "guess"}, "'scoring' parameter"),
        ({"learn": ("bias", "luck")}, r"learn holds \['luck'\]"),
        ({"budget": 1.0}, "needs prices"),
        ({"prices": (1.0,)}, "prices must be"),
        ({"prices": (1.0, -1.0)}, "prices must be"),
        ({"prices": (1.0, float("nan"))}, "prices must be"),
        ({"prices": ("1", "2")}, "prices must be"),
        ({"prices": {"gpt-4o-mini": 5}}, "prices must be"),
        ({"learn": [["bias"]]}, "learn holds"),
        ({"prices": {"other": (1.0, 1.0)}}, r"no entry for \['gpt-4o-mini'\]"),
        ({"concurrency": 0}, "'concurrency' parameter"),
        ({"prompts": bank(1, ["x", "y"])}, r"ask for \['x', 'y'\] but the classes are"),
        ({"prompts": bank(1), "n_examples": 2}, "n_examples is for the default prompts"),
        ({"prompts": bank(1, n_examples=2)}, "no human labels to take them from"),
        ({"n_examples": 2}, "no human labels to take them from"),
        ({"prompts": bank(1, codes=["yes", "no", "eh"]), "scoring": "logprobs"}, "one character"),
        ({"definitions": {"worse": "…"}}, "worse.*not among the classes"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LLMAnnotator(**{"classes": CLASSES, **options}).fit(["hi"])


def test_bad_labels_are_refused(chats):
    with pytest.raises(ValueError, match=r"y_human is 2-D.*set multilabel=True"):
        LLMAnnotator(model=Oracle()).fit(chats, np.eye(2)[np.arange(120) % 2])
    with pytest.raises(ValueError, match="121"):
        LLMAnnotator(model=Oracle()).fit(chats, ["a", "b"] * 60 + ["c"])


def test_missing_packages_are_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.setenv("OPENAI_API_KEY", "sk")
    with pytest.raises(ImportError, match=r"pip install 'sklearn-dialpref\[llm\]'"):
        LLMAnnotator(CLASSES).fit(["hi"]).predict(["hi"])
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"pip install 'sklearn-dialpref\[llm\]'"):
        Prompt("{{ utterance }}{{ labels }}", ["other", "classes"]).render("hi")


# -- cost and cards ---------------------------------------------------------------------------


def test_estimates_before_anything_was_asked(chats):
    def model(messages):
        raise AssertionError("not to be asked")

    teacher = LLMAnnotator(CLASSES, model, prices=(2.0, 8.0)).fit(chats)
    once = teacher.estimate_cost(chats)
    assert (once.calls, once.cached) == (960, 0)
    assert once.cost == pytest.approx((once.tokens_in * 2 + once.tokens_out * 8) / 1e6)
    teacher.set_params(scoring="samples", n_samples=4).fit(chats)
    assert teacher.estimate_cost(chats).tokens_out == 8 * once.tokens_out


def test_estimates_of_many_rows_are_scaled_up(chats, monkeypatch):
    teacher = LLMAnnotator(CLASSES, Oracle(), prompts=bank(2)).fit(chats)
    exact = teacher.estimate_cost(chats)
    monkeypatch.setattr("sklearn_dialpref.annotation.estimate.MOST_COUNTED", 100)
    scaled = teacher.estimate_cost(chats)
    assert scaled.calls == exact.calls == 240
    assert scaled.tokens_in == pytest.approx(exact.tokens_in, rel=0.05)


def test_cards(chats):
    def model(messages):
        if "number 7." in messages[-1]["content"]:
            return Completion(["I|would rather not"], tokens_in=10, tokens_out=4)
        return Completion(["A"], tokens_in=10, tokens_out=1)

    model.name = "my model"
    teacher = LLMAnnotator(CLASSES, model, prices=(100.0, 0.0), prompts=bank(2)).fit(chats)
    with pytest.raises(NotFittedError):
        teacher.card()
    with pytest.warns(UserWarning, match="1 of 120"):
        teacher.predict(chats)
    content = json.loads(teacher.card("json"))
    assert content["models"] == ["my model"] and content["classes"] == CLASSES
    assert content["utterances"] == 120 and content["without_answer"] == 1
    assert content["agreement"] == 1 and content["weights"] == [0.5, 0.5]
    assert content["usage"]["calls"] == 240 and content["usage"]["cost"] == pytest.approx(0.24)
    assert content["failures"] == {"off-list answer 'I|would rather not'": 2}
    assert [prompt["id"] for prompt in content["prompts"]] == [p.id for p in teacher.prompts_]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", content["date"])
    text = teacher.card()
    assert text.startswith("# Labels from language models")
    for part in ["my model", "without an answer: 1", "cost 0.2400", teacher.prompts_[1].id,
                 "| off-list answer 'I/would rather not' | 2 |"]:  # fmt: skip
        assert part in text
    with pytest.raises(ValueError, match="format must be"):
        teacher.card("html")


def test_progress_shows_calls_and_cost(chats, capsys):
    teacher = LLMAnnotator(CLASSES, Oracle(), prompts=bank(1), verbose=1).fit(chats)
    teacher.predict(chats)
    shown = capsys.readouterr().err
    assert "120/120" in shown and "calls=100" in shown and "cost=0.0000" in shown
    teacher.set_params(verbose=0).predict(chats)
    assert capsys.readouterr() == ("", "")

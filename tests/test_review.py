"""Faults that a review of the annotators found."""

import numpy as np
import pytest

from sklearn_dialpref.annotation import Completion, Prompt
from sklearn_dialpref.annotation.forms import AnyCodes, Asked, OneCode
from sklearn_dialpref.annotation.scoring import OffList, label_scores
from sklearn_dialpref.annotation.splitting import split

SHOWN = "{% for l in labels %}{{ l.code }}{% endfor %} {{ utterance }}"


@pytest.mark.parametrize("n_turns", range(5))
def test_a_dialogue_s_first_turns_show_all_that_came_before(n_turns):
    prompt = Prompt(SHOWN + "{{ before|join(' ') }}", ["a", "b"], context_turns=3)
    before = [(None, f"turn {number}") for number in range(n_turns)]
    content = prompt.render("now", before=before)[0]["content"]
    assert [number for number in range(n_turns) if f"turn {number}" in content] == list(
        range(max(0, n_turns - 3), n_turns)
    )


def scores(form, *tokens, numbers=(1,)):
    """Scores of the first turn; each token has a probability of about 0.9."""
    places = [(token, {token: -0.1}) for token in tokens]
    answer = Completion(["".join(tokens)], places[0][1], tokens=places if tokens[1:] else None)
    return label_scores(split(answer, Asked(form, numbers))[0], form).round(1).tolist()


@pytest.mark.parametrize(
    ("numbers", "tokens"), [((), ("I", " cannot")), ((1,), ("1", ":", " I", " cannot"))]
)
def test_a_refusal_is_not_an_answer_without_labels(numbers, tokens):
    with pytest.raises(OffList, match="cannot"):
        scores(AnyCodes(("A", "B")), *tokens, numbers=numbers)


@pytest.mark.parametrize(
    ("numbers", "tokens"),
    [((), (" A",)), ((), ("A;",)), ((1,), ("1", ": A", ";")), ((1,), ("1", ":", " A", "C", ";"))],
)
def test_a_listed_code_counts_however_it_was_cut_into_tokens(numbers, tokens):
    given = scores(AnyCodes(("A", "B", "AC")), *tokens, numbers=numbers)
    assert np.flatnonzero(np.array(given) > 0.5).tolist() == ([2] if "C" in tokens else [0])


def test_a_code_inside_an_explanation_is_not_the_answer():
    with pytest.raises(OffList, match="neither"):
        scores(OneCode(("A", "B")), "1", ":", " neither", " A", " nor", " B")


def test_a_code_is_not_the_first_token_of_a_longer_one():
    assert scores(OneCode(("1", "2", "12")), "1", ":", " ", "1", "2") == [0, 0, 1]
    assert scores(OneCode(("A", "B")), "1", ":", " **", "A", "**") == [1, 0]

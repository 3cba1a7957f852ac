"""Faults that a review of the annotators found."""

import pytest

from sklearn_dialpref.annotation import Prompt

SHOWN = "{% for l in labels %}{{ l.code }}{% endfor %} {{ utterance }}"


@pytest.mark.parametrize("n_turns", range(5))
def test_a_dialogue_s_first_turns_show_all_that_came_before(n_turns):
    prompt = Prompt(SHOWN + "{{ before|join(' ') }}", ["a", "b"], context_turns=3)
    before = [(None, f"turn {number}") for number in range(n_turns)]
    content = prompt.render("now", before=before)[0]["content"]
    assert [number for number in range(n_turns) if f"turn {number}" in content] == list(
        range(max(0, n_turns - 3), n_turns)
    )

"""The training recipe, and what the docs say of it."""

import re
from pathlib import Path

import pytest

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref._training import recipe

GUIDE = Path(__file__).parents[1] / "docs" / "user_guide" / "student.rst"


def documented():
    """The user guide's table: parameter to what it says of a frozen and a fine-tuned encoder."""
    lines = GUIDE.read_text().splitlines()
    rule = re.compile(r"=+  =+  =+")
    first, _, last = (number for number, line in enumerate(lines) if rule.fullmatch(line))
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[first + 3 : last]]
    return {name.replace("`", ""): cells for name, *cells in rows}


LENGTHS = {
    "max_epochs, LLM labels first": recipe.TEACHER_STAGE,
    "max_epochs, human labels alone": recipe.HUMAN_STAGE_ALONE,
    "max_epochs, human labels after": recipe.HUMAN_STAGE_AFTER,
    "max_epochs, joint stage after": recipe.JOINT_STAGE_AFTER,
}


def test_the_guide_has_the_rates_and_batches_of_the_recipe():
    table = documented()
    assert [float(cell) for cell in table.pop("learning_rate")] == [
        recipe.HEAD_RATE,
        recipe.ENCODER_RATE,
    ]
    assert [int(cell) for cell in table.pop("batch_size")] == list(recipe.BATCH.values())
    assert table.keys() == LENGTHS.keys()


@pytest.mark.parametrize("parameter", LENGTHS)
def test_the_guide_has_the_lengths_of_the_recipe(parameter):
    for cell, (epochs, steps) in zip(
        documented()[parameter], LENGTHS[parameter].values(), strict=True
    ):
        assert cell == (f"{epochs} ({steps})" if steps else f"{epochs}")


def test_the_docstring_has_the_bars_for_the_teacher():
    text = " ".join(DialoguePreferenceClassifier.__doc__.split())
    assert f"{recipe.FEWEST_TO_JUDGE} or more human ones are left out" in text
    assert f"at least {100 * recipe.GRAVE:.0f} points of accuracy" in text


@pytest.mark.parametrize(
    ("n_rows", "rate"), [(1, 0.5), (50_000, 0.5), (100_000, 0.25), (10_000_000, 0.1)]
)
def test_dropout_falls_with_very_many_rows(n_rows, rate):
    assert recipe.dropout_rate(n_rows) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("n_inputs", "n_classes", "rate"),
    [(1920, 2, 5e-4), (4000, 8, 5e-4), (480, 2, 2e-3), (1920, 20, 2e-3), (8, 100, 4e-3)],
)
def test_heads_on_few_features_or_of_many_classes_learn_faster(n_inputs, n_classes, rate):
    multiplier = recipe.head_lr_multiplier(n_classes, multilabel=False)
    assert recipe.head_rate(n_inputs, multiplier) == pytest.approx(rate)


@pytest.mark.parametrize("total", [1, 7, 100])
def test_the_rate_rises_and_falls(total):
    shares = [recipe.rate_share(step, total) for step in range(total)]
    peak = shares.index(max(shares))
    assert max(shares) == 1
    assert shares[:peak] == sorted(shares[:peak])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)

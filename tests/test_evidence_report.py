"""Tables of the evidence: tasks in words, rows sorted, means and spreads as counted by hand."""

import itertools
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.evidence.report import markdown
from benchmarks.evidence.run import read_results
from benchmarks.evidence.summary import plot_summary, summary_table

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "evidence"


@pytest.fixture
def done():
    """Two methods with both tasks, in the wrong order, and one that lacks a task."""
    accuracy = {"lr_human": 0.5, "default": 0.7, "llm_votes": 0.9}
    cells = itertools.product(accuracy, ["meld_sentiment", "deli_type"], [0, 1])
    return pd.DataFrame(
        {
            "method": method,
            "task": task,
            "seed": seed,
            "budget": "100",
            "accuracy": accuracy[method] + 0.02 * seed,
            "macro_f1": accuracy[method] - 0.1,
            "seconds": 2.0,
        }
        for method, task, seed in cells
        if (method, task) != ("llm_votes", "deli_type")
    )


def test_the_summary_has_means_and_spreads_of_methods_with_all_tasks(done):
    table = summary_table(done, "100")
    assert table.index.tolist() == [
        "**this package's default**",
        "embeddings + logistic regression, human labels",
    ]
    # seeds .70 and .72: mean .71, deviation .0141
    assert table.iloc[0].tolist() == [
        ".710\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}.014",
        ".600",
        "2.0",
    ]


def test_the_chart_is_drawn(done, tmp_path):
    pytest.importorskip("matplotlib")
    assert plot_summary(done, tmp_path / "summary.png", "100")
    assert (tmp_path / "summary.png").stat().st_size > 10_000


def test_tables_name_tasks_in_words(done):
    table = pd.DataFrame({"meld_sentiment": ["1"], "of_your_own": ["2"]}, index=["a"])
    assert markdown(table).startswith("|  | MELD sentiment | of_your_own |")


def test_the_table_of_the_guide_is_that_of_the_results():
    results = read_results(RESULTS / "cells_test.csv")
    results = results[(results["student"] == "frozen") & (results["error"] == "")]
    table = markdown(summary_table(results, "100"))
    assert table in (RESULTS / "frozen_test.md").read_text(encoding="utf-8")

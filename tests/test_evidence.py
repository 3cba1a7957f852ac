"""The benchmark of evidence as a command, on a small file of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.evidence.data import Task, load_split, make_cell
from sklearn_dialpref.datasets import load_support_chats

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_another_file_is_measured_once_and_reported(tmp_path):
    chats = load_support_chats()
    votes = pd.DataFrame(chats.y_llm).iloc[:, :2].set_axis(["llm_a", "llm_b"], axis=1)
    data = chats.X.reset_index(drop=True).assign(label=chats.y).join(votes.reset_index(drop=True))
    data.to_parquet(tmp_path / "chats.parquet")
    command = [sys.executable, "-m", "benchmarks.evidence", "--data", tmp_path / "chats.parquet"]
    command += ["--human", "label", "--llm", "llm_a", "llm_b", "--out", tmp_path / "out"]
    command += ["--budgets", "25", "100", "--seeds", "0", "1", "--jobs", "1", "--part", "test"]
    command += ["--methods", "lr_human", "default"]

    first = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    cells = pd.read_csv(tmp_path / "out" / "cells_test.csv")
    assert cells["error"].isna().all()
    assert sorted(zip(cells["method"], cells["budget"], cells["seed"], strict=True)) == [
        (method, budget, seed)
        for method in ("default", "lr_human")
        for budget in (25, 100)
        for seed in (0, 1)
    ]
    assert cells[["accuracy", "macro_f1"]].stack().between(0, 1).all()
    assert "| **default:" in first.stdout
    assert "## Accuracy and macro-F1 at 100 human labels" in first.stdout
    for measure in ("accuracy", "macro-F1"):
        assert f"Lead of the default at 100 human labels, points of {measure}" in first.stdout
    predictions = pd.read_csv(tmp_path / "out" / "predictions_test.csv", dtype={"predicted": str})
    kept = cells[cells["budget"] == 100].reset_index()
    assert (predictions["method"] == kept["method"]).all()
    assert (predictions["predicted"].str.len() == kept["n_rows"]).all()
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert again.stdout == first.stdout
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "cells_test.csv"), cells)
    stored = pd.read_csv(tmp_path / "out" / "predictions_test.csv", dtype={"predicted": str})
    pd.testing.assert_frame_equal(stored, predictions)
    assert list((tmp_path / "out").glob("*.md"))


def test_the_string_none_is_a_class_and_none_is_missing(tmp_path):
    labels = [["None", "Revoicing", None], ["Revoicing", "None", "None"], ["None", None, None]]
    votes = [["None", "Other", None], ["None", None, "Revoicing"], [None, "None", "None"]]
    data = pd.DataFrame(
        {
            "dialogue_id": np.repeat(["a", "b", "c"], 3),
            "text": list("abcdefghi"),
            "label": pd.Categorical(np.ravel(labels)),
            "llm": pd.Categorical(np.ravel(votes)),
        }
    )
    data.to_parquet(tmp_path / "lessons.parquet")
    split = load_split(Task("lessons", "lessons.parquet", "label", ("llm",)), tmp_path, "test")

    assert split.classes.tolist() == ["None", "Revoicing"]
    (dialogue,) = split.train["dialogue_id"].unique()
    number = "abc".index(dialogue[-1])
    assert split.y_train.tolist() == labels[number]
    known = [vote if vote != "Other" else None for vote in votes[number]]
    assert split.votes_train["llm"].tolist() == known
    cell = make_cell(split, "all", 0)
    assert cell.human.tolist() == [label is not None for label in labels[number]]
    shares = [[np.nan] * 2 if v is None else [v == "None", v != "None"] for v in known]
    np.testing.assert_array_equal(cell.shares, shares)

"""The benchmark of evidence as a command, on a small file of its own."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

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
    command += ["--budgets", "25", "--seeds", "0", "1", "--jobs", "1", "--part", "test"]
    command += ["--methods", "lr_human", "default"]

    first = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    cells = pd.read_csv(tmp_path / "out" / "cells_test.csv")
    assert cells["error"].isna().all()
    assert sorted(zip(cells["method"], cells["seed"], strict=True)) == [
        ("default", 0),
        ("default", 1),
        ("lr_human", 0),
        ("lr_human", 1),
    ]
    assert cells[["accuracy", "macro_f1"]].stack().between(0, 1).all()
    assert "| **default: two rounds** |" in first.stdout
    assert "Lead of the default at 25 human labels, points of macro-F1" in first.stdout
    predictions = pd.read_csv(tmp_path / "out" / "predictions_test.csv")
    labelled = predictions["predicted"].str.split().str.len()
    assert (labelled == cells["n_rows"]).all()
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert again.stdout == first.stdout
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "cells_test.csv"), cells)
    stored = pd.read_csv(tmp_path / "out" / "predictions_test.csv")
    pd.testing.assert_frame_equal(stored, predictions)
    assert list((tmp_path / "out").glob("*.md"))

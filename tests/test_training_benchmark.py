"""The benchmark of training: its texts, its counts, its memory, and its report."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from benchmarks.training import encoder, grid, memory, others, sizes
from benchmarks.training.measured import Measured, Memory, watch
from benchmarks.training.report import write_section
from benchmarks.training.texts import few, noisy, repeated, stand_in_encoder, write_halves

WORDS = ["hi", "hello", "parcel", "late", "thanks", "refund", "where"]


def table(n_dialogues, length=4, first=0):
    rng = np.random.default_rng(first)
    rows = n_dialogues * length
    return pd.DataFrame(
        {
            "dialogue_id": [f"d{first + at // length}" for at in range(rows)],
            "turn": np.arange(rows) % length,
            "speaker": ["agent", "customer"] * (rows // 2),
            "text": [" ".join(rng.choice(WORDS, 3)) for _ in range(rows)],
            "label": rng.choice(["a", "b"], rows),
        }
    )


@pytest.fixture
def uncounted(monkeypatch):
    """What counts the encoder's texts until the process ends is undone after the test."""
    monkeypatch.setattr(SentenceTransformer, "forward", SentenceTransformer.forward)


@pytest.fixture
def meld(tmp_path):
    """A folder of one file like MELD's."""
    parts = []
    for first, split in ((0, "train"), (100, "dev"), (200, "test")):
        part = table(20, first=first).assign(split=split)
        human = part.pop("label")
        parts.append(part.assign(sentiment=human, llm_gpt4o_melt_sentiment_derived=human))
    pd.concat(parts).to_parquet(tmp_path / "meld.parquet")
    return tmp_path


# -- texts ------------------------------------------------------------------------------------


def test_repeated_dialogues_are_whole_and_their_texts_distinct():
    data = table(5)
    more = repeated(data, 50)
    assert len(more) == 50 and more["text"].is_unique
    assert more["text"][20].startswith(data["text"][0])
    assert more.groupby("dialogue_id", sort=False).size().tolist() == [4] * 12 + [2]


def test_what_is_predicted_was_not_fitted(tmp_path):
    fitted, other = (pd.read_parquet(file) for file in write_halves(table(5), 30, tmp_path))
    assert len(fitted) == len(other) == 30
    assert not set(fitted["text"]) & set(other["text"])


def test_labels():
    truth = np.array(list("abc") * 300, dtype=object)
    assert 0.1 < (noisy(truth) != truth).mean() < 0.3
    assert pd.notna(few(truth, 7)).sum() == 7


# -- memory of processes ----------------------------------------------------------------------


def test_the_memory_of_children_counts():
    own = Memory()
    own.look(os.getpid())
    code = "x = b'x' * 2**26; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        both = Memory()
        both.look(os.getpid())
        child.communicate(b"\n")
    assert 60 < both.anonymous - own.anonymous < 200
    assert 60 < both.proportional - own.proportional < 200


def test_the_last_line_of_a_command_is_its_result():
    command = [sys.executable, "-c", "print('loading'); print('{\"seconds\": 2}')"]
    assert watch(command, threads=1)[0] == {"seconds": 2}
    with pytest.raises(RuntimeError, match="no such file"):
        watch([sys.executable, "-c", "raise OSError('no such file')"], threads=1)


# -- the parts --------------------------------------------------------------------------------


def test_fit_encodes_the_tokens_of_the_bare_encoder(meld, tiny_encoder, uncounted):
    arguments = {"folder": str(meld), "rows": None, "tuned": False, "encoder": tiny_encoder}
    runs = [run(**arguments) for run in (encoder.fit, encoder.encode, encoder.forward)]
    assert runs[0]["texts"] == pd.read_parquet(meld / "meld.parquet")["text"][:80].nunique()
    assert len({(done["texts"], done["tokens"]) for done in runs}) == 1


def test_backward_passes_see_all_labelled_texts(meld, tiny_encoder, uncounted):
    arguments = {"folder": str(meld), "rows": 40, "tuned": True, "encoder": tiny_encoder}
    assert encoder.encode(**arguments)["texts"] == 40
    assert encoder.forward(**arguments)["seconds"] > 0


def test_a_second_fit_encodes_nothing(tmp_path, uncounted):
    folder = str(stand_in_encoder(tmp_path / "encoder", width=8))
    arguments = {"n_rows": 60, "encoder": folder, "memory": str(tmp_path / "store")}
    runs = [memory.fit(saved=str(tmp_path / "saved"), **arguments) for _ in range(2)]
    assert [done["texts"] for done in runs] == [60, 0]
    predicted = memory.predict(60, str(tmp_path / "saved"))
    assert predicted["texts"] == 60


def test_a_row_of_sizes_is_compared_with_the_row_above(tmp_path, tiny_encoder, uncounted):
    file, other = write_halves(table(20), 40, tmp_path)
    saved = str(tmp_path / "saved")
    fitted = sizes.fit(str(file), saved, encoder=tiny_encoder, max_epochs=1)
    predicted = sizes.predict(str(other), saved)
    assert fitted["texts"] == predicted["texts"] == 40

    before, after = (
        Measured({"seconds": seconds, "texts": 1, "peak": 1.0}, Memory(resident=peak))
        for seconds, peak in ((1.0, 100.0), (5.0, 190.0))
    )
    row = sizes._row("static", "fit", 1000, after, (100, before))
    assert row["time per utterance against the row above"] == "0.50"
    assert row["bytes per utterance more"] == f"{90 * 2**20 / 900:.0f}"


@pytest.mark.slow
def test_a_search_on_features_is_that_on_texts(tmp_path, tiny_encoder):
    file, _ = write_halves(table(60), 240, tmp_path)
    features = str(tmp_path / "features.npy")
    grid.encode(str(file), tiny_encoder, features)
    alone = grid.search(str(file), True, 1, features=features)
    texts = grid.search(str(file), True, 1, encoder=tiny_encoder)
    assert alone["candidates"] == texts["candidates"] == 4
    assert alone["score"] == pytest.approx(texts["score"])


def test_the_comparison_keeps_whole_test_dialogues(meld):
    options = others.argparse.Namespace(data_dir=meld, test_rows=10)
    truth = others._cell(options, "meld_sentiment", 20, 0)
    assert len(truth["labelled"]) == 20 and len(truth["rows"]) == len(truth["codes"]) == 12
    right = others._scores(truth, truth["codes"])
    assert right == {"accuracy": 1.0, "macro_f1": 1.0}


def test_the_comparison_in_a_table():
    options = others.argparse.Namespace(threads=1, jobs=1, test_rows=10, default_steps=3)

    def row(method, seed, seconds, score, **more):
        key = ["meld_sentiment", 100, method, seed, 3 if method == others.DEFAULT else 0, 10, "x"]
        return {"key": key, "seconds": seconds, "accuracy": score, "macro_f1": score, **more}

    theirs = {"all_steps": 500, "steps": 3, "versions": {"setfit": "1.2.0"}}
    rows = [row(others.OURS, seed, 10.0, score, again=1.0) for seed, score in ((0, 0.6), (1, 0.7))]
    text = others._report([*rows, row(others.DEFAULT, 0, 90.0, None, **theirs)], options)
    ours, default = ([one.strip() for one in line.split("|")] for line in text.splitlines()[2:4])
    assert ours[5:11] == ["10.0 ± 0.0", "1.0", "1.0", "0.650 ± 0.071", "0.650 ± 0.071", "2"]
    assert default[4:10] == ["500", "90.0", "", "9.0", "–", "–"]
    assert "timed for 3 steps" in text and "setfit 1.2.0" in text


def test_a_section_is_replaced_and_the_others_kept(tmp_path):
    file, titles = tmp_path / "training.md", ["First", "Second"]
    for title, text in (("Second", "two"), ("First", "old"), ("First", "one")):
        write_section(file, titles, title, text)
    text = file.read_text()
    assert text.startswith("# Training\n") and "old" not in text
    assert text.index("## First") < text.index("one") < text.index("## Second") < text.index("two")


def test_their_trainer_needs_nothing_of_this_repository():
    text = others.SCRIPT.read_text()
    assert "benchmarks" not in text.split('"""')[2] and "dialpref" not in text

"""Training on several processes. Run as a script, this file is what each process does."""

import os
import pickle
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sklearn.base import clone
from skorch.callbacks import Callback

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref._training.accelerated import on_main_process, share_out, split_chunk
from sklearn_dialpref.datasets import make_dialogues

Accelerator = pytest.importorskip("accelerate").Accelerator

TOLERANCE = 1e-5
LONGEST = 120  # seconds of a launch
FITS = {
    "pairs": {"loss": "noise_reduced", "max_epochs": 6, "early_stopping": True, "batch_size": 24},
    "joint": {
        "loss": "noise_reduced",
        "schedule": "joint",
        "context_turns": 1,
        "max_epochs": 8,  # of 7 steps or more
        "batch_size": 12,
    },
    "single texts": {"max_epochs": 1, "batch_size": 1, "trainable_layers": 1},
    "frozen": {"max_epochs": 2, "trainable_layers": 0},
}
COMPARED = ("epoch", "stage", "train_loss", "valid_loss")


def data():
    return make_dialogues(n_dialogues=16, n_turns=(4, 6), human_fraction=0.5, random_state=0)


def fit(encoder, accelerator, labels=None, **parameters):
    made = data()
    parameters = {"trainable_layers": None, "random_state": 0, **parameters}
    clf = DialoguePreferenceClassifier(encoder, accelerator=accelerator, **parameters)
    return clf.fit(made.X, made.y_human if labels is None else labels, made.y_llm)


def outcome(clf):
    """What must not depend on the number of processes."""
    return {
        "weights": clf.net_.module_.state_dict(),
        "history": [[record[name] for name in COMPARED] for record in clf.history_],
        "choices": (clf.human_weight_, clf.temperature_, clf.teacher_status_),
        "probabilities": clf.predict_proba(data().X[:20]),
    }


def error_of(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception as error:
        return type(error).__name__, str(error)


class Failing(Callback):
    """What a process that runs out of memory, say, does in its first epoch."""

    def on_epoch_begin(self, net, **kwargs):
        raise MemoryError("this process is out of memory")


def process(folder, encoder):
    """All fits and writes, in each process of a launch."""
    accelerator = Accelerator(cpu=True)
    first = accelerator.is_main_process
    fitted = {name: fit(encoder, accelerator, **of) for name, of in FITS.items()}
    found = {name: outcome(clf) for name, clf in fitted.items()}
    found["unseeded"] = outcome(fit(encoder, accelerator, max_epochs=1, random_state=None))

    clf = fitted["joint"]
    clf.save(folder / "clf")
    loaded = DialoguePreferenceClassifier.load(folder / "clf")
    found["loaded"] = loaded.predict_proba(data().X[:20])
    found["taken"] = error_of(clf.save, folder)
    written = (folder / "clf" / "dialpref.json").stat()
    found["written"] = written.st_mtime_ns, written.st_ino

    others = data().y_human if first else data().y_human[::-1]
    found["other labels"] = error_of(fit, encoder, accelerator, labels=others)
    found["other parameters"] = error_of(fit, encoder, accelerator, max_epochs=2 - int(first))
    torch.save(found, folder / f"{accelerator.process_index}.pt")
    accelerator.end_training()


def process_that_fails(folder, encoder):
    accelerator = Accelerator(cpu=True)
    callbacks = [] if accelerator.is_main_process else [Failing()]
    fit(encoder, accelerator, max_epochs=2, callbacks=callbacks)


def launch(role, folder, encoder):
    """Run this file in two processes; what they print, and the exit status."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node", "2", __file__, role, str(folder), encoder]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    log = folder / "log.txt"
    with (
        log.open("wb") as file,
        subprocess.Popen(command, env=environment, stdout=file, stderr=file) as launched,
    ):
        try:
            launched.wait(LONGEST)
        except subprocess.TimeoutExpired:
            launched.terminate()  # and it its processes
            raise
    return launched.returncode, log.read_text()


# -- two processes against one ------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tiny_encoder, tmp_path_factory):
    """What two processes found."""
    folder = tmp_path_factory.mktemp("two")
    status, printed = launch("process", folder, tiny_encoder)
    assert status == 0, printed[-5000:]
    return [torch.load(folder / f"{number}.pt", weights_only=False) for number in range(2)]


@pytest.fixture(scope="module")
def one():
    """An accelerator of this process alone."""
    return Accelerator(cpu=True)


@pytest.mark.engines
@pytest.mark.parametrize("name", FITS)
def test_the_model_of_one_process(two, one, tiny_encoder, name):
    alone = outcome(fit(tiny_encoder, one, **FITS[name]))
    for together in (found[name] for found in two):
        for weight, expected in alone["weights"].items():
            np.testing.assert_allclose(
                together["weights"][weight], expected, rtol=0, atol=TOLERANCE, err_msg=weight
            )
        assert len(together["history"]) == len(alone["history"])
        for record, expected in zip(together["history"], alone["history"], strict=True):
            assert record[:2] == expected[:2]
            np.testing.assert_allclose(record[2:], expected[2:], rtol=0, atol=TOLERANCE)
        assert together["choices"][0] == alone["choices"][0]
        np.testing.assert_allclose(together["choices"][1], alone["choices"][1], atol=1e-3)
        assert together["choices"][2] == alone["choices"][2]


@pytest.mark.engines
@pytest.mark.parametrize("name", [*FITS, "unseeded"])
def test_processes_agree(two, name):
    first, second = (found[name] for found in two)
    for weight, value in first["weights"].items():
        np.testing.assert_array_equal(second["weights"][weight], value)
    np.testing.assert_array_equal(first["probabilities"], second["probabilities"])
    assert repr(first["history"]) == repr(second["history"])
    assert first["choices"] == second["choices"]


@pytest.mark.engines
def test_one_process_writes_and_all_wait(two):
    for found in two:
        np.testing.assert_allclose(found["loaded"], found["joint"]["probabilities"], atol=1e-6)
        error, message = found["taken"]
        assert error == "FileExistsError"
        assert "is not a saved classifier" in message
    assert two[0]["written"] == two[1]["written"]


@pytest.mark.engines
def test_other_data_or_parameters(two):
    for found in two:
        error, message = found["other labels"]
        assert error == "ValueError"
        assert message.startswith("y_human of process 1 differ from those of process 0; pass the")
        assert found["other parameters"][1].startswith("parameters of process 1 differ")


@pytest.mark.engines
def test_a_process_that_fails_ends_the_others(tiny_encoder, tmp_path):
    status, printed = launch("process_that_fails", tmp_path, tiny_encoder)
    assert status != 0
    assert "MemoryError: this process is out of memory" in printed


# -- in one process -------------------------------------------------------------------------------


def test_an_accelerator_of_one_process_changes_nothing_frozen(one):
    X, y = np.random.default_rng(0).normal(size=(60, 4)), np.tile(["no", "yes"], 30)
    clf = DialoguePreferenceClassifier("precomputed", max_epochs=2, random_state=0)
    plain = clf.fit(X, y).predict_proba(X)
    accelerated = clone(clf).set_params(accelerator=one).fit(X, y)
    np.testing.assert_array_equal(accelerated.predict_proba(X), plain)
    again = pickle.loads(pickle.dumps(accelerated))
    assert again.accelerator is None
    np.testing.assert_array_equal(again.predict_proba(X), plain)


def test_an_accelerator_of_one_process_trains_a_static_model(one, tiny_encoder):
    tokenizer = SentenceTransformer(tiny_encoder, device="cpu").tokenizer
    weights = np.random.default_rng(0).normal(size=(len(tokenizer), 8))
    static = StaticEmbedding(tokenizer.backend_tokenizer, embedding_weights=weights)
    encoder = SentenceTransformer(modules=[static], device="cpu")
    made = data()
    plain, accelerated = (
        fit(encoder, of, max_epochs=1).predict_proba(made.X) for of in (None, one)
    )
    np.testing.assert_array_equal(accelerated, plain)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"distributed_type": "FSDP"}, "distributed_type=FSDP, but the student"),
        ({"mixed_precision": "fp16"}, "mixed_precision='fp16', but the student uses bfloat16"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps=2; set batch_size"),
    ],
)
def test_accelerators_that_are_refused(changed, message):
    of_one = {
        "distributed_type": "NO",
        "mixed_precision": "no",
        "gradient_accumulation_steps": 1,
        "num_processes": 1,
        "device": torch.device("cpu"),
    }
    accelerator = SimpleNamespace(**of_one | changed, prepare=len, backward=len)
    clf = DialoguePreferenceClassifier("precomputed", accelerator=accelerator)
    with pytest.raises(ValueError, match=message):
        clf.fit([[0.0], [1.0]], ["a", "b"])


def test_a_launch_that_the_accelerator_does_not_know(one, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    clf = DialoguePreferenceClassifier("precomputed", accelerator=one)
    with pytest.raises(ValueError, match=r"one of 2 processes.*Accelerator\(cpu=True\)"):
        clf.fit([[0.0], [1.0]], ["a", "b"])


def test_a_write_by_one_process_alone(monkeypatch):
    def broken(objects):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broken)
    first = SimpleNamespace(num_processes=2, is_main_process=True)
    written = []
    with pytest.raises(RuntimeError, match=r"save and export_onnx in every process"):
        on_main_process(first, partial(written.append, 1))
    assert written == [1]
    with pytest.raises(ZeroDivisionError):
        on_main_process(first, lambda: 1 / 0)


def test_dropout_does_not_depend_on_who_embeds(tiny_encoder):
    clf = fit(tiny_encoder, None, max_epochs=1)
    student = clf.net_.module_.train()
    texts = [["hello", "where is my parcel"], ["thanks"], ["a refund", "hi"]]
    inputs = {
        "tokens": [student.encoder.tokens(chunk) for chunk in texts],
        "index": torch.arange(5)[:, None],
    }

    def backwards(embed, chunks):
        places = reversed(range(len(chunks)))
        return [embed(place, chunks[place]) for place in places][::-1]

    def logits(seed, **how):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            return student(**inputs, **how)

    assert torch.equal(logits(0), logits(0, spread=backwards))
    assert not torch.equal(logits(0), logits(1))


def test_chunks_are_shared_out_evenly():
    owner = share_out([9, 3, 4, 2, 1], 2)
    assert owner.tolist() == [0, 1, 1, 1, 0]
    assert share_out([5], 3).tolist() == [0]
    assert share_out([1, 1, 1], 2).tolist() == [0, 1, 0]


def test_a_batch_in_one_chunk_is_split():
    chunk = {"input_ids": torch.arange(10).reshape(5, 2), "attention_mask": torch.ones(5, 2)}
    parts = split_chunk(chunk, 2)
    assert [len(part["attention_mask"]) for part in parts] == [3, 2]
    assert torch.equal(torch.cat([part["input_ids"] for part in parts]), chunk["input_ids"])
    assert len(split_chunk(chunk, 9)) == 5
    static = {"input_ids": torch.arange(3), "offsets": torch.tensor([0, 2])}
    assert split_chunk(static, 2) == [static]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    globals()[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])

"""Fits that are killed and go on: the model of an unbroken one, or an error that says why not."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback
from students import student

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref._training import checkpoints, stage_checkpoints
from sklearn_dialpref._training.checkpoints import Checkpoints
from sklearn_dialpref.datasets import make_dialogues

SHORT = {"max_epochs": 3, "batch_size": 12}


class Killed(BaseException):
    """Nothing catches it."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A checkpoint at every end of an epoch, and no waiting for the disk."""
    monkeypatch.setattr(stage_checkpoints, "MOST_SHARE", float("inf"))
    monkeypatch.setattr(os, "fsync", lambda opened: None)


@pytest.fixture(scope="module")
def chats():
    return make_dialogues(n_dialogues=14, n_turns=(3, 5), human_fraction=0.6, random_state=0)


@pytest.fixture(scope="module")
def features():
    return make_dialogues(n_dialogues=30, n_features=8, human_fraction=0.5, random_state=0)


def several(data):
    """Multilabel targets, and scores of them."""
    table = np.stack([data.y_true == c for c in np.unique(data.y_true)], axis=1).astype(float)
    human = np.where((np.arange(len(table)) % 2 == 0)[:, None], table, np.nan)
    return human, table.clip(0.1, 0.8)


def useless(data):
    return np.random.RandomState(0).choice(np.unique(data.y_true), len(data.X))


FITS = {
    "pairs": {"loss": "noise_reduced", "early_stopping": True, "validation_fraction": 0.3},
    "joint": {"schedule": "joint", "class_weight": "balanced"},
    "distill, joint": {"schedule": "distill_then_joint"},
    "pooling": {"pooling": "auto", "trainable_layers": 1},
    "frozen": {"trainable_layers": 0},
    "human labels": {},
    "stops early": {
        "early_stopping": True,
        "validation_fraction": 0.3,
        "learning_rate": 0.03,
        "max_epochs": 12,
    },
    "LLM labels": {"schedule": "distill_then_joint", "loss": "ranknet"},
    "multilabel": {"schedule": "joint"},
    "useless teacher": {},
}
OF_TEXTS = ("pooling", "frozen")


def fit(kind, encoder, data, **parameters):
    """Fit a classifier of this kind."""
    clf = student(encoder, **{"trainable_layers": None, **SHORT, **FITS[kind], **parameters})
    if encoder != "precomputed":
        clf.set_params(context_turns=1)
    y_human, y_llm = data.y_human, data.y_llm
    if kind == "multilabel":
        y_human, y_llm = several(data)
    if kind == "human labels":
        y_llm = None
    if kind == "LLM labels":
        y_human = None
    if kind == "useless teacher":
        y_human, y_llm = data.y_true, useless(data)
    return clf.fit(data.X, y_human, y_llm)


def joint(**parameters):
    """What ``fit("joint", "precomputed", …)`` fits."""
    return student(trainable_layers=None, **SHORT, **FITS["joint"], **parameters)


def assert_same(clf, other, X):
    weights, others = clf.net_.module_.state_dict(), other.net_.module_.state_dict()
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, others[name]), name
    np.testing.assert_array_equal(clf.predict_proba(X), other.predict_proba(X))
    np.testing.assert_array_equal(clf.predict(X), other.predict(X))
    for name in ("human_weight_", "temperature_", "pooling_", "teacher_status_"):
        assert getattr(clf, name) == getattr(other, name)
    histories = [[{**row, "duration": 0} for row in each.history_] for each in (clf, other)]
    np.testing.assert_equal(*histories)


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.fixture
def killed(monkeypatch):
    """Have a fit die after it has written so many files; None lets it live."""
    write = Checkpoints.write
    left = [None]

    def counted(self, *args):
        write(self, *args)
        if left[0] is not None:
            left[0] -= 1
            if not left[0]:
                raise Killed

    def kill_after(n_files):
        left[0] = n_files

    monkeypatch.setattr(Checkpoints, "write", counted)
    return kill_after


def fit_in_lives(killed, n_files, *args, **parameters):
    """The fit, and how often it was killed: after every so many files."""
    for n_deaths in range(500):
        killed(n_files)
        try:
            clf = fit(*args, **parameters)
        except Killed:
            continue
        killed(None)
        return clf, n_deaths
    raise AssertionError("it never came to an end")


@pytest.fixture
def inputs(request, features, chats, tiny_encoder):
    """An encoder and data for it."""
    return ("precomputed", features) if request.param == "features" else (tiny_encoder, chats)


def fits(*kinds, of_texts=()):
    """Parameters of a test: kinds of fits on features, and on texts, which most are slow on."""
    texts = [
        pytest.param(kind, "texts", marks=[] if kind in of_texts else pytest.mark.slow)
        for kind in kinds
    ]
    features = [(kind, "features") for kind in kinds if kind not in OF_TEXTS]
    return pytest.mark.parametrize(("kind", "inputs"), [*features, *texts], indirect=["inputs"])


@fits(*FITS, of_texts=["frozen"])
@pytest.mark.filterwarnings("ignore:the LLM's labels say nothing")
def test_killed_at_every_checkpoint(kind, inputs, tmp_path, killed):
    X = inputs[1].X
    expected = fit(kind, *inputs)
    if kind == "stops early":
        assert len(expected.history_) < 20
    clf, n_deaths = fit_in_lives(killed, 1, kind, *inputs, checkpoint_dir=tmp_path)
    assert_same(clf, expected, X)
    assert n_deaths >= 3
    before = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("checkpoint-*"))]
    again = fit(kind, *inputs, checkpoint_dir=tmp_path)  # which was finished
    assert_same(again, expected, X)
    after = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("checkpoint-*"))]
    assert before == after
    assert not [name for name in names(tmp_path) if "unfinished" in name or ".new" in name]


@fits("pairs", "joint")
def test_killed_between_batches(kind, inputs, tmp_path, killed, monkeypatch):
    expected = fit(kind, *inputs)
    monkeypatch.setattr(stage_checkpoints, "SECONDS", -1.0)
    clf, n_deaths = fit_in_lives(killed, 3, kind, *inputs, checkpoint_dir=tmp_path)
    assert_same(clf, expected, inputs[1].X)
    assert n_deaths >= 5


def test_a_fine_tuned_encoder(tiny_encoder, chats, tmp_path, killed, monkeypatch):
    expected = fit("joint", tiny_encoder, chats)
    monkeypatch.setattr(stage_checkpoints, "SECONDS", -1.0)
    args = ("joint", tiny_encoder, chats)
    clf, n_deaths = fit_in_lives(killed, 5, *args, checkpoint_dir=tmp_path)
    assert_same(clf, expected, chats.X)
    assert n_deaths >= 2


def test_on_a_gpu(gpu, features, tmp_path, killed, monkeypatch):
    monkeypatch.setattr(stage_checkpoints, "SECONDS", -1.0)
    args = ("joint", "precomputed", features)
    expected = fit(*args, device=gpu)
    clf, n_deaths = fit_in_lives(killed, 3, *args, device=gpu, checkpoint_dir=tmp_path)
    assert_same(clf, expected, features.X)
    assert n_deaths >= 5


def test_nothing_changes_without_a_kill(features, tmp_path):
    expected = fit("pairs", "precomputed", features)
    clf = fit("pairs", "precomputed", features, checkpoint_dir=tmp_path / "new" / "folder")
    assert_same(clf, expected, features.X)


def test_without_a_random_state_the_seed_is_kept(features, tmp_path, killed):
    killed(3)
    with pytest.raises(Killed):
        fit("joint", "precomputed", features, checkpoint_dir=tmp_path, random_state=None)
    seed = json.loads((tmp_path / "fit.json").read_text())["seed"]
    killed(None)
    clf = fit("joint", "precomputed", features, checkpoint_dir=tmp_path, random_state=None)
    assert json.loads((tmp_path / "fit.json").read_text())["seed"] == seed
    again = fit("joint", "precomputed", features, checkpoint_dir=tmp_path, random_state=None)
    assert_same(clf, again, features.X)
    other = fit("joint", "precomputed", features, random_state=None)
    assert not np.array_equal(other.predict_proba(features.X), clf.predict_proba(features.X))


# -- another fit --------------------------------------------------------------------------------


@pytest.fixture
def unfinished(features, tmp_path, killed):
    """A folder with a killed fit of precomputed features."""
    killed(2)
    with pytest.raises(Killed):
        fit("joint", "precomputed", features, checkpoint_dir=tmp_path / "fit")
    killed(None)
    return tmp_path / "fit"


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"learning_rate": 1e-3}, "learning_rate"),
        ({"random_state": 1}, "random_state"),
        ({"loss": lambda logits, *args, **options: logits.sum() * 0}, "loss"),
        ({"class_weight": None, "max_epochs": 4}, "class_weight, max_epochs"),
    ],
)
def test_other_parameters(features, unfinished, parameters, named):
    before = names(unfinished)
    with pytest.raises(ValueError, match=f"differs in {named}; .*remove the folder"):
        fit("joint", "precomputed", features, checkpoint_dir=unfinished, **parameters)
    assert names(unfinished) == before


def test_other_data(features, unfinished):
    clf = joint(checkpoint_dir=unfinished)
    X, y_human, y_llm = features.X, features.y_human, features.y_llm
    moved = X.copy()
    moved.iloc[0, -1] += 1
    with pytest.raises(ValueError, match="differs in X;"):
        clf.fit(moved, y_human, y_llm)
    with pytest.raises(ValueError, match=r"differs in .*y_llm"):
        clf.fit(X, y_human, y_llm[::-1])
    with pytest.raises(ValueError, match="differs in X, "):
        clf.fit(X[10:], y_human[10:], y_llm[10:])


def test_the_order_of_the_rows_does_not_matter(features, unfinished):
    order = np.random.RandomState(0).permutation(len(features.X))
    clf = joint(checkpoint_dir=unfinished)
    labels = (np.asarray(y, dtype=object)[order] for y in (features.y_human, features.y_llm))
    clf.fit(features.X.iloc[order], *labels)
    assert_same(clf, fit("joint", "precomputed", features), features.X)


def test_what_does_not_change_the_model_may_differ(features, unfinished, tmp_path):
    quiet = {"verbose": 1, "n_jobs": 1, "memory": str(tmp_path / "memory")}
    clf = fit("joint", "precomputed", features, checkpoint_dir=str(unfinished), **quiet)
    assert_same(clf, fit("joint", "precomputed", features), features.X)


def test_a_finished_fit_makes_room_for_another(features, tmp_path):
    fit("joint", "precomputed", features, checkpoint_dir=tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "model.safetensors").write_text("mine")
    clf = fit("pairs", "precomputed", features, checkpoint_dir=tmp_path)
    assert_same(clf, fit("pairs", "precomputed", features), features.X)
    assert not [name for name in names(tmp_path) if "joint" in name]
    assert {"notes.txt", "model.safetensors"} <= set(names(tmp_path))


def test_two_fits_in_one_folder(features, tmp_path):
    in_use = checkpoints.opened_folder(tmp_path, {}, 0, "cpu")
    with in_use, pytest.raises(OSError, match="another fit is using checkpoint_dir") as caught:
        fit("joint", "precomputed", features, checkpoint_dir=tmp_path)
    assert caught.value.filename == str(tmp_path)


class Counts(Callback):
    """A callback of a user."""


def test_what_cannot_be_kept(features, tmp_path):
    with pytest.raises(ValueError, match=r"state of callbacks \(Counts\)"):
        fit("joint", "precomputed", features, checkpoint_dir=tmp_path, callbacks=[Counts()])
    accelerator = SimpleNamespace(prepare=list, backward=list)
    with pytest.raises(ValueError, match="accelerator is set"):
        fit("joint", "precomputed", features, checkpoint_dir=tmp_path, accelerator=accelerator)
    assert names(tmp_path) == []


# -- folders and disks --------------------------------------------------------------------------


def test_a_file_in_place_of_the_folder(features, tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(OSError, match="checkpoint_dir must be a folder") as caught:
            fit("joint", "precomputed", features, checkpoint_dir=path)
        assert str(path) in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that nobody can write to")
def test_a_folder_that_cannot_be_written_to(features):
    with pytest.raises(OSError, match=r"checkpoint_dir must be .*/proc/self/fit"):
        fit("joint", "precomputed", features, checkpoint_dir="/proc/self/fit")
    with pytest.raises(OSError, match=r"checkpoint_dir.*/proc/self/task"):
        fit("joint", "precomputed", features, checkpoint_dir="/proc/self/task")


def test_a_folder_of_other_things(features, tmp_path):
    (tmp_path / "model.safetensors").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds other things, such as 'model.safetensors'"):
        fit("joint", "precomputed", features, checkpoint_dir=tmp_path)
    assert names(tmp_path) == ["model.safetensors"]


def test_a_disk_that_is_nearly_full(features, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 100))
    with pytest.raises(OSError, match=r"needs up to .* MB, but its disk has 0 MB") as caught:
        fit("joint", "precomputed", features, checkpoint_dir=tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_a_disk_that_becomes_full(features, unfinished):
    before = names(unfinished)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        with pytest.raises(OSError, match="checkpoint_dir cannot be written to") as caught:
            fit("joint", "precomputed", features, checkpoint_dir=unfinished)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.filename == str(unfinished)
    assert names(unfinished) == before
    clf = fit("joint", "precomputed", features, checkpoint_dir=unfinished)
    assert_same(clf, fit("joint", "precomputed", features), features.X)


def damage(file, rng):
    content = bytearray(file.read_bytes())
    if rng.random() < 0.3:
        return bytes(content[: rng.randrange(len(content))])
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def test_damaged_files_are_named(features, unfinished, tmp_path):
    files = [name for name in names(unfinished) if name.startswith("checkpoint-")]
    assert files
    rng = random.Random(0)
    for number in range(20):
        copy = shutil.copytree(unfinished, tmp_path / str(number))
        name = rng.choice(files)
        (copy / name).write_bytes(damage(copy / name, rng))
        with pytest.raises(ValueError, match=f"{name} is (damaged|of another fit).*remove it"):
            fit("joint", "precomputed", features, checkpoint_dir=copy)
    (unfinished / "fit.json").write_text('{"format": 1')
    with pytest.raises(ValueError, match=r"fit.json is damaged"):
        fit("joint", "precomputed", features, checkpoint_dir=unfinished)


def test_the_folder_is_not_saved_with_the_model(features, tmp_path):
    clf = fit("joint", "precomputed", features, checkpoint_dir=tmp_path / "fit")
    clf.save(tmp_path / "saved")
    assert DialoguePreferenceClassifier.load(tmp_path / "saved").checkpoint_dir is None
    assert clone(clf).checkpoint_dir == tmp_path / "fit"


# -- kill -9 ------------------------------------------------------------------------------------


def fit_and_save(encoder, folder, result, begun):
    """In a process of its own: checkpoints inside epochs too."""
    torch.set_num_threads(1)
    stage_checkpoints.SECONDS, stage_checkpoints.MOST_SHARE = 0.02, float("inf")
    data = make_dialogues(n_dialogues=40, n_turns=(4, 8), human_fraction=0.5, random_state=0)
    parameters = {"max_epochs": 5, "class_weight": "balanced", "validation_fraction": 0.2}
    begun.set()
    fit("pairs", encoder, data, checkpoint_dir=folder, **parameters).save(result)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a forkserver and SIGKILL")
def test_kill_9_at_20_random_moments(tiny_encoder, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sentence_transformers", "sklearn_dialpref._training.fit"])

    def run(folder, result, until=None):
        """Fit until the end, or until it is killed after some seconds; tell how long it took."""
        begun = context.Event()
        process = context.Process(target=fit_and_save, args=(tiny_encoder, folder, result, begun))
        process.start()
        begun.wait()
        start = time.monotonic()
        process.join(until)
        seconds = time.monotonic() - start
        process.kill()
        process.join()
        return seconds, process.exitcode

    def weights(result):
        return DialoguePreferenceClassifier.load(result).net_.module_.state_dict()

    seconds, code = run(None, tmp_path / "unbroken")
    assert code == 0
    expected = weights(tmp_path / "unbroken")
    rng, n_killed, states = random.Random(0), 0, set()
    for number in range(20):
        folder, result = tmp_path / f"fit-{number}", tmp_path / f"result-{number}"
        n_killed += run(folder, result, until=rng.uniform(0, seconds))[1] == -signal.SIGKILL
        states.add(tuple(names(folder)) if folder.exists() else ())
        assert run(folder, result)[1] == 0
        for name, weight in weights(result).items():
            assert torch.equal(weight, expected[name]), name
    print(json.dumps({"killed": n_killed, "seconds": seconds, "states": len(states)}))
    assert n_killed > 10 and len(states) > 3  # in several parts of the fit

"""Embeddings of frozen encoders: kept in files, each text once, whoever is first."""

import errno
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import warnings

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from students import student

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref._student import frozen, store
from sklearn_dialpref._student.encoders import BLOCK, TextEncoder, load_encoder
from sklearn_dialpref._student.frozen import FrozenEncoder
from sklearn_dialpref._student.store import (
    DigestIndex,
    Embeddings,
    RowFile,
    SharedStore,
    digests_of,
)
from sklearn_dialpref._student.student import EmbeddedRows, mean_and_variance, side_by_side

TEXTS = [f"hello parcel {number}" for number in range(20)]


@pytest.fixture(autouse=True)
def no_stores(monkeypatch):
    """As in a new process."""
    monkeypatch.setattr(frozen, "_STORES", type(frozen._STORES)())


@pytest.fixture
def encoded(monkeypatch):
    """The texts that were encoded in this process."""
    texts = []
    embed = TextEncoder.embed

    def counting(self, some, *others):
        texts.extend(some)
        return embed(self, some, *others)

    monkeypatch.setattr(TextEncoder, "embed", counting)
    return texts


def as_another_process():
    frozen._STORES.clear()


# -- files and their index --------------------------------------------------------------------


def rows_of(n, width=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def test_rows_come_back_from_a_file_that_grows():
    file, rows = RowFile.temporary(3), rows_of(50)
    for start in range(0, 50, 10):
        file.write(start, rows[start : start + 10])
        np.testing.assert_array_equal(file.take(np.arange(start + 10)), rows[: start + 10])
    chosen = np.array([7, 0, 49, 7])
    np.testing.assert_array_equal(file.take(chosen), rows[chosen])
    assert file.take(np.array([], dtype=int)).shape == (0, 3)


def test_a_file_that_is_too_large_to_be_mapped(monkeypatch):
    monkeypatch.setattr(store, "MOST_MAPPED_BYTES", 100)
    file, rows = RowFile.temporary(3), rows_of(50)
    file.write(0, rows)
    chosen = np.array([7, 0, 49, 7])
    np.testing.assert_array_equal(file.take(chosen), rows[chosen])
    np.testing.assert_array_equal(file.take(np.arange(50)), rows)
    assert file.take(np.array([], dtype=int)).shape == (0, 3)


@pytest.mark.parametrize("recent", [0, 5, 10_000])
def test_the_index_finds_each_digest_and_no_other(monkeypatch, recent):
    monkeypatch.setattr(store, "RECENT", recent)
    index, texts = DigestIndex(), [f"text {number}" for number in range(300)]
    digests = digests_of(texts)
    for start in range(0, 200, 20):
        index.add(digests[start : start + 20])
    np.testing.assert_array_equal(index.find(digests[:200]), np.arange(200))
    assert (index.find(digests[200:]) == -1).all()


def test_digests_with_zeros_at_their_end_are_told_apart():
    digests = np.array([b"a" * 15 + b"\0", b"a" * 14 + b"\0\0", b"a" * 16], dtype="S16")
    index = DigestIndex()
    index.add(digests)
    np.testing.assert_array_equal(index.find(digests), [0, 1, 2])


def test_gathered_rows_are_those_side_by_side():
    import torch

    file, embeddings = RowFile.temporary(5), rows_of(20, 5)
    order = np.random.default_rng(1).permutation(20)
    file.write(0, embeddings[order])
    table = Embeddings(file, np.argsort(order))
    index = np.array([[0, 3, -1], [19, -1, -1], [4, 0, 7]])
    expected = side_by_side(torch.from_numpy(embeddings), torch.from_numpy(index), 2)
    for source in (table, embeddings):
        rows = EmbeddedRows(source, index, 2)
        assert rows.shape == tuple(expected.shape)
        np.testing.assert_array_equal(rows[:], expected)
        np.testing.assert_array_equal(rows[np.array([2, 0])], expected[[2, 0]])
        np.testing.assert_array_equal(rows[np.array([True, False, True])], expected[[0, 2]])


def test_mean_and_variance_by_parts(monkeypatch):
    import torch

    monkeypatch.setattr("sklearn_dialpref._student.student.PART", 7)
    inputs = torch.from_numpy(rows_of(50) + np.float32(1000))
    mean, variance = mean_and_variance(inputs)
    np.testing.assert_allclose(mean, inputs.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(variance, inputs.double().var(0, correction=0), rtol=1e-9)


# -- a frozen encoder and its store -----------------------------------------------------------


def test_a_store_gives_what_the_encoder_gives(tiny_encoder, tmp_path):
    expected = FrozenEncoder(tiny_encoder, "cpu").table(TEXTS)[:]
    for memory in (tmp_path, str(tmp_path), joblib.Memory(tmp_path, verbose=0)):
        found = FrozenEncoder(tiny_encoder, "cpu", memory=memory).table(TEXTS[::-1])[:]
        np.testing.assert_array_equal(found[::-1], expected)


def test_a_memory_without_a_place_keeps_them_for_this_process(tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    FrozenEncoder(tiny_encoder, "cpu", memory=joblib.Memory(None)).table(TEXTS)
    assert not list(tmp_path.iterdir())


def test_a_later_process_encodes_nothing(tiny_encoder, tmp_path, encoded):
    first = FrozenEncoder(tiny_encoder, "cpu", memory=tmp_path).table(TEXTS)[:]
    assert len(encoded) == len(TEXTS)
    as_another_process()
    again = FrozenEncoder(tiny_encoder, "cpu", memory=tmp_path).table(TEXTS)[:]
    assert len(encoded) == len(TEXTS)
    np.testing.assert_array_equal(again, first)


def test_what_another_process_has_written_meanwhile_is_found(tiny_encoder, tmp_path, encoded):
    here = FrozenEncoder(tiny_encoder, "cpu", memory=tmp_path)
    here.table(TEXTS[:5])
    own = dict(frozen._STORES)
    as_another_process()
    FrozenEncoder(tiny_encoder, "cpu", memory=tmp_path).table(TEXTS)
    frozen._STORES.clear()
    frozen._STORES.update(own)
    del encoded[:]
    here.table(TEXTS)
    assert not encoded


def test_encoders_layers_and_pooling_have_their_own_embeddings(tiny_encoder, tmp_path, encoded):
    other = load_encoder(tiny_encoder)
    other[0].auto_model.embeddings.word_embeddings.weight.data += 0.1
    for encoder, options in [
        (tiny_encoder, {}),
        (tiny_encoder, {"pooling": "model"}),
        (tiny_encoder, {"encoder_layers": 1}),
        (other, {}),
    ]:
        del encoded[:]
        FrozenEncoder(encoder, "cpu", memory=tmp_path, **options).table(TEXTS)
        assert len(encoded) == len(TEXTS)
    assert len(list((tmp_path / store.FOLDER).iterdir())) == 4


def test_the_same_encoder_elsewhere_is_known(tiny_encoder, tmp_path, encoded):
    import shutil

    moved = shutil.copytree(tiny_encoder, tmp_path / "moved")
    FrozenEncoder(tiny_encoder, "cpu", memory=tmp_path).table(TEXTS)
    FrozenEncoder(str(moved), "cpu", memory=tmp_path).table(TEXTS)
    assert len(encoded) == len(TEXTS)


def test_blocks_do_not_change_what_is_encoded(tiny_encoder, monkeypatch):
    texts = [f"{'hello ' * (number % 7)}parcel {number}" for number in range(300)]
    expected = FrozenEncoder(tiny_encoder, "cpu").table(texts)[:]
    monkeypatch.setattr(frozen, "BLOCK", 128)
    frozen._STORES.clear()
    np.testing.assert_array_equal(FrozenEncoder(tiny_encoder, "cpu").table(texts)[:], expected)


def test_the_table_of_an_encoder_that_is_trained(tiny_encoder, monkeypatch):
    texts = [f"{'hello ' * (number % 7)}parcel {number}" for number in range(300)]
    encoder = TextEncoder(load_encoder(tiny_encoder))
    expected = encoder.table(texts)
    monkeypatch.setattr("sklearn_dialpref._student.encoders.BLOCK", 128)
    assert BLOCK % 64 == 0
    np.testing.assert_array_equal(encoder.table(texts)[:], expected)


def test_a_classifier_with_a_memory_is_the_one_without(tiny_encoder, chats, tmp_path):
    clf = student(tiny_encoder, trainable_layers=0, context_turns=1)
    expected = clf.fit(chats.X, chats.y_human, chats.y_llm).predict_proba(chats.X)
    kept = clone(clf).set_params(memory=tmp_path).fit(chats.X, chats.y_human, chats.y_llm)
    np.testing.assert_array_equal(kept.predict_proba(chats.X), expected)


def test_a_memory_is_not_saved_and_a_copy_needs_none(tiny_encoder, chats, tmp_path):
    clf = student(tiny_encoder, trainable_layers=0, memory=tmp_path / "memory")
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    expected = clf.predict_proba(chats.X)
    clf.save(tmp_path / "saved")
    loaded = DialoguePreferenceClassifier.load(tmp_path / "saved")
    assert (
        loaded.memory is None and "memory" not in (tmp_path / "saved/classifier.json").read_text()
    )
    np.testing.assert_array_equal(loaded.predict_proba(chats.X), expected)
    copied = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(copied.predict_proba(chats.X), expected)


def test_a_loaded_classifier_takes_a_memory(tiny_encoder, chats, tmp_path, encoded):
    clf = student(tiny_encoder, trainable_layers=0).fit(chats.X, chats.y_human, chats.y_llm)
    clf.save(tmp_path / "saved")
    loaded = DialoguePreferenceClassifier.load(tmp_path / "saved")
    expected = loaded.set_params(memory=tmp_path / "memory").predict_proba(chats.X)
    del encoded[:]
    as_another_process()
    np.testing.assert_array_equal(loaded.predict_proba(chats.X), expected)
    assert not encoded


# -- bounds -----------------------------------------------------------------------------------


def test_a_process_keeps_so_much_and_says_when_it_drops_it(tiny_encoder, monkeypatch, encoded):
    encoder = FrozenEncoder(tiny_encoder, "cpu")
    monkeypatch.setattr(store, "MOST_BYTES_OF_PROCESS", 4 * encoder.text_encoder.n_outputs * 30)
    first = encoder.table(TEXTS)
    expected = first[:]
    with pytest.warns(UserWarning, match="20 embeddings are dropped.*pass memory=folder"):
        encoder.table([f"{text} thanks" for text in TEXTS])
    np.testing.assert_array_equal(first[:], expected)  # who has it can still read it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.table([f"{text} thanks" for text in TEXTS])
    assert len(encoded) == 2 * len(TEXTS)


def test_many_texts_at_once_are_never_dropped(tiny_encoder, monkeypatch, encoded):
    monkeypatch.setattr(store, "MOST_BYTES_OF_PROCESS", 1)
    encoder = FrozenEncoder(tiny_encoder, "cpu")
    for _ in range(3):
        encoder.table(TEXTS)
    assert len(encoded) == len(TEXTS)


def test_a_folder_keeps_what_was_used_last(tiny_encoder, tmp_path, monkeypatch):
    encoders = [
        FrozenEncoder(tiny_encoder, "cpu", pooling, layers, memory=tmp_path)
        for pooling, layers in [("layers", None), ("model", None), ("model", 1)]
    ]
    many = [f"{text} {number}" for text in TEXTS for number in range(5)]
    for time, encoder in enumerate(encoders[:2]):
        encoder.table(many)
        (folder,) = [f for f in (tmp_path / store.FOLDER).iterdir() if f.stat().st_mtime > 10**6]
        os.utime(folder, (time, time))
    size = {
        f: sum(x.stat().st_size for x in f.iterdir()) for f in (tmp_path / store.FOLDER).iterdir()
    }
    monkeypatch.setattr(store, "MOST_BYTES", sum(size.values()))
    encoders[2].table(many)
    left = sorted(folder.name.split("-")[1:3] for folder in (tmp_path / store.FOLDER).iterdir())
    assert left == [["model", "1"], ["model", "None"]]


def test_a_store_that_is_too_large_begins_anew(tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "FEW", 0)
    encoder = FrozenEncoder(tiny_encoder, "cpu", memory=tmp_path)
    first = encoder.table(TEXTS)
    expected = first[:]
    monkeypatch.setattr(store, "MOST_BYTES", 1000)
    others = [f"{text} thanks" for text in TEXTS]
    found = encoder.table(others)[:]
    np.testing.assert_array_equal(first[:], expected)
    np.testing.assert_array_equal(found, TextEncoder(load_encoder(tiny_encoder)).embed(others))
    (rows,) = tmp_path.rglob(store.ROWS)
    assert rows.stat().st_size == 4 * encoder.text_encoder.n_outputs * len(others)


# -- what can go wrong ------------------------------------------------------------------------


def filled(folder, n=10):
    whole = SharedStore(3, folder)
    whole.add(digests_of(TEXTS[:n]), rows_of(n))
    return whole


@pytest.mark.parametrize("name", [store.ROWS, store.DIGESTS])
def test_a_file_that_ends_early_loses_the_last_rows_only(tmp_path, name):
    filled(tmp_path)
    path = tmp_path / name
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 5)
    again = SharedStore(3, tmp_path)
    _, rows = again.find(digests_of(TEXTS[:10]))
    np.testing.assert_array_equal(rows, [*range(9), -1])
    again.add(digests_of(TEXTS[9:12]), rows_of(3, seed=1))
    file, rows = SharedStore(3, tmp_path).find(digests_of(TEXTS[:12]))
    np.testing.assert_array_equal(rows, np.arange(12))
    expected = np.concatenate([rows_of(10)[:9], rows_of(3, seed=1)])
    np.testing.assert_array_equal(file.take(rows), expected)


@pytest.mark.parametrize("name", [store.ROWS, store.DIGESTS, "."])
def test_files_that_somebody_removes_are_made_anew(tmp_path, name):
    import shutil

    folder = tmp_path / "store"
    whole = filled(folder)
    shutil.rmtree(folder) if name == "." else (folder / name).unlink()
    assert (whole.find(digests_of(TEXTS[10:12]))[1] == -1).all()
    whole.add(digests_of(TEXTS[:12]), rows_of(12, seed=1))
    file, rows = SharedStore(3, folder).find(digests_of(TEXTS[10:12]))
    np.testing.assert_array_equal(file.take(rows), rows_of(12, seed=1)[10:])


class FullDisk:
    """As an open file of a disk that is full after some bytes."""

    def __init__(self, file, n_bytes):
        self.file, self.left = file, n_bytes

    def write(self, content):
        if self.left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.left -= (n := self.file.write(content[: self.left]))
        return n

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk_costs_what_was_to_be_kept_and_nothing_else(tiny_encoder, tmp_path):
    encoder = FrozenEncoder(tiny_encoder, "cpu", memory=tmp_path)
    encoder.table(TEXTS[:10])
    (shared,) = frozen._STORES.values()
    shared.rows.file = FullDisk(shared.rows.file, 100)
    with pytest.warns(UserWarning, match="cannot be written to .*No space left.*another folder"):
        found = encoder.table(TEXTS)[:]
    np.testing.assert_array_equal(found, TextEncoder(load_encoder(tiny_encoder)).embed(TEXTS))
    as_another_process()
    _, rows = encoder._store().find(digests_of(sorted(TEXTS)))
    assert (rows >= 0).sum() == 10


def test_a_full_temporary_folder_is_an_error_with_a_way_out(tiny_encoder, monkeypatch):
    encoder = FrozenEncoder(tiny_encoder, "cpu")
    own = encoder._store()
    own.rows.file = FullDisk(own.rows.file, 100)
    with pytest.raises(OSError, match=r"20 texts, .* GiB, cannot be written.*pass memory=folder"):
        encoder.table(TEXTS)


def test_a_file_in_the_place_of_the_folder(tiny_encoder, tmp_path):
    (tmp_path / "file").touch()
    encoder = FrozenEncoder(tiny_encoder, "cpu", memory=tmp_path / "file")
    with pytest.warns(UserWarning, match="cannot be written to"):
        assert encoder.table(TEXTS).shape[0] == len(TEXTS)


def test_a_file_system_without_locks(tiny_encoder, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(store.FileLock, "acquire", refuse)
    encoder = FrozenEncoder(tiny_encoder, "cpu", memory=tmp_path)
    with pytest.warns(UserWarning, match="support flock"):
        assert encoder.table(TEXTS).shape[0] == len(TEXTS)


def test_a_child_of_a_fork_does_not_write_into_the_file_of_its_parent(tiny_encoder, monkeypatch):
    encoder = FrozenEncoder(tiny_encoder, "cpu")
    parent, pid = encoder._store(), os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    assert encoder._store() is not parent


# -- several processes ------------------------------------------------------------------------


def encode_in(folder, encoder, texts, queue):
    seen = []
    embed = TextEncoder.embed

    def counting(self, some, *others):
        seen.extend(some)
        return embed(self, some, *others)

    TextEncoder.embed = counting
    table = FrozenEncoder(encoder, "cpu", memory=folder).table(texts)[:]
    queue.put((len(seen), float(table.sum())))


def test_each_text_is_encoded_by_whoever_is_first(tiny_encoder, tmp_path):
    texts = [f"hello parcel {number}" for number in range(400)]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [
        context.Process(target=encode_in, args=(tmp_path, tiny_encoder, texts, queue))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(n for n, _ in found) == [0, 400]
    assert found[0][1] == found[1][1]


WRITER = """
import sys, time
import numpy as np
from pathlib import Path
from sklearn_dialpref._student.store import SharedStore, digests_of
store = SharedStore(64, Path(sys.argv[1]))
print("ready", flush=True)
for number in range(100_000):
    texts = [f"{number} {place}" for place in range(50)]
    rows = np.array([[hash((number, place)) % 1000] * 64 for place in range(50)], np.float32)
    store.add(digests_of(texts), rows)
"""


@pytest.mark.slow
def test_kills_leave_whole_rows(tmp_path):
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    delays = np.random.default_rng(0).uniform(0.001, 0.1, size=20)
    for delay in delays:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        again = SharedStore(64, tmp_path)
        texts = [f"{number} {place}" for number in range(200) for place in range(50)]
        file, rows = again.find(digests_of(texts))
        known = rows >= 0
        found = file.take(rows[known])
        expected = np.array([hash((n, p)) % 1000 for n in range(200) for p in range(50)])[known]
        np.testing.assert_array_equal(found, np.repeat(expected[:, None], 64, axis=1))
        assert not (known[1:] & ~known[:-1]).any()


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_encode_what_one_process_encodes(tiny_encoder, monkeypatch, backend):
    monkeypatch.setattr(frozen, "FEW_FOR_JOBS", 100)
    texts = [f"{'hello ' * (number % 7)}parcel {number}" for number in range(700)]
    expected = FrozenEncoder(tiny_encoder, "cpu").table(texts)[:]
    frozen._STORES.clear()
    with joblib.parallel_config(backend):
        found = FrozenEncoder(tiny_encoder, "cpu", n_jobs=2).table(texts)[:]
    np.testing.assert_array_equal(found, expected)


def test_a_worker_with_another_encoder_says_so(tiny_encoder, tmp_path, monkeypatch):
    """Which is no fault of the folder of embeddings."""
    monkeypatch.setattr(frozen, "FEW_FOR_JOBS", 10)
    encoder = FrozenEncoder(tiny_encoder, "cpu", memory=tmp_path, n_jobs=2)
    encoder.specification = (*encoder.specification[:-1], "other")
    with joblib.parallel_config("threading"), pytest.raises(RuntimeError, match="another one for"):
        encoder.table([f"parcel {number}" for number in range(20)])


def test_a_worker_without_the_encoder_says_so(tmp_path):
    with pytest.raises(RuntimeError, match=r"a worker cannot load encoder '.*missing'"):
        frozen._encode(str(tmp_path / "missing"), None, "layers", "cpu", "key", texts=["hello"])


def test_an_encoder_that_is_an_object_is_used_here(tiny_encoder, monkeypatch):
    monkeypatch.setattr(frozen, "FEW_FOR_JOBS", 10)
    monkeypatch.setattr(frozen, "Parallel", None)
    encoder = FrozenEncoder(load_encoder(tiny_encoder), "cpu", n_jobs=2)
    assert encoder.table(TEXTS).shape[0] == len(TEXTS)


def test_what_is_sent_to_a_worker_is_small(tiny_encoder):
    encoder = FrozenEncoder(tiny_encoder, "cpu")
    assert len(pickle.dumps(encoder.specification)) < 10_000


def test_stores_of_few_encoders_stay_open(tiny_encoder, tmp_path):
    encoder = FrozenEncoder(tiny_encoder, "cpu")
    for number in range(frozen.MOST_STORES + 3):
        encoder.memory = tmp_path / str(number)
        encoder.table(["hello"])
    assert len(frozen._STORES) == frozen.MOST_STORES

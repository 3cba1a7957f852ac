"""Saved folders while processes are killed, save and load at once: always one whole version."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sklearn_dialpref import DialoguePreferenceClassifier, export_onnx
from sklearn_dialpref._persistence import replacing
from sklearn_dialpref._persistence.folder import MANIFEST, new_folder, read_folder
from sklearn_dialpref._persistence.replacing import MARKER, locked, work_folder
from sklearn_dialpref.serving.onnx import MODEL

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
NAMES = ("a.json", "deep/b.json")
FILE_EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil", "fcntl")
X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """A killed process loses nothing that it wrote, so that nothing need reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda opened: None)


def save(path, content):
    with new_folder(path, "thing") as folder:
        (folder / "deep").mkdir()
        for name in NAMES:
            (folder / name).write_text(content)


def contents(folder):
    return [(folder / name).read_text() for name in NAMES]


def load(path):
    """The content, once all files are found to have the same."""
    (content,) = set(read_folder(path, "thing", contents))
    return content


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["exchange", "two renames", "no locks"])
def file_system(request, monkeypatch):
    """What this machine has, and what others lack."""
    if request.param != "exchange":
        monkeypatch.setattr(replacing, "exchange", lambda first, second: False)
    if request.param == "no locks":
        monkeypatch.setattr(replacing, "_acquired", lambda *args, **options: False)
    return request.param


# -- killed -----------------------------------------------------------------------------------


def killed_at(step, function, *arguments):
    """Whether a process that runs the function was killed at this step, by SIGKILL.

    A step is a use of the file system, which Python audits.
    """
    child = os.fork()
    if child == 0:
        steps = iter(range(step))

        def watch(event, details):
            if event.startswith(FILE_EVENTS) and next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            function(*arguments)
            os._exit(0)
        finally:  # never go on as a second test run
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_killed_at_every_step(tmp_path, file_system):
    path, seen, step = tmp_path / "saved", set(), 0
    save(path, "old")
    while killed_at(step, save, path, "new"):
        if file_system == "exchange":
            assert (path / MANIFEST).exists()
        if not path.exists() and file_system == "no locks":
            with pytest.raises(FileNotFoundError, match="an interrupted save left one in"):
                load(path)
            (left,) = tmp_path.glob(".saved-*/old-0")
            left.rename(path)
        seen.add(load(path))
        save(path, "old")
        assert load(path) == "old"
        if file_system != "no locks":
            assert names(tmp_path) == ["saved"]
        step += 1
    assert seen == {"old", "new"} and step > 20


def test_killed_while_it_is_saved_for_the_first_time(tmp_path):
    step = 0
    while killed_at(step, save, tmp_path / "saved", "new"):
        if (tmp_path / "saved").exists():
            assert load(tmp_path / "saved") == "new"
        else:
            with pytest.raises(FileNotFoundError):
                load(tmp_path / "saved")
        for left in tmp_path.iterdir():
            shutil.rmtree(left)
        step += 1
    assert load(tmp_path / "saved") == "new"


def classifier(labels):
    clf = DialoguePreferenceClassifier("precomputed", max_epochs=1, random_state=0)
    return clf.fit(X, labels * 4)


@pytest.fixture(scope="module")
def old_and_new():
    return [classifier(["a", "b", "c"]), classifier(["x", "y", "x"])]


def test_a_classifier_killed_at_random_steps(tmp_path, old_and_new):
    old, new = old_and_new
    old.save(tmp_path / "clf")
    rng = random.Random(0)
    n_killed = 0
    for _ in range(25):
        n_killed += killed_at(rng.randrange(60), new.save, tmp_path / "clf")
        again = DialoguePreferenceClassifier.load(tmp_path / "clf")
        (same,) = [clf for clf in old_and_new if len(clf.classes_) == len(again.classes_)]
        np.testing.assert_array_equal(again.predict_proba(X), same.predict_proba(X))
        old.save(tmp_path / "clf")
        assert names(tmp_path) == ["clf"]
    assert n_killed > 10


# -- saved and loaded at once -------------------------------------------------------------------


def save_often(path, number, n_times):
    for time_ in range(n_times):
        save(path, f"{number} {time_}")


def test_savers_and_loaders_at_once(tmp_path, monkeypatch, file_system):
    monkeypatch.setattr("sklearn_dialpref._persistence.folder.ATTEMPTS", 200)
    path = tmp_path / "saved"
    save(path, "first")
    context = multiprocessing.get_context("fork")
    savers = [context.Process(target=save_often, args=(path, n, 15)) for n in range(3)]
    for saver in savers:
        saver.start()
    while any(saver.is_alive() for saver in savers):
        load(path)
    for saver in savers:
        saver.join()
    assert [saver.exitcode for saver in savers] == [0, 0, 0]
    assert load(path).endswith("14") and names(tmp_path) == ["saved"]


def test_replaced_while_it_is_read(tmp_path, file_system):
    path = tmp_path / "saved"
    save(path, "first")
    seen = []

    def replaced_within(folder):
        first = (folder / "a.json").read_text()
        if len(seen) < 2:
            save(path, f"after {first}")
        seen.append([first, (folder / "deep/b.json").read_text()])
        return seen[-1]

    content = read_folder(path, "thing", replaced_within)
    assert content == ["after after first"] * 2 and len(seen) == 3


def test_a_reader_that_came_too_late_twice_keeps_savers_waiting(tmp_path, monkeypatch):
    path = tmp_path / "saved"
    save(path, "first")
    monkeypatch.setattr(replacing, "LOCK_SECONDS", 0)
    free = []

    def replaced_within(folder):
        with locked(tmp_path) as held:
            free.append(held)
        if held:
            save(path, "again")
        return contents(folder)

    assert read_folder(path, "thing", replaced_within) == ["again"] * 2
    assert free == [True, True, False]


def test_replaced_all_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(replacing, "_acquired", lambda *args, **options: False)
    monkeypatch.setattr("sklearn_dialpref._persistence.folder.PAUSE_SECONDS", 0)
    save(tmp_path / "saved", "first")
    with pytest.raises(ValueError, match="was replaced 20 times while it was read"):
        read_folder(tmp_path / "saved", "thing", lambda folder: save(tmp_path / "saved", "again"))


# -- what is left over, links -------------------------------------------------------------------


def test_only_what_dead_savers_left_is_removed(tmp_path):
    path = tmp_path / "saved"
    save(path, "first")
    others = [".saved-abcdefgh", ".saved-2-abcdefgh", ".saved2-abcdefgh", ".saved-abc"]
    for name in others:  # of users, or of other paths
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious.txt").touch()
    (tmp_path / ".saved-2-abcdefgh" / MARKER).touch()
    dead = tmp_path / ".saved-deadbeef"
    (dead / "new").mkdir(parents=True)
    (dead / MARKER).touch()
    with work_folder(path) as live:
        save(path, "second")
        assert names(tmp_path) == sorted([*others, live.name, "saved"])
    (tmp_path / ".saved-00000000").mkdir()  # killed before it had its marker
    save(path, "third")
    assert names(tmp_path) == sorted([*others, "saved"])


def test_links_stay(tmp_path):
    save(tmp_path / "versions" / "1", "first")
    link = tmp_path / "current"
    link.symlink_to(Path("versions") / "1")
    save(link, "second")
    assert link.is_symlink() and load(link) == load(tmp_path / "versions" / "1") == "second"
    (tmp_path / "dangling").symlink_to(Path("versions") / "2")
    save(tmp_path / "dangling", "third")
    assert (tmp_path / "dangling").is_symlink() and load(tmp_path / "versions" / "2") == "third"
    assert names(tmp_path / "versions") == ["1", "2"]
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(FileExistsError, match="is not a saved thing"):
        save(loop, "fourth")


# -- for longer ---------------------------------------------------------------------------------


def save_for_ever(clf, path, saving, started):
    started.set()
    parent = os.getppid()
    while os.getppid() == parent:
        saving(clf, path)


def save_folder(clf, path):
    clf.save(path)


def export(clf, path):
    """With the graph that is there: to make it takes seconds, in which nothing is replaced."""
    with pytest.MonkeyPatch.context() as patch:
        if path.exists():
            patch.setattr(
                "sklearn_dialpref.serving.export._write_graph",
                lambda graph, n_slots, file: shutil.copy(path / MODEL, file),
            )
        export_onnx(clf, path, X_check=["hi", "where is my parcel"])


@pytest.mark.fuzz
@pytest.mark.parametrize("saving", [save_folder, export])
def test_fifty_kills_at_random_moments(tiny_encoder, chats, tmp_path, saving):
    from sklearn_dialpref import OnnxDialogueClassifier

    clf = DialoguePreferenceClassifier(tiny_encoder, max_epochs=1, random_state=0)
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    path = tmp_path / "saved"
    saving(clf, path)
    load = (OnnxDialogueClassifier if saving is export else DialoguePreferenceClassifier).load
    expected = load(path).predict_proba(["hi"])
    context = multiprocessing.get_context("forkserver")  # without onnxruntime's threads
    context.set_forkserver_preload(["sentence_transformers", "sklearn_dialpref.serving.export"])
    rng = random.Random(0)
    within, versions = 0, set()
    for _ in range(50):
        started = context.Event()
        saver = context.Process(target=save_for_ever, args=(clf, path, saving, started))
        saver.start()
        started.wait()
        saver.join(rng.uniform(0, 2 if saving is export else 0.5))
        saver.kill()
        saver.join()
        within += len(names(tmp_path)) > 1  # what a save had begun is left over
        versions.add((path / MANIFEST).stat().st_mtime_ns)
        np.testing.assert_array_equal(load(path).predict_proba(["hi"]), expected)
    print(json.dumps({"kills": 50, "within a save": within, "versions": len(versions)}))
    assert within > 25 and len(versions) > 5  # the kills came while it was at work
    saving(clf, path)
    assert names(tmp_path) == ["saved"]


def use_until(end, path, clf, results):
    done, failures = 0, []
    while time.monotonic() < end:
        try:
            if clf is not None:
                clf.save(path)
            else:
                DialoguePreferenceClassifier.load(path).predict(X)
            done += 1
        except Exception as error:
            failures.append(repr(error))
    results.put(("saves" if clf is not None else "loads", done, failures))


@pytest.mark.fuzz
def test_three_savers_and_three_loaders_for_a_minute(tmp_path, old_and_new):
    path = tmp_path / "clf"
    old_and_new[0].save(path)
    context = multiprocessing.get_context("fork")
    results, end = context.Queue(), time.monotonic() + 60
    users = [*old_and_new, old_and_new[0], None, None, None]
    processes = [context.Process(target=use_until, args=(end, path, u, results)) for u in users]
    for process in processes:
        process.start()
    outcomes = [results.get() for _ in processes]
    print(json.dumps(outcomes))
    for process in processes:
        process.join()
    assert [failures for *_, failures in outcomes] == [[]] * 6
    assert all(done > 20 for _, done, _ in outcomes)
    assert names(tmp_path) == ["clf"]

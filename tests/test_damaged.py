"""Damaged, foreign and hostile folders are refused by an error that names the file."""

import json
import os
import pickle
import shutil
import socket
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from signing import resign, rewrite

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref._persistence.folder import read_json

load = DialoguePreferenceClassifier.load


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        load(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"not saved by this package: it has no dialpref\.json"):
        load(tmp_path)


def test_a_later_version(copied):
    rewrite(copied, format=99)
    with pytest.raises(ValueError, match=r"format 99 by a later version.*update sklearn-dialpref"):
        load(copied)


def test_another_kind_or_maker(copied):
    rewrite(copied, kind="onnx")
    with pytest.raises(ValueError, match="holds a saved onnx, but a classifier"):
        load(copied)
    rewrite(copied, made_by="somebody")
    with pytest.raises(ValueError, match="not saved by this package"):
        load(copied)


@pytest.mark.parametrize("name", ["student.safetensors", "classifier.json"])
@pytest.mark.parametrize(("change", "by"), [("cut", "size"), ("flip", "sha256"), ("swap", "size")])
def test_damaged_files(copied, name, change, by):
    file = copied / name
    content = bytearray(file.read_bytes())
    if change == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif change == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        shutil.copy(copied / "README.md", file)
    with pytest.raises(ValueError, match=rf"damaged: {name} is not what was saved, by its {by}"):
        load(copied)


def test_missing_and_strange_files(copied):
    (copied / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"was not saved with: \['pytorch_model.bin'\]"):
        load(copied)
    (copied / "pytorch_model.bin").unlink()
    (copied / "student.safetensors").unlink()
    with pytest.raises(ValueError, match=r"damaged: \['student.safetensors'\] are missing"):
        load(copied)
    (copied / "dialpref.json").write_text("{")
    with pytest.raises(ValueError, match=r"damaged: dialpref\.json is not JSON"):
        load(copied)


class Explosive:
    def __reduce__(self):
        return (sys.exit, ("code was run",))


def test_a_pickle_with_the_name_of_weights(copied):
    (copied / "student.safetensors").write_bytes(pickle.dumps(Explosive()))
    resign(copied)
    with pytest.raises(ValueError, match=r"student\.safetensors is not a safetensors file"):
        load(copied)
    torch.save({"weights": torch.zeros(2)}, copied / "student.safetensors")
    resign(copied)
    with pytest.raises(ValueError, match=r"student\.safetensors is not a safetensors file"):
        load(copied)


@pytest.mark.parametrize(
    "name", ["../outside.json", "/etc/hostname.json", "a/../../b.json", "C:\\x.json", "..\\x.json"]
)
def test_names_of_files_elsewhere(copied, name):
    manifest = json.loads((copied / "dialpref.json").read_text())
    rewrite(copied, files={**manifest["files"], name: "0" * 64})
    with pytest.raises(ValueError, match="which does not lie in it"):
        load(copied)


def test_links_and_other_kinds_of_files(copied, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (copied / "notes.txt").symlink_to(secret)
    manifest = json.loads((copied / "dialpref.json").read_text())
    rewrite(copied, files={**manifest["files"], "notes.txt": "0" * 64})
    with pytest.raises(ValueError, match=r"'notes\.txt', which does not lie in it"):
        load(copied)
    (copied / "notes.txt").unlink()
    rewrite(copied, files={**manifest["files"], "code.py": "0" * 64})
    with pytest.raises(ValueError, match=r"'code\.py', of a kind that is never read"):
        load(copied)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such files")
@pytest.mark.parametrize("kind", ["fifo", "socket", "link to a device", "folder"])
@pytest.mark.parametrize("name", ["dialpref.json", "classifier.json", "student.safetensors"])
def test_what_is_not_a_file_is_not_opened(saved, copied, monkeypatch, kind, name):
    monkeypatch.chdir(copied)  # the path of a socket is short
    (copied / name).unlink()
    with socket.socket(socket.AF_UNIX) as opened:
        if kind == "fifo":  # opening one waits for a writer
            os.mkfifo(name)
        elif kind == "socket":
            opened.bind(name)
        elif kind == "folder":
            (copied / name).mkdir()
        else:
            (copied / name).symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=name):
        load(copied)
    if name == "dialpref.json":
        with pytest.raises(FileExistsError, match="is not a saved classifier"):
            load(saved).save(copied)


@pytest.mark.parametrize("name", ["dialpref.json", "classifier.json"])
def test_absurdly_long_files(copied, name):
    with open(copied / name, "r+b") as file:
        file.truncate(10**12)  # sparse: takes no space
    if name == "dialpref.json":
        with pytest.raises(ValueError, match=r"dialpref\.json has 1000000000000 bytes, more than"):
            load(copied)
        return
    with pytest.raises(ValueError, match=r"classifier\.json has 1000000000000 bytes"):
        read_json(copied / name)


@pytest.mark.parametrize("name", ["README.md", "classifier.json", "student.safetensors"])
@pytest.mark.parametrize("manifest", ["as it was", "signed", "of an earlier version"])
def test_absurdly_long_files_are_not_read(copied, monkeypatch, name, manifest):
    with open(copied / name, "r+b") as file:
        file.truncate(10**12)
    sizes = json.loads((copied / "dialpref.json").read_text())["bytes"]
    changed = {"signed": sizes | {name: 10**12}, "of an earlier version": {}}
    rewrite(copied, bytes=changed.get(manifest, sizes))
    monkeypatch.setattr("sklearn_dialpref._persistence.folder._sha256", lambda file: 1 / 0)
    with pytest.raises(ValueError, match=rf"{name} .*1000000000000 bytes"):
        load(copied)


@pytest.mark.parametrize("sizes", [None, [], {"classifier.json": "1"}, {"classifier.json": 1.5}])
def test_a_manifest_of_no_sizes(copied, sizes):
    rewrite(copied, bytes=sizes)
    with pytest.raises(ValueError, match=r"dialpref\.json"):
        load(copied)


def test_a_hundred_thousand_files_or_tensors(copied):
    manifest = json.loads((copied / "dialpref.json").read_text())
    names = {f"{number}.json": "0" * 64 for number in range(100_000)}
    rewrite(copied, files={**manifest["files"], **names})
    with pytest.raises(ValueError, match=r"dialpref\.json lists 100003 files, more than 1000"):
        load(copied)
    rewrite(copied, files=manifest["files"])
    tensors = {str(number): torch.empty(0) for number in range(6000)}
    file = copied / "student.safetensors"
    save_file({**load_file(file), **tensors}, file)
    resign(copied)
    with pytest.raises(ValueError, match=r"student\.safetensors.*it lists 6006 tensors"):
        load(copied)
    file.write_bytes((2**40).to_bytes(8, "little") + file.read_bytes()[8:])
    resign(copied)
    with pytest.raises(ValueError, match=r"student\.safetensors.*its header has 1099511627776 b"):
        load(copied)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(copied, number):
    file = copied / "student.safetensors"
    weights = load_file(file)
    weights["head.1.bias"][0] = number
    save_file(weights, file)
    resign(copied)
    with pytest.raises(ValueError, match=r"student\.safetensors is damaged: head\.1\.bias has"):
        load(copied)


@pytest.mark.parametrize(
    "lie",
    [
        {"n_features": 0},
        {"n_features": 4},
        {"n_features": None},
        {"n_features": "3"},
        {"feature_names": ["a", "b"]},
        {"feature_names": ["a", "b", 5]},
        {"feature_names": 5},
        {"parameters": {"encoder": "precomputee"}},
    ],
    ids=str,
)
def test_features_that_are_not_those_of_the_weights(copied, lie):
    file = copied / "classifier.json"
    state = json.loads(file.read_text())
    parameters = {**state["parameters"], **lie.get("parameters", {})}
    file.write_text(json.dumps({**state, **lie, "parameters": parameters}))
    resign(copied)
    with pytest.raises(ValueError, match=r"classifier\.json"):
        load(copied)


@pytest.mark.parametrize("name", ["a" * 300 + ".json", "a/" * 3000 + "b.json", "a\0.json"])
def test_names_that_no_file_can_have(copied, name):
    manifest = json.loads((copied / "dialpref.json").read_text())
    rewrite(copied, files={**manifest["files"], name: "0" * 64})
    with pytest.raises(ValueError, match=r"dialpref\.json"):
        load(copied)


@pytest.fixture(scope="module")
def saved_text(tiny_encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "clf"
    clf = DialoguePreferenceClassifier(tiny_encoder, max_epochs=1, random_state=0)
    clf.fit(["hi", "thanks", "late", "hello"], ["a", "b"] * 2).save(path)
    return path


def panics(tokenizer):
    """A table of bytes whose states lead beyond it."""
    tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAQAAP//////"}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tokenizer.json", lambda value: value.clear()),
        ("tokenizer.json", panics),
        ("config.json", lambda value: value.update(hidden_size=7)),
        ("1_Pooling/config.json", lambda value: value.update(embedding_dimension=10**6)),
        ("sentence_bert_config.json", lambda value: value.update(max_seq_length="long")),
        ("modules.json", lambda value: value.append(5)),
        ("tokenizer_config.json", lambda value: value.update(pad_token="\0")),
        ("config.json", lambda value: value.update(num_hidden_layers=1)),
    ],
)
def test_nonsense_in_the_files_of_the_encoder(saved_text, tmp_path, name, change):
    folder = shutil.copytree(saved_text, tmp_path / "copy")
    file = folder / "encoder" / name
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))
    resign(folder)
    with pytest.raises(ValueError, match=name):
        load(folder)


@pytest.mark.parametrize(
    "name", ["vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings"]
)
def test_an_encoder_is_not_made_far_larger_than_its_weights(saved_text, tmp_path, name):
    folder = shutil.copytree(saved_text, tmp_path / "copy")
    file = next(folder.glob("encoder/**/config.json"))
    file.write_text(json.dumps({**json.loads(file.read_text()), name: 10**7}))
    resign(folder)
    with pytest.raises(ValueError, match=rf"config\.json is damaged: its {name} is 1e\+07"):
        load(folder)


def test_state_and_weights_that_are_not_those_of_the_encoder(saved_text, tmp_path):
    folder = shutil.copytree(saved_text, tmp_path / "copy")
    file = folder / "classifier.json"
    state = json.loads(file.read_text())
    for n_slots in (-2, 2, 10**6):
        file.write_text(json.dumps({**state, "n_slots": n_slots}))
        resign(folder)
        with pytest.raises(ValueError, match=r"classifier\.json"):
            load(folder)
    file.write_text(json.dumps(state))
    save_file({"more": torch.zeros(2)}, folder / "student.safetensors")
    resign(folder)
    with pytest.raises(ValueError, match=r"student\.safetensors"):
        load(folder)


def test_nonsense_in_the_state(copied):
    file = copied / "classifier.json"
    state = json.loads(file.read_text())
    for change in (
        {"parameters": {**state["parameters"], "no_such": 1}},
        {"parameters": {**state["parameters"], "margin_scale": "high"}},
        {"classes": {"values": ["a"], "dtype": "<U1"}},
        {"classes": {"values": ["no", "so-so", "yes"], "dtype": "no such"}},
        {"history": 5},
        {"training": {"teacher_status": "asleep"}},
        {"training": {"teacher_bias": [0.5]}},
        {"training": {"human_weight": "much"}},
        {"training": 5},
        {"n_slots": None},
        {"multilabel": True, "thresholds": [0.5]},
        {"of_speakers": [["agent", [True]]]},
    ):
        file.write_text(json.dumps({**state, **change}))
        resign(copied)
        with pytest.raises(ValueError):
            load(copied)
    for version in (0, "1", None):
        rewrite(copied, format=version)
        with pytest.raises(ValueError, match=r"damaged: dialpref\.json has the format"):
            load(copied)


def test_an_encoder_that_names_code(tiny_encoder, chats, tmp_path):
    clf = DialoguePreferenceClassifier(tiny_encoder, max_epochs=1, random_state=0)
    clf.fit(chats.X, chats.y_human).save(tmp_path / "clf")
    file = tmp_path / "clf" / "encoder" / "modules.json"
    modules = json.loads(file.read_text())
    modules[0]["type"] = "subprocess.Popen"
    file.write_text(json.dumps(modules))
    resign(tmp_path / "clf")
    with pytest.raises(
        ValueError, match=r"modules\.json names 'subprocess\.Popen', which is not one of"
    ):
        load(tmp_path / "clf")

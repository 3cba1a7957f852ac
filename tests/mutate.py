"""Damage saved folders in thousands of ways, and see that each is refused or answers as before.

    python tests/mutate.py --mutants 3000 --seed 0

Every mutant is loaded twice: as it is, and signed, which means that the sums in its manifest are
made to agree with its files, as somebody would do who changes them on purpose. A mutant is
``refused`` by a ValueError, answers as the whole folder did (``identical``), or gives ``other``
answers that are probabilities, which a signed change of a weight or a class cannot but do.
Anything else is ``wrong``: another exception, a crash, more than a second of the processor,
answers that are no probabilities. ``unnamed`` are refusals that do not name the file that was
changed. Each mutant is loaded in a process of its own, so that a crash is seen.
"""

import argparse
import copy
import hashlib
import json
import os
import pickle
import random
import select
import shutil
import signal
import socket
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

MANIFEST = "dialpref.json"
TEXTS = ["hi", "where is my parcel", "thanks", "x y z late", "hello hello refund", "is the"]
DIALOGUES = pd.DataFrame({"dialogue_id": [*"aabbcc"], "turn": [0, 1] * 3, "text": TEXTS})
FEATURES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LIMIT = 1.0  # seconds of the processor, to refuse or to load
PATIENCE = 30.0
NESTED = json.loads("[" * 100 + "]" * 100)
VALUES = [
    *(None, True, False, 0, -1, 1, 2, 7, 255, 1000, 10**6, 10**9, 2**31, 2**63, 10**30, -(2**63)),
    *(0.5, -0.5, 1e308, 1e-308, float("nan"), float("inf")),
    *("", "a", "a" * 10_000, "\ud83d", "\0", "../x", "/etc/passwd", "gelu", "cuda", "[UNK]"),
    *([], {}, [None], [[]], {"a": 1}, ["a", "b", "c"], NESTED),
]


# -- mutations: each changes one file in place, or says False if it cannot ------------------------


def cut(file, rng):
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(len(content) + 1)])


def lengthen(file, rng):
    file.write_bytes(file.read_bytes() + rng.randbytes(rng.choice([1, 8, 1000])))


def flip(file, rng):
    content = bytearray(file.read_bytes())
    for _ in range(rng.choice([1, 1, 1, 10, 100])):
        # headers are at the beginning
        end = min(len(content), rng.choice([16, 200, 2000, len(content)]))
        content[rng.randrange(end)] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def overwrite(file, rng):
    content = bytearray(file.read_bytes())
    start, length = rng.randrange(len(content)), rng.choice([1, 4, 8, 64, 1000])
    filling = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length)])
    content[start : start + length] = filling
    file.write_bytes(content)


def drop_bytes(file, rng):
    content = file.read_bytes()
    start = rng.randrange(len(content))
    file.write_bytes(content[:start] + content[start + rng.choice([1, 8, 500]) :])


def repeat_bytes(file, rng):
    content = file.read_bytes()
    start, length = rng.randrange(len(content)), rng.choice([1, 8, 500])
    part = content[start : start + length]
    file.write_bytes(content[:start] + part * rng.choice([2, 3, 50]) + content[start + length :])


def take_anothers_content(file, rng):
    folder = file
    while not (folder / MANIFEST).exists():
        folder = folder.parent
    others = [other for other in sorted(folder.rglob("*")) if other.is_file()]
    others.remove(file)
    shutil.copyfile(rng.choice(others), file)


def remove(file, rng):
    file.unlink()


def become_a_folder(file, rng):
    file.unlink()
    file.mkdir()


def become_a_link(file, rng):
    aim = rng.choice(["itself", "away", "zeros"])
    file.unlink() if aim != "away" else file.rename(file.parent.with_name("away"))
    file.symlink_to({"itself": file, "away": file.parent.with_name("away")}.get(aim, "/dev/zero"))


def become_special(file, rng):
    file.unlink()
    if rng.random() < 0.5:
        os.mkfifo(file)
        return
    here = os.getcwd()
    os.chdir(file.parent)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(file.name)
    os.chdir(here)


def change_json(file, rng):
    """Another value, a key less or more, or a list that is shorter or longer."""
    if file.suffix != ".json":
        return False
    try:
        value = json.loads(file.read_text())
    except ValueError:
        return False
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        value = changed(value, rng)
    file.write_text(json.dumps(value, ensure_ascii=rng.random() < 0.9), errors="surrogatepass")
    return None


def changed(value, rng):
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = rng.choice(keys)
        kind = rng.choice(["within", "within", "within", "within", "delete", "add", "double"])
        if kind == "within":
            value[key] = changed(value[key], rng)
        elif kind == "delete":
            del value[key]
        elif isinstance(value, list):
            value.extend([a_value(rng)] if kind == "add" else value * 3)
        else:
            value[rng.choice(["a", "", "auto_map", "__class__"])] = a_value(rng)
        return value
    if isinstance(value, int | float) and rng.random() < 0.4:
        return value * rng.choice([-1, 2, 1000, 10**6]) + rng.choice([0, 1])
    return a_value(rng)


def a_value(rng):
    return copy.deepcopy(rng.choice(VALUES))


def change_tensors(file, rng):
    """The header of a safetensors file: more, fewer, other tensors than its bytes are."""
    if file.suffix != ".safetensors":
        return False
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    kind = rng.choice(["dtype", "shape", "offsets", "rename", "drop", "empty", "json", "nan"])
    if kind == "dtype":
        header[name]["dtype"] = rng.choice(["F64", "F16", "I64", "BOOL", "U8", "F8_E4M3", "X"])
    elif kind == "shape":
        header[name]["shape"] = rng.choice(
            [header[name]["shape"][::-1], [], [0], [-1], [1, *header[name]["shape"]], [2**62, 4]]
        )
    elif kind == "offsets":
        header[name]["data_offsets"] = rng.choice([[0, 0], [0, 2**62], [8, 4], [-4, 0]])
    elif kind == "rename":
        header[rng.choice(["other", rng.choice(names)])] = header.pop(name)
    elif kind == "drop":
        del header[name]
    elif kind == "empty":
        for number in range(rng.choice([1, 100, 100_000])):
            header[f"empty {number}"] = {
                "dtype": "F32",
                "shape": [0],
                "data_offsets": [len(data), len(data)],
            }
    elif kind == "nan":
        data = rng.choice([b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f"]) + data[4:]
    else:
        header = changed(header, rng)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return None


def change_graph(file, rng):
    """A field of the ONNX graph."""
    if file.suffix != ".onnx":
        return False
    import onnx

    model = onnx.load(file)
    graph = model.graph
    node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
    kind = rng.choice(
        ["op", "edge", "drop", "dims", "type", "number", "attribute", "opset", "loop"]
    )
    if kind == "op":
        node.op_type = rng.choice(["Add", "Loop", "If", "Tile", "Expand", "Range", "Nope", ""])
    elif kind == "edge" and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(graph.node).output[0]
    elif kind == "drop":
        graph.node.remove(node)
    elif kind == "dims":
        tensor.dims[:] = rng.choice([[], [0], [-1], [2**40], [*tensor.dims][::-1], [1] * 100])
    elif kind == "type":
        tensor.data_type = rng.choice([0, 1, 2, 7, 8, 10, 11, 99])
    elif kind == "number":
        small = [
            one for one in graph.initializer if one.data_type == 7 and len(one.raw_data) <= 64
        ]
        if small:
            value = rng.choice([0, -1, 10**6, 10**9, 2**40, 2**63 - 1])
            one = rng.choice(small)
            one.raw_data = np.full(len(one.raw_data) // 8, value, dtype=np.int64).tobytes()
    elif kind == "attribute":
        choices = [a for n in graph.node for a in n.attribute]
        attribute = rng.choice(choices)
        attribute.i, attribute.f = rng.choice([-1, 0, 10**9, 2**62]), rng.choice([-1.0, 1e38])
    elif kind == "opset":
        model.opset_import[0].version = rng.choice([0, 1, 7, 99, 2**40])
    else:
        graph.node.append(node)
    file.write_bytes(model.SerializeToString())
    return None


MUTATIONS = [cut, lengthen, flip, flip, overwrite, drop_bytes, repeat_bytes]
MUTATIONS += [take_anothers_content, remove, become_a_folder, become_a_link, become_special]
MUTATIONS += [*[change_json] * 8, *[change_tensors] * 6, *[change_graph] * 6]


def mutate(folder, rng):
    """Change one file, and give its name and that of the mutation."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    while True:
        file, mutation = rng.choice(files), rng.choice(MUTATIONS)
        if file.stat().st_size and mutation(file, rng) is not False:
            return file.relative_to(folder).as_posix(), mutation.__name__


def sign(folder):
    """Make the manifest's sums and sizes those of the files, where it has any."""
    file = folder / MANIFEST
    manifest = json.loads(file.read_text())
    for name in manifest["files"]:
        path = folder / name
        if path.is_file():
            content = path.read_bytes()
            manifest["files"][name] = hashlib.sha256(content).hexdigest()
            manifest["bytes"][name] = len(content)
    file.write_text(json.dumps(manifest))


# -- loading them ------------------------------------------------------------------------------


def load(kind, folder):
    from sklearn_dialpref import DialoguePreferenceClassifier, OnnxDialogueClassifier

    if kind == "onnx":
        return OnnxDialogueClassifier.load(folder, threads=1)
    return DialoguePreferenceClassifier.load(folder, device="cpu")


def answers(model, kind):
    X = FEATURES if kind == "classifier" else DIALOGUES
    return model.predict_proba(X), model.predict(X)


def answers_of(kind, folder):
    return answers(load(kind, folder), kind)


def outcome(kind, folder, name, expected):
    """What becomes of a folder: (outcome, a note, seconds that loading took)."""
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = load(kind, folder)
        took = time.process_time() - start
        probabilities, labels = answers(model, kind)
    except ValueError as error:
        took = time.process_time() - start
        named = Path(name).name in str(error)
        return "refused" if named else "unnamed", f"{str(error)[:300]}", took
    except BaseException as error:
        return "wrong", f"{type(error).__name__}: {str(error)[:300]}", time.process_time() - start
    if not (np.isfinite(probabilities).all() and (abs(probabilities - 0.5) <= 0.5).all()):
        return "wrong", "answers are no probabilities", took
    same = np.array_equal(probabilities, expected[0]) and np.array_equal(labels, expected[1])
    return "identical" if same else "other", "", took


def alone(function, *arguments, patience=PATIENCE):
    """What a function gives in a process of its own, which may crash or hang."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)  # what Rust and onnxruntime say of a panic
        os.write(writing, pickle.dumps(function(*arguments)))
        os._exit(0)
    os.close(writing)
    if not select.select([reading], [], [], patience)[0]:
        os.kill(child, signal.SIGKILL)
    with open(reading, "rb") as pipe:
        content = pipe.read()
    status = os.waitpid(child, 0)[1]
    return pickle.loads(content) if content else ("wrong", f"died: status {status}", PATIENCE)


def run(kind, folder, n_mutants, seed, isolated=True):
    """The outcomes of that many mutants of a folder, unsigned and signed.

    Yields (whether signed, outcome, seconds, what was done, note).
    """
    call = alone if isolated else lambda function, *arguments: function(*arguments)
    expected = call(answers_of, kind, folder)  # onnxruntime's threads must not be forked
    for number in range(n_mutants):
        rng = random.Random(f"{seed} {kind} {number}")
        with tempfile.TemporaryDirectory() as scratch:
            mutant = Path(shutil.copytree(folder, Path(scratch) / "in" / "mutant"))
            name, mutation = mutate(mutant, rng)
            for signed in (False, True):
                if signed and name == MANIFEST:
                    continue
                if signed:
                    sign(mutant)
                result, note, took = call(outcome, kind, mutant, name, expected)
                if took > LIMIT and result != "wrong":
                    result, note = "wrong", f"{result} after {took:.1f} s: {note}"
                yield signed, result, took, f"{number}: {mutation} of {name}", note


# -- the folders ---------------------------------------------------------------------------------


def tiny_encoder(folder):
    """A random BERT of one layer, 16 wide."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *" ".join(TEXTS).split()]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 64}
    config = BertConfig(vocab_size=len(vocabulary), **sizes)
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizerFast(vocab=vocabulary).save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(16)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return str(folder / "model")


def make_folders(scratch):
    """A saved classifier of features, one of text with context, and that one exported."""
    import torch

    from sklearn_dialpref import DialoguePreferenceClassifier, export_onnx

    torch.set_num_threads(1)
    y = ["no", "yes", "maybe"] * 2
    clf = DialoguePreferenceClassifier("precomputed", max_epochs=1, random_state=0)
    clf.fit(FEATURES, y).save(scratch / "classifier")
    of_text = {"context_turns": 1, "max_epochs": 1, "random_state": 0}
    clf = DialoguePreferenceClassifier(tiny_encoder(scratch), **of_text)
    clf.fit(DIALOGUES, y).save(scratch / "text")
    alone(lambda: export_onnx(clf, scratch / "onnx", X_check=DIALOGUES), patience=300)


def report(kind, signed, outcomes):
    counts = Counter(result for result, *_ in outcomes)
    slowest = max(took for _, took, *_ in outcomes)
    cells = [counts[name] for name in ("refused", "unnamed", "identical", "other", "wrong")]
    label = f"{kind}, {'signed' if signed else 'unsigned'}"
    print(f"| {label} | {len(outcomes)} |", " | ".join(map(str, cells)), f"| {slowest:.2f} s |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=3000, help="of each kind of folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=["classifier", "text", "onnx"])
    parser.add_argument("--notes", nargs="*", default=["wrong"], help="outcomes to tell of")
    options = parser.parse_args()
    print("| folder | mutants | refused | unnamed | identical | other | wrong | slowest |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        make_folders(Path(scratch))
        for kind in options.kinds:
            found = {False: [], True: []}
            folder = Path(scratch) / kind
            for signed, result, took, what, note in run(
                kind, folder, options.mutants, options.seed
            ):
                found[signed].append((result, took))
                if result in options.notes:
                    print(f"    {result} (signed: {signed}), {what}: {note}", flush=True)
            for signed, outcomes in found.items():
                report(kind, signed, outcomes)


if __name__ == "__main__":
    main()

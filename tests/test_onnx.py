"""Exported models answer as the classifier does, alone, and are refused when damaged."""

import copy
import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from signing import resign
from sklearn.exceptions import NotFittedError
from sklearn.metrics import get_scorer

import sklearn_dialpref
from sklearn_dialpref import (
    DialoguePreferenceClassifier,
    DialogueStream,
    OnnxDialogueClassifier,
    export_onnx,
)
from sklearn_dialpref.serving import agreement, export
from sklearn_dialpref.serving.int8 import quantise
from sklearn_dialpref.serving.onnx import batches, open_session

LONG = "where is my parcel " * 40
TEXTS = ["hi", "Where  is my PARCEL?", LONG, "thanks", "😀 ünknown", "late late late", "x"]


@pytest.fixture(scope="module")
def exported(classifier, chats, tmp_path_factory):
    """Copy it before you change it."""
    path = tmp_path_factory.mktemp("exported") / "model"
    export_onnx(classifier, path, X_check=chats.X)
    return path


@pytest.fixture
def copied(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def agrees(clf, X, path, **options):
    """Export, load, and compare what predicting has."""
    report = export_onnx(clf, path, X_check=X, **options)
    served = OnnxDialogueClassifier.load(path, threads=1)
    for rows in (X, X[:1], X[1:4]):
        np.testing.assert_allclose(served.predict_proba(rows), clf.predict_proba(rows), atol=1e-4)
        np.testing.assert_array_equal(served.predict(rows), clf.predict(rows))
    assert served.predict(X).dtype == clf.predict(X).dtype
    np.testing.assert_array_equal(served.classes_, clf.classes_)
    assert report.same == 1 and report.largest_difference < 1e-4
    return served


# -- the same answers ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_trained_encoder_with_its_own_pooling(tiny_encoder, chats, tmp_path):
    clf = DialoguePreferenceClassifier(
        tiny_encoder,
        trainable_layers=None,
        pooling="model",
        context_turns=2,
        max_epochs=1,
        random_state=0,
    )
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    before = {k: v.clone() for k, v in clf.net_.module_.state_dict().items()}
    served = agrees(clf, chats.X, tmp_path / "model")
    for name, weight in clf.net_.module_.state_dict().items():
        torch.testing.assert_close(weight, before[name])
    assert agrees_on_texts(served, clf)
    assert served.context_turns == 2


def test_a_frozen_encoder_with_layers_and_context(exported, classifier, chats):
    served = OnnxDialogueClassifier.load(exported, threads=1)
    for rows in (chats.X, chats.X[:1], chats.X[1:4]):
        expected = classifier.predict_proba(rows)
        np.testing.assert_allclose(served.predict_proba(rows), expected, atol=1e-4)
    assert agrees_on_texts(served, classifier)
    assert served.context_turns == 1


@pytest.mark.slow
def test_layers_prompt_truncation_and_integer_classes(
    tiny_encoder, classifier, exported, tmp_path
):
    """One export of a single layer, as exports take seconds."""
    model = SentenceTransformer(str(tiny_encoder), device="cpu")
    model.prompts, model.default_prompt_name = {"own": "hello: "}, "own"
    model.tokenizer.truncation_side = "left"
    clf = DialoguePreferenceClassifier(model, encoder_layers=1, max_epochs=1, random_state=0)
    clf.fit(TEXTS * 3, np.arange(21) % 2)
    served = agrees(clf, TEXTS, tmp_path / "model")
    assert agrees_on_texts(served, clf)
    long = ["hi " * 100 + "where is my parcel " * 40]
    np.testing.assert_allclose(served.predict_proba(long), clf.predict_proba(long), atol=1e-5)
    kept, whole = (
        sum(np.prod(weight.dims) for weight in onnx.load(path / "model.onnx").graph.initializer)
        for path in (tmp_path / "model", exported)
    )
    layer = classifier._text_encoder.model[0].auto_model.encoder.layer[1]
    assert whole - kept >= sum(weight.numel() for weight in layer.parameters())


def agrees_on_texts(served, clf):
    together = served.predict_proba(TEXTS)
    np.testing.assert_allclose(together, clf.predict_proba(TEXTS), atol=1e-5)
    alone = np.concatenate([served.predict_proba([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    return True


def test_rows_in_many_batches_and_any_order(exported, classifier, chats, monkeypatch):
    monkeypatch.setattr("sklearn_dialpref.serving.onnx.BATCH_TOKENS", 20)
    served = OnnxDialogueClassifier.load(exported)
    X = chats.X.sample(frac=1, random_state=0)
    np.testing.assert_allclose(served.predict_proba(X), classifier.predict_proba(X), atol=1e-5)
    assert agrees_on_texts(served, classifier)


def test_batches_are_of_like_length():
    lengths = np.random.default_rng(0).integers(1, 300, 1000)
    found = list(batches(lengths))
    assert sorted(np.concatenate(found)) == list(range(1000))
    assert all(len(rows) * lengths[rows].max() <= 256 or len(rows) == 1 for rows in found)
    assert sum(len(rows) * lengths[rows].max() for rows in found) < 1.1 * lengths.sum()
    assert [rows.tolist() for rows in batches(np.array([5000, 0]))] == [[0], [1]]


@pytest.fixture
def static_encoder(tiny_encoder):
    """Exported in a second, where a transformer takes several."""
    tokenizer = SentenceTransformer(str(tiny_encoder), device="cpu").tokenizer
    modules = [StaticEmbedding(tokenizer.backend_tokenizer, embedding_dim=8), Normalize()]
    return SentenceTransformer(modules=modules, device="cpu")


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_static_embeddings(static_encoder, chats, tmp_path, precision):
    clf = DialoguePreferenceClassifier(static_encoder, max_epochs=1, random_state=0)
    clf.fit(chats.X, chats.y_human)
    if precision == "float32":
        assert agrees_on_texts(agrees(clf, chats.X, tmp_path / "model"), clf)
    else:
        report = export_onnx(
            clf, tmp_path / "model", X_check=chats.X, precision=precision, max_loss=0.1
        )
        assert report.same > 0.8 and report.largest_difference < 0.1


def test_multilabel_and_speakers(static_encoder, chats, tmp_path):
    X = chats.X.assign(speaker=np.resize(["agent", "customer"], len(chats.X)))
    y = pd.DataFrame({"offer": chats.y_true == chats.y_true[0], "ask": X["speaker"] == "customer"})
    of_speakers = {"agent": ["offer"], "customer": ["offer", "ask"]}
    clf = DialoguePreferenceClassifier(
        static_encoder, classes=of_speakers, max_epochs=1, random_state=0
    )
    y = y.astype(float)
    served = agrees(clf.fit(X, y), X, tmp_path / "model", y_check=y)
    assert (served.predict_proba(X)[X["speaker"] == "agent", 1] == 0).all()
    np.testing.assert_array_equal(served.thresholds_, clf.thresholds_)
    some = y.copy()
    some.iloc[::3] = np.nan
    right = (clf.predict(X) == y).all(axis=1)[np.arange(len(y)) % 3 > 0]
    assert served.score(X, some) == clf.score(X, some) == pytest.approx(right.mean())
    with pytest.raises(ValueError, match="must hold 0, 1 or missing"):
        served.score(X, y / 2)
    with pytest.raises(ValueError, match="no speakers"):
        served.predict(["hi"])


@pytest.fixture(scope="module")
def int8(classifier, chats, tmp_path_factory):
    """The folder, and the report of its export."""
    path = tmp_path_factory.mktemp("int8") / "model"
    labels = {"X_check": chats.X, "y_check": chats.y_true}
    return path, export_onnx(classifier, path, precision="int8", max_loss=0.2, **labels)


def test_int8(int8, classifier, chats):
    path, report = int8
    served = OnnxDialogueClassifier.load(path)
    assert 0 < report.largest_difference < 0.2
    assert report.score == np.mean(served.predict(chats.X) == chats.y_true)
    assert report.score_before == classifier.score(chats.X, chats.y_true)
    assert report.loss == pytest.approx(report.score_before - report.score)
    assert "int8 graph" in str(report) and str(report.n_rows) in str(report)
    assert f"size: {report.megabytes:.1f} MB" in str(report)
    assert report.megabytes == (path / "model.onnx").stat().st_size / 1e6
    tensors = [*classifier._text_encoder.parameters(), *classifier.net_.module_.parameters()]
    assert report.megabytes_before == pytest.approx(sum(t.nbytes for t in tensors) / 1e6)
    assert f"int8 graph, checked on {report.n_rows}" in (path / "README.md").read_text()
    # only the encoder is quantised, not the head's two layers
    nodes = onnx.load(path / "model.onnx").graph.node
    kinds = [node.op_type for node in nodes if "MatMul" in node.op_type or node.op_type == "Gemm"]
    assert kinds[-2:] in (["MatMul", "MatMul"], ["Gemm", "Gemm"])
    # with biases, and without a scale that depends on the batch
    products = [node for node in nodes if node.op_type == "MatMulIntegerToFloat"]
    assert [len(node.input) for node in products] == [7] * 12
    assert not any(node.op_type == "DynamicQuantizeLinear" for node in nodes)


STORED = Path(__file__).parent / "stored" / "format_1_onnx_int8"


def test_int8_answers_do_not_depend_on_the_batch(int8, chats):
    check_alone_and_together(OnnxDialogueClassifier.load(int8[0], threads=1), chats.X)


def test_int8_folders_of_older_versions(chats):
    """Their activations are scaled by the range of a batch."""
    served = OnnxDialogueClassifier.load(STORED, threads=1)
    check_alone_and_together(served, chats.X)
    golden = json.loads(STORED.with_suffix(".json").read_text())
    np.testing.assert_allclose(served.predict_proba(chats.X), golden, atol=1e-3)


def check_alone_and_together(served, X):
    texts = [*X["text"], *TEXTS] * 4
    alone = np.concatenate([served.predict_proba([text]) for text in texts[: len(texts) // 4]])
    alone = np.tile(alone, (4, 1))
    for size in (7, 256):
        batches_of_texts = [texts[at : at + size] for at in range(0, len(texts), size)]
        together = np.concatenate([served.predict_proba(one) for one in batches_of_texts])
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(together.argmax(axis=1), alone.argmax(axis=1))
    proba = served.predict_proba(X)
    for rows in X.groupby("dialogue_id").indices.values():
        stream = DialogueStream(served)
        scores = [stream.push(text).scores for text in X["text"].iloc[rows]]
        np.testing.assert_allclose(scores, proba[rows], rtol=0, atol=1e-6)


def test_int8_where_nothing_is_active(tmp_path):
    """A layer whose input is all zeros has a scale, too, and one without a bias is fused."""
    weights = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    helper = onnx.helper
    nodes = [
        helper.make_node("MatMul", [a, "w"], [b], f"node_{b}")
        for a, b in zip("xabc", "abcd", strict=True)
    ]
    shape = ["rows", 3]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("d", onnx.TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "x.onnx")
    x = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    quantise(tmp_path / "x.onnx", tmp_path / "y.onnx", [{"x": 0 * x}])
    quantise(tmp_path / "x.onnx", tmp_path / "z.onnx", [{"x": x}])
    kinds = [node.op_type for node in onnx.load(tmp_path / "z.onnx").graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 2
    assert np.isfinite(open_session(tmp_path / "y.onnx", 1).run(None, {"x": x})[0]).all()
    expected = x @ weights @ weights @ weights @ weights
    found = open_session(tmp_path / "z.onnx", 1).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


# -- refused at export --------------------------------------------------------------------------


@pytest.fixture
def graph_there(exported, monkeypatch):
    """Takes the graph of the exported classifier instead of making it again."""

    def copied(graph, n_slots, file):
        shutil.copy(exported / "model.onnx", file)

    monkeypatch.setattr(export, "_write_graph", copied)


@pytest.mark.usefixtures("graph_there")
def test_int8_that_loses_too_much(classifier, chats, tmp_path):
    with pytest.raises(ValueError, match=r"int8 loses .* more than max_loss=-1"):
        export_onnx(classifier, tmp_path / "model", X_check=chats.X, precision="int8", max_loss=-1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("graph_there")
def test_a_graph_that_differs(classifier, chats, tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "TOLERANCE", float("nan"))
    with pytest.raises(ValueError, match=r"probabilities differ by up to"):
        export_onnx(classifier, tmp_path / "model", X_check=chats.X)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("graph_there")
def test_contexts_that_are_not_checked(classifier, chats, tmp_path):
    with pytest.warns(UserWarning, match="no utterance of X_check has a context"):
        export_onnx(classifier, tmp_path / "model", X_check=chats.X["text"].tolist())


def test_what_cannot_be_exported(classifier, chats, tmp_path, monkeypatch):
    path = tmp_path / "model"
    with pytest.raises(NotFittedError):
        export_onnx(DialoguePreferenceClassifier(), path, X_check=["hi"])
    with pytest.raises(ValueError, match=r"precision must be one of .* got 'int4'"):
        export_onnx(classifier, path, X_check=chats.X, precision="int4")
    ready = DialoguePreferenceClassifier("precomputed", max_epochs=1)
    ready.fit([[0.0], [1.0]] * 4, [0, 1] * 4)
    with pytest.raises(ValueError, match="fitted on precomputed features"):
        export_onnx(ready, path, X_check=[[0.0]])
    monkeypatch.setattr(export, "PROBES", ["hi"])
    monkeypatch.setattr(
        type(classifier._frozen.text_encoder),
        "tokens",
        lambda self, texts: {"input_ids": torch.zeros(1, 3, dtype=torch.int64)},
    )
    with pytest.raises(ValueError, match="reads 'hi' otherwise than the tokenizers package"):
        export_onnx(classifier, path, X_check=chats.X)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package(classifier, chats, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"needs onnxscript: pip install .*\[onnx\]"):
        export_onnx(classifier, tmp_path / "model", X_check=chats.X)


def test_labels_to_check_against(classifier, chats):
    labels = chats.y_true.astype(object)
    labels[::2] = None
    predicted = classifier.predict(chats.X)
    expected = np.mean(predicted[1::2] == chats.y_true[1::2])
    classes = classifier.classes_
    assert agreement._score(labels, predicted, classes) == expected
    for wrong in (labels[:3], np.stack([labels, labels], axis=1), labels.to_frame()):
        with pytest.raises(ValueError, match=r"y_check has the shape .* must be \(45,\)"):
            agreement._score(wrong, predicted, classes)
    with pytest.raises(ValueError, match=r"all of y_check is missing"):
        agreement._score([None] * len(predicted), predicted, classes)
    with pytest.raises(ValueError, match=r"labels that are not classes: \[7\]"):
        agreement._score([7] * len(predicted), predicted, classes)


def test_rows_to_check_on_are_asked_for(classifier, tmp_path):
    with pytest.raises(ValueError, match=r"needs X_check.* a hundred rows .*X_check=X\[:100\]"):
        export_onnx(classifier, tmp_path / "model")
    assert not (tmp_path / "model").exists()


# -- serving ------------------------------------------------------------------------------------


def test_it_needs_neither_torch_nor_scikit_learn(exported):
    heavy = ["torch", "transformers", "sentence_transformers", "sklearn", "scipy", "pandas"]
    code = (
        "import sys\n"
        "from sklearn_dialpref import OnnxDialogueClassifier\n"
        f"model = OnnxDialogueClassifier.load({str(exported)!r})\n"
        "print(model.predict_proba(['hi']).shape, model.predict([['a', 'x'], ['b', 'x']]).shape)\n"
        "model.score(['hi', 'ho'], [None, model.classes_[0]])\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == ["(1, 3) (2,)", "[]"] and out.stderr == ""


def test_many_threads_at_once(exported, classifier):
    served = OnnxDialogueClassifier.load(exported, threads=1)
    texts = [[text] for text in TEXTS * 10]
    with ThreadPoolExecutor(8) as pool:
        found = np.concatenate(list(pool.map(served.predict_proba, texts)))
    np.testing.assert_allclose(found, classifier.predict_proba(TEXTS * 10), atol=1e-5)


def test_scikit_learn_takes_it_for_a_classifier(exported, chats):
    served = OnnxDialogueClassifier.load(exported)
    accuracy = np.mean(served.predict(chats.X) == chats.y_true)
    assert get_scorer("accuracy")(served, chats.X, chats.y_true) == accuracy
    assert get_scorer("neg_log_loss")(served, chats.X, chats.y_true) < 0
    assert repr(served) == "<OnnxDialogueClassifier of 3 classes>"


@pytest.mark.parametrize("weighted", [False, True])
def test_it_scores_as_the_classifier(exported, classifier, chats, weighted):
    served = OnnxDialogueClassifier.load(exported)
    labels = chats.y_true.astype(object)
    labels[::3] = None
    weight = np.arange(1.0, len(labels) + 1) if weighted else None
    known = ~pd.isna(labels)
    right = classifier.predict(chats.X)[known] == labels[known]
    expected = np.average(right, weights=weight[known] if weighted else None)
    for y in (labels, labels.tolist(), labels.to_frame(), labels.to_numpy()):
        for model in (classifier, served):
            assert model.score(chats.X, y, sample_weight=weight) == pytest.approx(expected)
    for model in (classifier, served):
        for y, options, message in (
            ([None] * len(labels), {}, "all of y is missing"),
            (labels[:4], {}, r"inconsistent numbers of samples: \[45, 4\]"),
            ([1] * len(labels), {}, "y holds labels such as .*1.*, but predictions are such as"),
            (np.ones((len(labels), 2)), {}, r"y has the shape \(45, 2\), but predictions have"),
            (labels, {"sample_weight": [1, 2]}, r"sample_weight has the shape \(2,\)"),
        ):
            with pytest.raises(ValueError, match=message):
                model.score(chats.X, y, **options)


def test_wrong_input(exported):
    served = OnnxDialogueClassifier.load(exported)
    for X, message in (
        ([" "], "must not be empty"),
        ([3], "X holds list features"),
        ("hi", "pass"),
        (["half \ud83d"], "row 0 of X has a lone surrogate"),
        (["hi", "half \ud83d"], "row 1 of X has a lone surrogate"),
        ([], "0 sample"),
    ):
        with pytest.raises(ValueError, match=message):
            served.predict(X)
    with pytest.raises(ValueError, match="threads must be a positive int or None, got 0"):
        OnnxDialogueClassifier.load(exported, threads=0)
    with pytest.raises(TypeError, match=r"use OnnxDialogueClassifier\.load"):
        OnnxDialogueClassifier()


# -- damaged, foreign, hostile ------------------------------------------------------------------


class Explosive:
    def __reduce__(self):
        return (sys.exit, ("code was run",))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.onnx", r"model\.onnx is not an ONNX graph"),
        ("tokenizer.json", r"tokenizer\.json is not a tokenizer"),
        ("serving.json", "serving.json is not JSON|cannot be read as a model"),
    ],
)
@pytest.mark.parametrize("content", [b"", pickle.dumps(Explosive()), b"{}"])
def test_foreign_files(copied, name, message, content):
    (copied / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"damaged: {name} is not what was saved"):
        OnnxDialogueClassifier.load(copied)
    resign(copied)
    with pytest.raises(ValueError, match=message):
        OnnxDialogueClassifier.load(copied)


def test_another_folder(copied, classifier, tmp_path):
    with pytest.raises(ValueError, match="holds a saved onnx, but a classifier"):
        DialoguePreferenceClassifier.load(copied)
    classifier.save(tmp_path / "clf")
    with pytest.raises(ValueError, match="holds a saved classifier, but a onnx"):
        OnnxDialogueClassifier.load(tmp_path / "clf")
    with pytest.raises(FileExistsError, match="is not a saved"):
        export_onnx(classifier, tmp_path / "clf", X_check=["hi"])


@pytest.mark.parametrize(
    "change",
    [
        {"pad": float("inf")},
        {"pad": 10**6},
        {"n_slots": 7},
        {"n_slots": 1},
        {"context_turns": -1},
        {"prompt": "\ud83d"},
        {"classes": {"values": [["a"], ["b"], ["c"]], "dtype": "|O"}},
        {"classes": {"values": ["a", "b", "c"], "dtype": "<U30000000"}},
        {"classes": {"values": ["a", "b", "c"], "dtype": "<M8[s]"}},
    ],
)
def test_numbers_that_cannot_be(copied, change):
    state = json.loads((copied / "serving.json").read_text())
    (copied / "serving.json").write_text(json.dumps({**state, **change}))
    resign(copied)
    with pytest.raises(ValueError, match=r"serving\.json"):
        OnnxDialogueClassifier.load(copied)


@pytest.mark.parametrize("dims", [[0], [1], [2**40]])
def test_graphs_that_cannot_run(copied, dims):
    model = onnx.load(copied / "model.onnx")
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.dims[:] = dims
    (copied / "model.onnx").write_bytes(model.SerializeToString())
    resign(copied)
    with pytest.raises(ValueError, match=r"model\.onnx"):
        OnnxDialogueClassifier.load(copied)


def test_classes_that_are_not_those_of_the_graph(copied):
    state = json.loads((copied / "serving.json").read_text())
    state["classes"]["values"].append("more")
    (copied / "serving.json").write_text(json.dumps(state))
    resign(copied)
    with pytest.raises(
        ValueError, match=r"model\.onnx is not of the 4 classes that serving\.json has"
    ):
        OnnxDialogueClassifier.load(copied)


@pytest.mark.parametrize("name", ["input_ids", "index"])
def test_graphs_of_a_single_text_or_row(copied, name):
    model = onnx.load(copied / "model.onnx")
    (given,) = (one for one in model.graph.input if one.name == name)
    given.type.tensor_type.shape.dim[0].dim_value = 1
    (copied / "model.onnx").write_bytes(model.SerializeToString())
    resign(copied)
    with pytest.raises(ValueError, match=r"model\.onnx"):
        OnnxDialogueClassifier.load(copied)


def test_tokenizers_that_panic(copied):
    tokenizer = json.loads((copied / "tokenizer.json").read_text())
    del tokenizer["post_processor"]["special_tokens"]["[SEP]"]
    (copied / "tokenizer.json").write_text(json.dumps(tokenizer))
    resign(copied)
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        OnnxDialogueClassifier.load(copied)


class Failing:
    def run(self, outputs, inputs):
        raise RuntimeError("no")  # not of any common class


def test_what_fails_only_on_some_texts(exported):
    served = OnnxDialogueClassifier.load(exported)
    served._parts = served._parts._replace(session=Failing())
    for texts in (["hi"], TEXTS):
        with pytest.raises(ValueError, match=r"model\.onnx .*\(no\)"):
            served.predict(texts)


@pytest.mark.parametrize("place", ["../outside.bin", "outside.bin"])
def test_weights_elsewhere(copied, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, copied.parent, tmp_path.parent):
        (folder / "outside.bin").write_bytes(bytes(10**6))
    model = onnx.load(copied / "model.onnx")
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 1000:
            onnx.external_data_helper.set_external_data(tensor, place)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.ClearField("raw_data")
    (copied / "model.onnx").write_bytes(model.SerializeToString())
    resign(copied)
    with pytest.raises(ValueError, match=r"model\.onnx is not an ONNX graph"):
        OnnxDialogueClassifier.load(copied)


def test_it_is_not_pickled(exported):
    served = OnnxDialogueClassifier.load(exported)
    for of in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="load its folder in each process"):
            of(served)


# -- the package ----------------------------------------------------------------------------------


def test_names_come_when_they_are_asked_for():
    code = (
        "import sys, sklearn_dialpref\n"
        "print([name for name in ('torch', 'sklearn') if name in sys.modules])\n"
        "sklearn_dialpref.metrics.masked_scorer\n"
        "from sklearn_dialpref import *\n"
        "print(DialoguePreferenceClassifier.__name__, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[0] == "[]"
    assert out.stdout.splitlines()[1].startswith("DialoguePreferenceClassifier")
    for name in sklearn_dialpref.__all__:
        assert getattr(sklearn_dialpref, name) is not None
        assert name in dir(sklearn_dialpref)
    assert set(sklearn_dialpref._HOME_OF) | {"__version__"} == set(sklearn_dialpref.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = sklearn_dialpref.nothing
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = sklearn_dialpref.serving.nothing

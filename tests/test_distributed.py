"""The function that engines map over the blocks of a table, without an engine."""

import pickle
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from students import student

from sklearn_dialpref import DialoguePreferenceClassifier, OnnxDialogueClassifier, export_onnx
from sklearn_dialpref.distributed import (
    DialoguePredictor,
    models,
    predict_dask,
    predict_polars,
    predict_ray,
    predict_spark,
)
from sklearn_dialpref.distributed.blocks import ROW, whole_dialogues
from sklearn_dialpref.distributed.on_ray import PredictInRowOrder


@pytest.fixture(autouse=True)
def nothing_loaded():
    models._load.cache_clear()


@pytest.fixture(scope="module")
def static_encoder(tiny_encoder):
    """Exported in a second, where a transformer takes several."""
    tokenizer = SentenceTransformer(tiny_encoder, device="cpu").tokenizer.backend_tokenizer
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")


@pytest.fixture(scope="module")
def clf(static_encoder, chats):
    return student(static_encoder, context_turns=1, max_epochs=1).fit(chats.X, chats.y_true)


@pytest.fixture(scope="module")
def folder(clf, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "clf"
    clf.save(path)
    return path


@pytest.fixture(scope="module")
def exported(clf, chats, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "onnx"
    export_onnx(clf, path, X_check=chats.X)
    return path


@pytest.fixture
def X(chats):
    """Whole dialogues in any order, with a column that no classifier reads."""
    rows = chats.X.assign(embedding=range(len(chats.X)))
    return rows.sample(frac=1, random_state=0).set_index(np.arange(len(rows)) // 2)


FORMS = {
    "pandas": lambda X: X,
    "polars": pl.from_pandas,
    "Table": lambda X: pa.Table.from_pandas(X, preserve_index=False),
    "RecordBatch": lambda X: pa.RecordBatch.from_pandas(X, preserve_index=False),
    "dict": lambda X: {name: X[name].to_numpy() for name in X},
}


def without_rows(block):
    """None of its rows, with the types of its columns, which old pandas forgets on the way."""
    if isinstance(block, dict):
        return {name: values[:0] for name, values in block.items()}
    return block.slice(0, 0) if isinstance(block, pa.Table | pa.RecordBatch) else block[:0]


def as_frame(block):
    if isinstance(block, pa.Table | pa.RecordBatch):
        return block.to_pandas()
    return pd.DataFrame(block if isinstance(block, dict) else block.to_dict(as_series=False))


def types_of(block):
    if isinstance(block, dict):
        return {name: values.dtype for name, values in block.items()}
    return block.dtypes.to_dict() if isinstance(block, pd.DataFrame) else block.schema


# -- blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["folder", "exported"])
def test_a_block_gets_columns_and_stays_what_it_is(request, X, form, kind):
    path, block = request.getfixturevalue(kind), FORMS[form](X)
    loader = OnnxDialogueClassifier if kind == "exported" else DialoguePreferenceClassifier
    served = loader.load(path)
    result = DialoguePredictor(path)(block)
    assert type(result) is type(block)
    frame = result if form == "pandas" else as_frame(result)
    assert list(frame) == [*X, "label"]
    np.testing.assert_array_equal(frame["embedding"], X["embedding"])
    np.testing.assert_array_equal(frame["label"], served.predict(X))
    proba = DialoguePredictor(path, output="proba")(block)
    frame = proba if form == "pandas" else as_frame(proba)
    assert list(frame) == [*X, *(f"proba_{name}" for name in served.classes_)]
    np.testing.assert_allclose(frame.iloc[:, X.shape[1] :], served.predict_proba(X), atol=1e-6)


def test_the_index_of_pandas_is_kept(folder, X):
    result = DialoguePredictor(folder)(X)
    pd.testing.assert_frame_equal(result[X.columns], X)
    assert "label" not in X


@pytest.mark.parametrize("output", ["label", "proba"])
@pytest.mark.parametrize("form", FORMS)
def test_a_block_without_rows(exported, X, form, output):
    predict = DialoguePredictor(exported, output)
    none, some = predict(without_rows(FORMS[form](X))), predict(FORMS[form](X))
    assert type(none) is type(some) and types_of(none) == types_of(some)
    assert not len(as_frame(none) if form != "pandas" else none)


def test_a_block_without_columns(exported):
    (name, values), *_ = DialoguePredictor(exported)({}).items()
    assert name == "label" and not len(values)


def test_arrays_of_several_dimensions_are_left_alone(exported, X):
    block = {**FORMS["dict"](X), "vectors": np.zeros((len(X), 3))}
    assert DialoguePredictor(exported)(block)["vectors"] is block["vectors"]


@pytest.mark.parametrize("output", ["label", "proba"])
def test_several_labels(static_encoder, chats, tmp_path, output):
    y = pd.DataFrame({"offer": chats.y_true == chats.y_true[0], "ask": chats.X["turn"] == 0})
    clf = student(static_encoder, max_epochs=1).fit(chats.X, y.astype(float))
    clf.save(tmp_path / "clf")
    result = DialoguePredictor(tmp_path / "clf", output)(chats.X)
    added = result[[f"{output}_ask", f"{output}_offer"]]
    expected = clf.predict(chats.X) if output == "label" else clf.predict_proba(chats.X)
    np.testing.assert_array_equal(
        added, expected[:, [list(clf.classes_).index(c) for c in ("ask", "offer")]]
    )


@pytest.mark.parametrize("labels", [[0, 1], [False, True], [0.0, 1.0]])
def test_classes_that_are_not_strings(static_encoder, chats, tmp_path, labels):
    clf = student(static_encoder, max_epochs=1).fit(chats.X, np.resize(labels, len(chats.X)))
    clf.save(tmp_path / "clf")
    for form in FORMS.values():
        predict = DialoguePredictor(tmp_path / "clf")
        result, none = predict(form(chats.X)), predict(without_rows(form(chats.X)))
        assert list(np.asarray(result["label"])) == clf.predict(chats.X).tolist()
        assert types_of(none) == types_of(result)


# -- errors -------------------------------------------------------------------------------------


def test_what_cannot_be_predicted(folder, X, tmp_path, copied):
    predict = DialoguePredictor(folder)
    for wrong, error, message in (
        (X.drop(columns="text"), ValueError, r"lacks the column\(s\) \['text'\].*Rename"),
        (X.assign(label=1), ValueError, r"has the column\(s\) \['label'\] already.*rename"),
        (X.assign(text=""), ValueError, "text must not be empty"),
        (X["text"], TypeError, "must be a DataFrame.*got a Series; for tables of an engine"),
        (pl.from_pandas(X).lazy(), TypeError, "got a LazyFrame.*predict_polars"),
        (["hi"], TypeError, "got a list"),
    ):
        with pytest.raises(error, match=message):
            predict(wrong)
    with pytest.raises(ValueError, match="output must be 'label' or 'proba', got 'labels'"):
        DialoguePredictor(folder, "labels")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        DialoguePredictor(tmp_path / "none")(X)
    with pytest.raises(ValueError, match="was not saved by this package"):
        DialoguePredictor(tmp_path)(X)
    with pytest.raises(ValueError, match=r"precomputed features.*map its own predict"):
        DialoguePredictor(copied)(X)
    (copied / "classifier.json").write_text("{}")
    models._load.cache_clear()
    with pytest.raises(ValueError, match="is damaged"):
        DialoguePredictor(copied)(X)


def test_cut_dialogues_are_told_by_the_classifier(folder, X):
    with pytest.warns(UserWarning, match="dialogues begin or break in the middle"):
        DialoguePredictor(folder)(X[X["turn"] > 0])


@pytest.mark.parametrize(
    ("predict", "package"),
    [
        (predict_dask, "dask"),
        (predict_polars, "polars"),
        (predict_ray, "ray"),
        (predict_spark, "pyspark"),
    ],
)
def test_a_table_of_something_else(folder, X, predict, package):
    pytest.importorskip(package)
    with pytest.raises(TypeError, match=r"but got a DataFrame; .*pass it to predict"):
        predict(X, folder)


# -- in the processes of a cluster --------------------------------------------------------------


def test_what_is_sent_is_small_and_holds_anywhere(folder, X, monkeypatch):
    monkeypatch.chdir(folder.parent)
    predict = DialoguePredictor(folder.name)
    content = pickle.dumps(predict)
    predict(X)
    assert len(content) < 500 and len(pickle.dumps(predict)) == len(content)
    monkeypatch.chdir("/")
    again = pickle.loads(content)
    assert again == predict and hash(again) == hash(predict)
    pd.testing.assert_frame_equal(again(X), predict(X))


def counting(monkeypatch, cls):
    loads = []
    load = cls.load
    monkeypatch.setattr(cls, "load", lambda *args, **kw: loads.append(args) or load(*args, **kw))
    return loads


def test_a_model_is_loaded_once_by_all_threads(folder, X, monkeypatch):
    loads = counting(monkeypatch, DialoguePreferenceClassifier)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: DialoguePredictor(folder)(X), range(8)))
    assert len(loads) == 1
    assert all(result.equals(results[0]) for result in results)


def test_a_folder_that_is_replaced_is_loaded_anew(clf, folder, chats, X, tmp_path, monkeypatch):
    path = shutil.copytree(folder, tmp_path / "clf")
    loads = counting(monkeypatch, DialoguePreferenceClassifier)
    predict = DialoguePredictor(path, "proba")
    before = predict(X)
    other = student(clf.encoder, context_turns=1, max_epochs=2).fit(
        chats.X, chats.y_true.to_numpy()[::-1]
    )
    other.save(path)
    after = predict(X)
    assert len(loads) == 2 and not before.equals(after)
    np.testing.assert_array_equal(after.iloc[:, -3:], other.predict_proba(X))
    link = tmp_path / "link"
    link.symlink_to(path)
    assert DialoguePredictor(link, "proba")(X).equals(after) and len(loads) == 2


def test_an_exported_model_takes_the_threads_that_it_is_allotted(exported, X, monkeypatch):
    threads = []
    load = OnnxDialogueClassifier.load
    monkeypatch.setattr(
        OnnxDialogueClassifier,
        "load",
        lambda path, **options: threads.append(options["threads"]) or load(path, **options),
    )
    for value in ("1", "2", "", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        models._load.cache_clear()
        DialoguePredictor(exported)(X)
    assert threads == [1, 2, None, None]


def test_it_is_quiet(folder, exported, X, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in (folder, exported):
            DialoguePredictor(path)(X)
    assert capfd.readouterr() == ("", "")


def test_an_exported_model_needs_no_torch(exported, tmp_path):
    code = (
        "import sys, pandas as pd\n"
        "from sklearn_dialpref.distributed import DialoguePredictor\n"
        "X = pd.DataFrame({'dialogue_id': ['a'], 'text': ['hi']})\n"
        f"print(DialoguePredictor({str(exported)!r})(X)['label'][0])\n"
        "assert not {'torch', 'sklearn', 'dask', 'ray', 'pyspark'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)


# -- engines that need no other process; the others are in test_engines --------------------------


def test_dask_in_this_process(exported, X):
    dask, dd = pytest.importorskip("dask"), pytest.importorskip("dask.dataframe")
    ddf = dd.from_pandas(X.reset_index(drop=True), npartitions=4)
    result = predict_dask(ddf, exported)
    with dask.config.set(scheduler="synchronous"):
        computed = result.compute().sort_index()
    assert (computed.dtypes == result.dtypes).all()
    expected = OnnxDialogueClassifier.load(exported).predict(X)
    np.testing.assert_array_equal(computed["label"], expected)
    with pytest.raises(ValueError, match=r"\['label'\] already"):
        predict_dask(result, exported)
    with pytest.raises(ValueError, match=r"X is a DataFrame of dask.*compute\(\).*predict_dask"):
        OnnxDialogueClassifier.load(exported).predict(ddf)


def test_polars_in_parts(exported, X, monkeypatch):
    pytest.importorskip("polars", minversion="1.34")
    monkeypatch.setattr("sklearn_dialpref.distributed.on_polars.BATCH_ROWS", 5)
    rows = pl.from_pandas(X.sort_values("embedding"))
    parts = list(predict_polars(rows.lazy(), exported))
    result = pl.concat(parts)
    assert len(parts) > 3 and result.drop("label").equals(rows)
    expected = OnnxDialogueClassifier.load(exported).predict(rows)
    assert result["label"].to_list() == expected.tolist()
    (none,) = predict_polars(rows.lazy().filter(pl.col("turn") < 0), exported)
    assert none.schema == result.schema and not len(none)


# -- dialogues that stay whole ------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pandas", "polars", "Table"])
def test_a_block_that_was_shuffled(exported, X, form):
    X = X.drop(columns="turn").reset_index(drop=True)
    mixed = X.assign(**{ROW: range(len(X))}).sample(frac=1, random_state=1)
    result = PredictInRowOrder(exported, "proba")(FORMS[form](mixed))
    frame = result if form == "pandas" else as_frame(result)
    assert frame["embedding"].tolist() == X["embedding"].tolist()
    expected = OnnxDialogueClassifier.load(exported).predict_proba(X)
    np.testing.assert_allclose(frame.iloc[:, -3:], expected, atol=1e-6)
    assert not np.allclose(DialoguePredictor(exported, "proba")(mixed).iloc[:, -3:], expected)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("form", ["pandas", "polars", "Table"])
def test_blocks_end_where_dialogues_do(size, form):
    ids = [*"aaabccccccccd", *"eeff"]
    X = pd.DataFrame({"dialogue_id": ids, "text": [str(row) for row in range(len(ids))]})
    blocks = [FORMS[form](X[start : start + size]) for start in range(0, len(X), size)]
    none = FORMS[form](X[:0])
    parts = list(whole_dialogues([none, *blocks, none]))
    frames = [part if form == "pandas" else as_frame(part) for part in parts]
    assert pd.concat(frames)["text"].tolist() == X["text"].tolist()
    seen = [set(frame["dialogue_id"]) for frame in frames]
    assert sum(map(len, seen)) == len(set(ids))
    if size < 3:
        assert len(frames) > 3


def test_dialogues_that_go_on_after_others_are_refused():
    blocks = [pd.DataFrame({"dialogue_id": [*ids], "text": "hi"}) for ids in ("ab", "bc", "ad")]
    with pytest.raises(ValueError, match=r"dialogue 'a' do not stand together.*sort the table"):
        list(whole_dialogues(blocks))
    assert len(list(whole_dialogues(iter([])))) == 0

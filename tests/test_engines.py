"""Real engines on loopback: whole dialogues, the answers of `predict`, and workers that die."""

import os
import pickle
import signal
import sys
from functools import partial
from itertools import chain

import numpy as np
import pandas as pd
import pytest
from annotating import CLASSES, bank, right, utterances
from conftest import WORDS
from joblib import parallel_config
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sklearn.model_selection import GridSearchCV, KFold
from students import student

from sklearn_dialpref import (
    DialoguePreferenceClassifier,
    LLMAnnotator,
    OnnxDialogueClassifier,
    export_onnx,
)
from sklearn_dialpref.distributed import (
    DialoguePredictor,
    models,
    predict_dask,
    predict_polars,
    predict_ray,
    predict_spark,
)

pytestmark = pytest.mark.engines
MOST_BYTES = 10_000


def shuffled_table(n_rows, n_turns=8):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "dialogue_id": [f"dialogue {row // n_turns}" for row in range(n_rows)],
            "turn": np.arange(n_rows) % n_turns,
            "text": [" ".join(words) for words in rng.choice(WORDS, (n_rows, 4))],
            "other": np.arange(n_rows) / 2,
        }
    )
    return X.sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def folder(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("engines") / "clf"
    classifier.save(path)
    return path


@pytest.fixture(scope="module")
def exported(classifier, chats, tmp_path_factory):
    """Workers load it in a second, where torch takes several."""
    path = tmp_path_factory.mktemp("engines") / "onnx"
    export_onnx(classifier, path, X_check=chats.X)
    return path


@pytest.fixture(scope="module")
def without_context(tiny_encoder, chats, tmp_path_factory):
    path = tmp_path_factory.mktemp("engines") / "static"
    tokenizer = SentenceTransformer(tiny_encoder, device="cpu").tokenizer.backend_tokenizer
    encoder = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)])
    clf = student(encoder, max_epochs=1).fit(chats.X, chats.y_true)
    export_onnx(clf, path, X_check=chats.X)
    return path


@pytest.fixture(scope="module")
def X():
    return shuffled_table(2000)


def check_proba(result, model, X):
    """Probabilities, as a context that is cut off seldom changes a label."""
    served = OnnxDialogueClassifier.load(model)
    columns = [f"proba_{name}" for name in served.classes_]
    expected = served.predict_proba(X)
    np.testing.assert_allclose(np.asarray(result[columns], dtype=float), expected, atol=1e-6)


def once(marker):
    """Whether nobody has been here before, of all processes."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


# -- Dask ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dask():
    """A cluster of two processes, quiet about what is done to it."""
    distributed = pytest.importorskip("distributed")
    options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with (
        distributed.LocalCluster(n_workers=2, host="127.0.0.1", **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def partitioned(X, n=6):
    """With an empty partition, and indexes that are not unique."""
    dd = pytest.importorskip("dask.dataframe")
    parts = [X[start::n].reset_index(drop=True) for start in range(n)]
    return dd.from_map(lambda part: part, [*parts, X[:0]], meta=X[:0])


@pytest.mark.parametrize("output", ["label", "proba"])
def test_dask(dask, folder, X, output):
    result = predict_dask(partitioned(X), folder, output)
    computed = result.compute()
    assert (computed.dtypes == result.dtypes).all()
    assert sorted(computed.index) == sorted(partitioned(X).compute().index)
    clf = DialoguePreferenceClassifier.load(folder)
    by_row = computed.set_index("other").loc[X["other"]]
    if output == "label":
        np.testing.assert_array_equal(by_row["label"], clf.predict(X))
    else:
        columns = [f"proba_{name}" for name in clf.classes_]
        np.testing.assert_allclose(by_row[columns], clf.predict_proba(X), atol=1e-5)
    loads = dask.run(lambda: models._load.cache_info().misses)
    assert max(loads.values()) == 1


def test_dask_without_turns_goes_by_the_order_of_the_rows(dask, exported, X):
    X = X.drop(columns="turn")
    dd = pytest.importorskip("dask.dataframe")
    result = predict_dask(dd.from_pandas(X, npartitions=20), exported, "proba").compute()
    check_proba(result.sort_index(), exported, X)


def test_dask_without_context_leaves_rows_where_they_are(dask, without_context, X):
    ddf = partitioned(X)
    result = predict_dask(ddf, without_context)
    assert result.npartitions == ddf.npartitions
    computed, rows = result.compute(), ddf.compute()
    pd.testing.assert_frame_equal(computed.drop(columns="label"), rows)
    expected = OnnxDialogueClassifier.load(without_context).predict(rows)
    np.testing.assert_array_equal(computed["label"], expected)


def test_dask_sends_a_path(dask, folder, X):
    cloudpickle = pytest.importorskip("cloudpickle")
    ddf = partitioned(X[:0])
    sent = len(cloudpickle.dumps(dict(predict_dask(ddf, folder).optimize().dask)))
    tables = len(cloudpickle.dumps(dict(ddf.optimize().dask)))
    assert sent - tables < MOST_BYTES
    assert (
        max(len(cloudpickle.dumps(task)) for task in dict(predict_dask(ddf, folder).dask).values())
        < MOST_BYTES
    )


def predicted_and_killed(part, marker, partition_info=None):
    if partition_info and partition_info["number"] == 3 and once(marker):
        os.kill(os.getpid(), signal.SIGKILL)
    return part


@pytest.mark.parametrize("model", ["exported", "without_context"])
def test_a_dask_worker_that_dies_while_it_predicts(dask, request, X, tmp_path, model):
    model, marker = request.getfixturevalue(model), tmp_path / "killed"
    result = predict_dask(partitioned(X), model)
    killed = result.map_partitions(predicted_and_killed, str(marker), meta=result._meta)
    computed = killed.compute().set_index("other").loc[X["other"]]
    assert marker.exists()
    expected = OnnxDialogueClassifier.load(model).predict(X)
    np.testing.assert_array_equal(computed["label"], expected)


def accuracy(clf, X, y, marker=None):
    if marker is not None and once(marker):
        os.kill(os.getpid(), signal.SIGKILL)
    return clf.score(X, y)


def test_a_dask_worker_that_dies_in_a_search(dask, tmp_path):
    X = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    y = np.where(X[:, 0] + X[:, 1] > 0, "yes", "no")
    grid = {"learning_rate": [1e-4, 1e-3, 1e-2], "max_epochs": [1, 2]}
    folds = list(KFold(3).split(X))

    def search(scoring):
        return GridSearchCV(student(), grid, cv=folds, scoring=scoring).fit(X, y)

    marker = tmp_path / "killed"
    expected = search(accuracy)
    dask.wait_for_workers(2)  # one that an earlier test killed would get no copy of the data
    dask.amm.stop()  # it removes all copies of data but one, every two seconds
    # what only one worker holds is lost with it, and joblib sends folds to one
    with parallel_config(backend="dask", scatter=[X, y, *chain(*folds)]):
        found = search(partial(accuracy, marker=str(marker)))
    assert marker.exists()
    scores = "mean_test_score"
    np.testing.assert_array_equal(found.cv_results_[scores], expected.cv_results_[scores])
    assert found.best_params_ == expected.best_params_
    np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))


def model(messages):
    """Stands for a language model."""
    content = messages[-1]["content"]
    codes = dict(line.split(": ")[::-1] for line in content.splitlines() if line[1:3] == ": ")
    said = content.splitlines()[-1]
    return next(codes[label] for label in CLASSES if label in said)


def labelled(part, cache):
    """As the documentation of the module has it."""
    if part.empty:
        return part.assign(llm=part["text"], calls=0)
    annotator = LLMAnnotator(CLASSES, model, prompts=bank(), cache=cache, token_budget=10**6)
    labels = annotator.fit(part).predict(part)
    return part.assign(llm=labels, calls=annotator.usage_["calls"])


def test_dask_partitions_are_annotated_once(dask, tmp_path):
    dd = pytest.importorskip("dask.dataframe")
    X = utterances(40).assign(text=lambda X: X["text"].astype("string[pyarrow]"))
    ddf = dd.from_pandas(X, npartitions=4).shuffle("dialogue_id", npartitions=2)
    meta = X[:0].assign(llm=X["text"][:0], calls=0)
    annotate = partial(labelled, cache=str(tmp_path / "answers.sqlite"))
    first, second = (ddf.map_partitions(annotate, meta=meta).compute() for _ in range(2))
    for result in (first, second):
        assert result.sort_index()["llm"].tolist() == right(X)
    assert first.groupby("llm")["calls"].max().sum() > 0 and second["calls"].max() == 0


# -- Ray ----------------------------------------------------------------------------------------


def count_loads():
    """In each process that Ray starts: a line for each model that it loads."""
    load = OnnxDialogueClassifier.load

    def counted(path, **options):
        with open(os.environ["DIALPREF_TEST_LOADS"], "a") as file:
            file.write(f"{os.getpid()}\n")
        return load(path, **options)

    OnnxDialogueClassifier.load = counted


@pytest.fixture(scope="module")
def loads(tmp_path_factory):
    return tmp_path_factory.mktemp("loads") / "pids"


@pytest.fixture(scope="module")
def ray(loads):
    """Two processors, in a quiet cluster of this machine."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    # a process is set up before it can import tests
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIALPREF_TEST_LOADS", str(loads))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="critical",
            object_store_memory=200 * 2**20,
            runtime_env={"worker_process_setup_hook": count_loads},
        )
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.default_hash_shuffle_parallelism = 16
        yield ray
        ray.shutdown()


def test_ray(ray, exported, loads):
    X = shuffled_table(100_000)
    parts = [X[start : start + 9000] for start in range(0, len(X), 9000)]
    ds = ray.data.from_pandas([X[:0], *parts, X[:0]])
    result = predict_ray(ds, exported, "proba", concurrency=2).to_pandas()
    np.testing.assert_array_equal(result["other"], X["other"])
    check_proba(result, exported, X)
    assert result.columns[: X.shape[1]].tolist() == X.columns.tolist()
    pids = loads.read_text().split()
    assert len(set(pids)) == len(pids) and 1 <= len(pids) <= 2


def test_ray_without_context_and_without_rows(ray, without_context, X):
    ds = ray.data.from_pandas([X[:0], X[:300], X[:0], X[300:]])
    result = predict_ray(ds, without_context, concurrency=2).to_pandas()
    expected = OnnxDialogueClassifier.load(without_context).predict(X)
    np.testing.assert_array_equal(result["label"], expected)
    np.testing.assert_array_equal(result["other"], X["other"])
    with pytest.raises(ValueError, match=r"Dataset of ray.*to_pandas\(\).*predict_ray"):
        OnnxDialogueClassifier.load(without_context).predict(ds)


# -- Spark --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spark():
    sql = pytest.importorskip("pyspark.sql")
    options = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.sql.shuffle.partitions": "4",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)  # its workers would take the first in PATH
        try:
            session = sql.SparkSession.builder.master("local[2]").config(map=options).getOrCreate()
        except Exception as error:  # pyspark's own, or Java's
            pytest.skip(f"no Java that runs Spark: {error}")
        session.sparkContext.setLogLevel("OFF")
        yield session
        session.stop()


def spark_table(spark, X):
    return spark.createDataFrame(X.to_dict("records"))


@pytest.mark.parametrize("dropped", [[], ["turn"]])
def test_spark(spark, exported, X, dropped):
    X = X.drop(columns=dropped)
    result = predict_spark(spark_table(spark, X), exported, "proba")
    rows = pd.DataFrame([row.asDict() for row in result.collect()])
    check_proba(rows.set_index("other").loc[X["other"]], exported, X)


def test_spark_without_context_leaves_rows_where_they_are(spark, without_context, X):
    df = spark_table(spark, X)
    result = predict_spark(df, without_context)
    assert result.columns == [*df.columns, "label"]
    rows = result.collect()
    assert [row["other"] for row in rows] == X["other"].tolist()
    expected = OnnxDialogueClassifier.load(without_context).predict(X)
    assert [row["label"] for row in rows] == expected.tolist()


def test_spark_without_rows(spark, exported, X):
    df = spark_table(spark, X).limit(0)
    result = predict_spark(df, exported, "proba")
    assert result.collect() == [] and result.schema[-1].dataType.typeName() == "double"
    with pytest.raises(ValueError, match=r"DataFrame of pyspark.*toPandas\(\).*predict_spark"):
        OnnxDialogueClassifier.load(exported).predict(df)


def test_spark_sends_a_path(exported):
    from sklearn_dialpref.distributed.on_spark import PredictBatches

    assert len(pickle.dumps(PredictBatches(DialoguePredictor(exported), True))) < 500


# -- polars -------------------------------------------------------------------------------------


def test_polars(exported, monkeypatch):
    pl = pytest.importorskip("polars", minversion="1.34")
    monkeypatch.setattr("sklearn_dialpref.distributed.on_polars.BATCH_ROWS", 500)
    X = pl.from_pandas(shuffled_table(2000).sort_values("other"))
    parts = list(predict_polars(X.lazy(), exported, "proba"))
    assert len(parts) > 3
    result = pl.concat(parts)
    assert result[:, : X.width].equals(X)
    check_proba(result, exported, X)


@pytest.mark.filterwarnings("ignore:X lacks utterances")
def test_polars_refuses_dialogues_that_are_apart(exported, X, monkeypatch):
    pl = pytest.importorskip("polars", minversion="1.34")
    monkeypatch.setattr("sklearn_dialpref.distributed.on_polars.BATCH_ROWS", 100)
    with pytest.raises(ValueError, match=r"do not stand together.*sort"):
        list(predict_polars(pl.from_pandas(X).lazy(), exported))


def test_polars_without_context_and_without_rows(without_context, X):
    pl = pytest.importorskip("polars", minversion="1.34")
    lf = pl.from_pandas(X).lazy()
    result = pl.concat(predict_polars(lf, without_context))
    expected = OnnxDialogueClassifier.load(without_context).predict(X)
    assert result["label"].to_list() == expected.tolist()
    (none,) = predict_polars(lf.filter(pl.col("turn") < 0), without_context)
    assert none.schema == result.schema and not len(none)

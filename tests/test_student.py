"""Text encoders: where they come from, what is trained, and what is encoded how often."""

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import students
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import Pipeline

from sklearn_dialpref import DialoguePreferenceClassifier, LabelledGroupKFold
from sklearn_dialpref._student.encoders import (
    TextEncoder,
    _packaged_default,
    load_encoder,
    resolve_encoder,
)
from sklearn_dialpref._student.frozen import _LOADED, _STORES, FrozenEncoder
from sklearn_dialpref._student.student import Dropout, Student
from sklearn_dialpref._training.train import train_student
from sklearn_dialpref.datasets import make_dialogues

FIT = "sklearn_dialpref._training.fit"


@pytest.fixture(scope="module")
def chats():
    return make_dialogues(n_dialogues=16, n_turns=(3, 6), human_fraction=0.6, random_state=0)


student = partial(students.student, max_epochs=1, trainable_layers=None)


def test_the_packaged_default_is_found_and_verified(tmp_path, monkeypatch):
    folder = resolve_encoder("sentence-transformers/all-MiniLM-L6-v2")
    assert (folder / "model.safetensors").exists()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"tampered")

    class Spec:
        origin = str(tmp_path / "__init__.py")

    find_spec = "sklearn_dialpref._student.encoders.find_spec"
    monkeypatch.setattr(find_spec, lambda name: Spec)
    _packaged_default.cache_clear()
    with pytest.raises(OSError, match="sha256"):
        resolve_encoder("sentence-transformers/all-MiniLM-L6-v2")
    monkeypatch.setattr(find_spec, lambda name: None)
    with pytest.raises(OSError, match="was not found"):
        resolve_encoder("sentence-transformers/all-MiniLM-L6-v2")
    _packaged_default.cache_clear()


@pytest.mark.parametrize("name", ["nobody/no-such-model", "not a name!"])
def test_a_model_that_is_not_reachable(name, chats):
    with pytest.raises(OSError, match=r"not found.*precomputed"):
        student(name).fit(chats.X, chats.y_human)


def test_a_folder_without_a_model(tmp_path, chats):
    with pytest.raises(OSError, match="does not hold"):
        student(str(tmp_path)).fit(chats.X, chats.y_human)


@pytest.mark.parametrize("trainable_layers", [0, 1, None])
def test_what_is_trained(tiny_encoder, chats, trainable_layers):
    clf = student(tiny_encoder, trainable_layers=trainable_layers)
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    assert np.isfinite(clf.predict_proba(chats.X)).all()
    before = load_encoder(tiny_encoder).state_dict()
    encoder = clf._frozen.text_encoder if trainable_layers == 0 else clf.net_.module_.encoder
    changed = {n for n, w in encoder.model.state_dict().items() if not torch.equal(w, before[n])}
    if trainable_layers == 0:
        assert not changed
    elif trainable_layers == 1:
        assert changed
        assert all("layer.1." in name for name in changed)
    else:
        assert any("embeddings" in name for name in changed)


# -- what the head sees ---------------------------------------------------------------------


@pytest.mark.parametrize("trainable_layers", [0, 1])
@pytest.mark.parametrize("schedule", ["pretrain_finetune", "joint"])
def test_the_pooling_that_serves_held_out_labels_is_kept(
    tiny_encoder, chats, schedule, trainable_layers, tmp_path, monkeypatch
):
    losses = {}

    def spy(*args, **options):
        trained = train_student(*args, **options)
        losses[len(args[0].mean)] = trained.unseen_loss
        return trained

    monkeypatch.setattr(f"{FIT}.train_student", spy)
    auto = student(
        tiny_encoder, trainable_layers=trainable_layers, schedule=schedule, pooling="auto"
    )
    auto.fit(chats.X, chats.y_human, chats.y_llm)
    assert sorted(losses) == [32, 96] and np.isfinite(list(losses.values())).all()
    assert auto.pooling_ == ("layers" if losses[96] <= losses[32] else "model")
    expected = auto.predict_proba(chats.X)
    if schedule == "pretrain_finetune":  # others have no folds where nothing is to be chosen
        plain = clone(auto).set_params(pooling=auto.pooling_)
        plain.fit(chats.X, chats.y_human, chats.y_llm)
        assert plain.pooling_ == plain.pooling
        np.testing.assert_array_equal(plain.predict_proba(chats.X), expected)
    auto.save(tmp_path / "auto")
    loaded = DialoguePreferenceClassifier.load(tmp_path / "auto")
    assert (loaded.pooling, loaded.pooling_) == ("auto", auto.pooling_)
    np.testing.assert_allclose(loaded.predict_proba(chats.X), expected, atol=1e-6)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(auto)).predict_proba(chats.X), expected
    )


@pytest.mark.parametrize("better", ["layers", "model"])
def test_either_pooling_can_be_kept(tiny_encoder, chats, better, monkeypatch):
    def rigged(model, *args, **options):
        wide = len(model.mean) == 96
        trained = train_student(model, *args, **options)
        return replace(trained, unseen_loss=float(wide != (better == "layers")))

    monkeypatch.setattr(f"{FIT}.train_student", rigged)
    y_several = np.stack([chats.y_true == c for c in np.unique(chats.y_true)], axis=1).astype(
        float
    )
    for labels in [(chats.y_human, None), (y_several, y_several), (None, chats.y_llm)]:
        auto = student(tiny_encoder, trainable_layers=0, pooling="auto").fit(chats.X, *labels)
        assert auto.pooling_ == better
        assert len(auto.net_.module_.mean) == (96 if better == "layers" else 32)
        assert auto.predict_proba(chats.X).shape == (len(chats.X), 3)


def test_without_held_out_labels_the_head_sees_the_layers(tiny_encoder, chats):
    assert (
        student(tiny_encoder, trainable_layers=0, pooling="auto")
        .fit(chats.X, None, chats.y_llm)
        .pooling_
        == "layers"
    )


def weights_of(clf):
    return {name: w.clone() for name, w in clf.net_.module_.encoder.model.state_dict().items()}


def test_an_encoder_goes_part_of_the_way_to_the_human_labels(tiny_encoder, chats, monkeypatch):
    fitted = {}
    for share in (0.0, 0.5, 1.0):
        monkeypatch.setattr("sklearn_dialpref._training.train.SHARES", (share,))
        fitted[share] = student(tiny_encoder).fit(chats.X, chats.y_human, chats.y_llm)
        assert fitted[share].human_weight_ == share
        assert [row["stage"] for row in fitted[share].history_] == ["pretrain", "finetune"]
    none, half, all_the_way = map(weights_of, fitted.values())
    moved = [name for name in none if not torch.equal(none[name], all_the_way[name])]
    assert moved
    for name in moved:
        torch.testing.assert_close(half[name], (none[name] + all_the_way[name]) / 2)


def test_an_encoder_does_not_learn_from_a_useless_teacher(tiny_encoder, chats, monkeypatch):
    alone = student(tiny_encoder).fit(chats.X, chats.y_human)
    monkeypatch.setattr(
        "sklearn_dialpref._training.train.teacher_is_useless", lambda rows, chosen, logits: True
    )
    known = pd.notna(pd.Series(chats.y_human, dtype=object)).to_numpy()
    y_llm = np.where(known[:, None], np.asarray(chats.y_llm, dtype=object), None)
    with pytest.warns(UserWarning, match="left out"):
        clf = student(tiny_encoder).fit(chats.X, chats.y_human, y_llm)
    assert [row["stage"] for row in clf.history_] == ["finetune"]
    weights = weights_of(clf)
    for name, weight in weights_of(alone).items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=0)


def test_bfloat16_in_training_only_and_where_it_is_fast(tiny_encoder, chats, monkeypatch):
    seen = []

    def forward(encoder, tokens):
        on = torch.is_autocast_enabled("cpu")
        seen.append((encoder.training, on and torch.get_autocast_dtype("cpu")))
        return original(encoder, tokens)

    original = TextEncoder.forward
    monkeypatch.setattr(TextEncoder, "forward", forward)
    for fast in (True, False):
        monkeypatch.setattr(
            "sklearn_dialpref._student.student.fast_bfloat16", lambda device, fast=fast: fast
        )
        seen.clear()
        clf = student(tiny_encoder, schedule="joint")
        proba = clf.fit(chats.X, chats.y_human, chats.y_llm).predict_proba(chats.X)
        assert np.isfinite(proba).all()
        assert {dtype for training, dtype in seen if training} == {fast and torch.bfloat16}
        assert {dtype for training, dtype in seen if not training} == {False}


def test_too_many_layers(tiny_encoder, chats):
    with pytest.raises(ValueError, match="has 2 transformer layers"):
        student(tiny_encoder, trainable_layers=3).fit(chats.X, chats.y_human)


def static_embeddings(tiny_encoder):
    tokenizer = load_encoder(tiny_encoder).tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        embedding = StaticEmbedding(tokenizer, embedding_dim=16)
    return SentenceTransformer(modules=[embedding], device="cpu")


@pytest.mark.parametrize("trainable_layers", [0, None])
def test_static_embeddings_as_an_object(tiny_encoder, chats, trainable_layers):
    static = static_embeddings(tiny_encoder)
    before = {name: weight.clone() for name, weight in static.state_dict().items()}
    clf = student(static, trainable_layers=trainable_layers)
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    assert np.isfinite(clf.predict_proba(chats.X)).all()
    assert all(torch.equal(weight, before[name]) for name, weight in static.state_dict().items())


def test_fine_tuning_does_not_depend_on_the_row_order(tiny_encoder, chats):
    y_human, y_llm = np.asarray(chats.y_human, dtype=object), np.asarray(chats.y_llm)
    order = np.random.RandomState(0).permutation(len(chats.X))
    clf = student(tiny_encoder, context_turns=1)
    expected = clf.fit(chats.X, y_human, y_llm).predict_proba(chats.X)
    shuffled = clone(clf).fit(chats.X.iloc[order], y_human[order], y_llm[order])
    np.testing.assert_array_equal(shuffled.predict_proba(chats.X), expected)
    found = clf.predict_proba(chats.X.iloc[order])
    np.testing.assert_array_equal(found, expected[order])


def test_each_text_is_encoded_once_in_a_search(tiny_encoder, chats, monkeypatch):
    _STORES.clear()
    seen = []
    embed = TextEncoder.embed

    def counting(self, texts, *others):
        seen.extend(texts)
        return embed(self, texts, *others)

    monkeypatch.setattr(TextEncoder, "embed", counting)
    search = GridSearchCV(
        student(tiny_encoder, trainable_layers=0),
        {"loss": ["noise_reduced", "hinge"]},
        cv=LabelledGroupKFold(2),
        error_score="raise",
    )
    search.fit(chats.X, chats.y_human, y_llm=chats.y_llm)
    assert sorted(seen) == sorted(set(chats.X["text"]))


def test_settings_of_an_object_are_part_of_what_is_remembered(tiny_encoder):
    texts = ["hello hello parcel late", "thanks"]
    plain, short, first, prompted = (load_encoder(tiny_encoder) for _ in range(4))
    short.max_seq_length = 4
    first[1] = type(first[1])(32, pooling_mode="cls")
    prompted.prompts, prompted.default_prompt_name = {"ask": "where is "}, "ask"
    for model in (plain, short, first, prompted):
        found = FrozenEncoder(model, "cpu").table(texts)[:]
        # the model's own embedding stands last, after those of three layers
        np.testing.assert_allclose(found[:, -32:], model.encode(texts), atol=1e-6)


def test_layers_are_pooled_over_the_tokens_of_each_text(tiny_encoder):
    texts = ["hello hello parcel late", "thanks"]
    model = load_encoder(tiny_encoder)
    tokens = model.preprocess(texts)
    own = load_encoder(tiny_encoder)[0].auto_model
    with torch.inference_mode():
        hidden = own(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            output_hidden_states=True,
        ).hidden_states
    mask = tokens["attention_mask"][..., None]
    encoder = TextEncoder(model)
    found = encoder.embed(texts)
    n_layers = len(hidden) - 1
    places = np.unique(np.linspace(0, n_layers, 4).round().astype(int))[:-1]
    assert found.shape == (2, 32 * (len(places) + 1)) == (2, encoder.n_outputs)
    for number, place in enumerate(places):
        mean = (hidden[place] * mask).sum(1) / mask.sum(1)
        unit = (mean / mean.norm(dim=1, keepdim=True)).numpy()
        np.testing.assert_allclose(found[:, 32 * number :][:, :32], unit, atol=1e-6)
    np.testing.assert_allclose(
        TextEncoder(load_encoder(tiny_encoder), pooling="model").embed(texts),
        found[:, -32:],
        atol=1e-6,
    )


def test_few_encoders_stay_loaded(tiny_encoder):
    for pooling, layers in [("layers", None), ("model", None), ("layers", 1), ("model", 1)]:
        FrozenEncoder(tiny_encoder, "cpu", pooling, encoder_layers=layers)
    assert len(_LOADED) == 2


@pytest.mark.parametrize("pooling", ["layers", "model"])
def test_the_first_layers_are_kept(tiny_encoder, pooling):
    texts = ["hello hello parcel late", "thanks"]
    model = load_encoder(tiny_encoder)
    tokens = model.preprocess(texts)
    with torch.inference_mode():
        embedded, own, _ = (
            model[0]
            .auto_model(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                output_hidden_states=True,
            )
            .hidden_states
        )
    mask = tokens["attention_mask"][..., None]
    lower, expected = ((state * mask).sum(1) / mask.sum(1) for state in (embedded, own))
    if pooling == "layers":
        expected = torch.cat([torch.nn.functional.normalize(lower, dim=1), expected], dim=1)
    whole = FrozenEncoder(tiny_encoder, "cpu", pooling).table(texts)[:]
    for encoder in (tiny_encoder, model):  # neither is taken for the other number of layers
        found = FrozenEncoder(encoder, "cpu", pooling, encoder_layers=1).table(texts)[:]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
        again = FrozenEncoder(encoder, "cpu", pooling).table(texts)[:]
        np.testing.assert_allclose(again, whole, atol=1e-6)
    assert not np.allclose(whole[:, -32:], found[:, -32:], atol=1e-2)


@pytest.mark.parametrize("trainable_layers", [0, 1, None])
def test_a_student_of_fewer_layers(tiny_encoder, chats, trainable_layers):
    encoder = load_encoder(tiny_encoder)
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    clf = student(encoder, trainable_layers=trainable_layers, encoder_layers=1)
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    own = clf._text_encoder.model
    assert own[0].auto_model.config.num_hidden_layers == 1
    assert set(own.state_dict()) == {name for name in before if "layer.1." not in name}
    changed = {n for n, w in own.state_dict().items() if not torch.equal(w, before[n])}
    if trainable_layers == 1:
        assert changed
        assert all("layer.0." in name for name in changed)
    else:
        assert bool(changed) == (trainable_layers is None)
    # the user's object is as it was
    assert encoder[0].auto_model.config.num_hidden_layers == 2
    after = encoder.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    by_name = clone(clf).set_params(encoder=tiny_encoder)
    by_name.fit(chats.X, chats.y_human, chats.y_llm)
    np.testing.assert_allclose(
        by_name.predict_proba(chats.X), clf.predict_proba(chats.X), atol=1e-5
    )


def test_as_many_layers_as_there_are(tiny_encoder, chats):
    clf = student(tiny_encoder, trainable_layers=0).fit(chats.X, chats.y_human)
    every = student(tiny_encoder, trainable_layers=0, encoder_layers=2).fit(chats.X, chats.y_human)
    np.testing.assert_array_equal(every.predict_proba(chats.X), clf.predict_proba(chats.X))


def test_layers_that_cannot_be_kept(tiny_encoder, chats):
    def fit(encoder=tiny_encoder, trainable_layers=0, encoder_layers=1):
        clf = student(encoder, trainable_layers=trainable_layers, encoder_layers=encoder_layers)
        clf.fit(chats.X, chats.y_human)

    for trainable_layers in (0, None):
        with pytest.raises(ValueError, match=r"encoder_layers=3 but .* has 2 .*; use fewer"):
            fit(trainable_layers=trainable_layers, encoder_layers=3)
    with pytest.raises(ValueError, match=r"trainable_layers=2 but the encoder has 1 trans"):
        fit(trainable_layers=2)
    with pytest.raises(ValueError, match=r"no transformer layers.*a StaticEmbedding; use enc"):
        fit(static_embeddings(tiny_encoder))
    with pytest.raises(ValueError, match="'encoder_layers' parameter"):
        fit(encoder_layers=0)


def test_layers_of_precomputed_features_are_ignored():
    X, y = [[0.0], [1.0], [0.0], [1.0]], ["no", "yes", "no", "yes"]
    clf = student("precomputed", encoder_layers=7).fit(X, y)
    expected = student("precomputed").fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)


def of_transformer(config, tiny_encoder, folder):
    """A SentenceTransformer around a random transformer."""
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    load_encoder(tiny_encoder).tokenizer.save_pretrained(folder)
    return SentenceTransformer(modules=[Transformer(str(folder)), Pooling(32)], device="cpu")


SMALL = {"vocab_size": 41, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


def test_settings_by_layer_are_cut_too(tiny_encoder, tmp_path):
    from transformers import ModernBertConfig

    special = dict.fromkeys(("bos_token_id", "cls_token_id"), 2)
    special |= {**dict.fromkeys(("eos_token_id", "sep_token_id"), 3), "pad_token_id": 0}
    config = ModernBertConfig(num_hidden_layers=4, **SMALL, **special)
    kept = load_encoder(of_transformer(config, tiny_encoder, tmp_path / "modern"), 2)
    kept.save(str(tmp_path / "kept"), create_model_card=False)
    again = load_encoder(tmp_path / "kept")
    assert again[0].auto_model.config.layer_types == config.layer_types[:2]
    texts = ["hello parcel", "thanks"]
    expected = TextEncoder(kept).embed(texts)
    np.testing.assert_array_equal(TextEncoder(again).embed(texts), expected)


def test_layers_that_are_not_one_stack(tiny_encoder, tmp_path):
    from transformers import AlbertConfig, XLMConfig

    shared = AlbertConfig(num_hidden_layers=4, embedding_size=16, **SMALL)
    parallel = XLMConfig(vocab_size=41, emb_dim=32, n_layers=4, n_heads=2)
    for config in (shared, parallel):
        model = of_transformer(config, tiny_encoder, tmp_path / config.model_type)
        with pytest.raises(ValueError, match=r"encoder_layers=2 but \w+Model cannot be cut"):
            load_encoder(model, 2)


def test_layers_that_are_pooled_together(tiny_encoder):
    from sentence_transformers.sentence_transformer.modules import WeightedLayerPooling

    transformer, pooling = load_encoder(tiny_encoder)
    modules = [transformer, WeightedLayerPooling(32, num_hidden_layers=2, layer_start=0), pooling]
    with pytest.raises(ValueError, match=r"BertModel cannot be cut.*pooled"):
        load_encoder(SentenceTransformer(modules=modules, device="cpu"), 1)


def test_a_longer_list_inside_a_layer_is_not_taken_for_the_layers(tiny_encoder):
    model = load_encoder(tiny_encoder)
    experts = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(3))
    model[0].auto_model.encoder.layer[0].experts = experts
    encoder = TextEncoder(load_encoder(model, 1), 1)
    assert encoder.embed(["hello"]).shape == (1, 64)
    trained = {name for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert len(trained) == len(list(model[0].auto_model.encoder.layer[0].parameters()))


def test_hidden_states_that_are_not_by_text_and_token_are_refused(tiny_encoder):
    encoder = TextEncoder(load_encoder(tiny_encoder))
    encoder.states[0].pop = lambda: torch.zeros(3, 32)
    with pytest.raises(ValueError, match="pooling='model'"):
        encoder.embed(["hello", "late parcel"])


def test_an_object_with_a_scalar_buffer(tiny_encoder):
    model = load_encoder(tiny_encoder)
    model.register_buffer("temperature", torch.tensor(1.0))
    assert FrozenEncoder(model, "cpu").table(["hi"])[:].shape == (1, 96)


@pytest.mark.parametrize("files", [["config.json"], ["modules.json"], ["a.safetensors"]])
def test_a_part_of_a_model_in_the_hub_cache_is_passed_over(tmp_path, monkeypatch, files):
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    assert resolve_encoder("sentence-transformers/all-MiniLM-L6-v2") != tmp_path


def test_a_whole_model_in_the_hub_cache_is_taken(tiny_encoder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: tiny_encoder)
    assert str(resolve_encoder("sentence-transformers/all-MiniLM-L6-v2")) == tiny_encoder


def test_context(tiny_encoder, chats):
    clf = student(tiny_encoder, trainable_layers=0, context_turns=1)
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    plain = student(tiny_encoder, trainable_layers=0).fit(chats.X, chats.y_human, chats.y_llm)
    assert not np.allclose(clf.predict_proba(chats.X), plain.predict_proba(chats.X))
    framed = chats.X.assign(context="hello")
    with pytest.raises(ValueError, match="column 'context'"):
        clf.predict(framed)
    with_column = clone(plain).fit(framed, chats.y_human, chats.y_llm)
    with pytest.raises(ValueError, match="was fitted with"):
        with_column.predict(chats.X)
    with pytest.raises(ValueError, match="was fitted without"):
        plain.predict(framed)


def test_quiet_unless_asked(tiny_encoder, chats, capfd, recwarn):
    student(tiny_encoder).fit(chats.X, chats.y_human, chats.y_llm).predict(chats.X)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    student(tiny_encoder, verbose=1).fit(chats.X, chats.y_human, chats.y_llm)
    assert "finetune" in capfd.readouterr().err


@pytest.mark.parametrize("trainable_layers", [0, None])
def test_pickle(tiny_encoder, chats, trainable_layers):
    clf = student(tiny_encoder, trainable_layers=trainable_layers)
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    loaded = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(loaded.predict_proba(chats.X), clf.predict_proba(chats.X))
    assert "DialoguePreferenceClassifier" in clf._repr_html_()


@pytest.mark.parametrize(
    ("routing", "n_jobs"), [(False, 1), pytest.param(True, 2, marks=pytest.mark.slow)]
)
def test_search_and_pipeline(tiny_encoder, chats, routing, n_jobs):
    clf = student(tiny_encoder, trainable_layers=0)
    pipeline = Pipeline([("clf", clf)])
    with config_context(enable_metadata_routing=routing):
        search = GridSearchCV(
            clf, {"margin_scale": [1, 2]}, cv=LabelledGroupKFold(2), n_jobs=n_jobs
        )
        search.fit(chats.X, chats.y_human, y_llm=chats.y_llm)
        assert 0 <= search.best_score_ <= 1
        extra = {"y_llm" if routing else "clf__y_llm": chats.y_llm}
        pipeline.fit(chats.X, chats.y_human, **extra)
        scores = cross_validate(
            clf,
            chats.X,
            chats.y_human,
            cv=LabelledGroupKFold(2),
            params={"y_llm": chats.y_llm},
            error_score="raise",
        )
    assert set(pipeline.predict(chats.X)) <= set(chats.classes)
    assert len(scores["test_score"]) == 2


def test_polars_in_a_search(tiny_encoder, chats):
    polars = pytest.importorskip("polars")
    clf = student(tiny_encoder, trainable_layers=0)
    search = GridSearchCV(clf, {"margin_scale": [1]}, cv=LabelledGroupKFold(2))
    search.fit(polars.from_pandas(chats.X), chats.y_human, y_llm=chats.y_llm)
    assert set(search.predict(polars.from_pandas(chats.X))) <= set(chats.classes)


def test_meta_estimators_on_labelled_rows(tiny_encoder, chats):
    clf = student(tiny_encoder, trainable_layers=0)
    calibrated = CalibratedClassifierCV(clf, cv=LabelledGroupKFold(2), ensemble=False)
    calibrated.fit(chats.X, chats.y_true)
    assert calibrated.predict_proba(chats.X).shape == (len(chats.X), 3)
    voting = VotingClassifier([("a", clf), ("b", clone(clf))], voting="soft")
    assert len(voting.fit(chats.X, chats.y_true).predict(chats.X)) == len(chats.X)


def test_set_output_in_a_pipeline():
    from sklearn.preprocessing import StandardScaler

    data = make_dialogues(n_dialogues=10, n_features=3, random_state=0)
    features = data.X.drop(columns="dialogue_id")
    pipeline = Pipeline([("scale", StandardScaler()), ("clf", student("precomputed"))])
    pipeline.set_output(transform="pandas").fit(features, data.y_true)
    assert list(pipeline[-1].feature_names_in_) == list(features.columns)


def test_import_brings_no_torch():
    code = "import sys, sklearn_dialpref; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_text_and_features_are_not_mixed_up(tiny_encoder, chats):
    with pytest.raises(ValueError, match="wants text"):
        student(tiny_encoder).fit(np.zeros((4, 3)), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="wants features"):
        student("precomputed").fit(["hi", "hello"], [0, 1])
    texts = pd.Series(["hi", "hello", "thanks", "late"])
    with pytest.raises(ValueError, match="no pairs"):
        student(tiny_encoder, loss="noise_reduced").fit(texts, [0, 1, 0, 1], [0, 1, 0, 1])
    clf = student(tiny_encoder).fit(texts, [0, 1, 0, 1])
    assert len(clf.predict(["hi"])) == 1


def test_half_of_the_inputs_are_dropped():
    drop, inputs = Dropout(0.5), torch.ones(300, 320, requires_grad=True)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        once, again = drop(inputs), drop(inputs)
        torch.random.default_generator.manual_seed(0)
        torch.testing.assert_close(drop(inputs), once)
    assert set(once.unique().tolist()) == {0.0, 2.0}
    each_byte = once.view(-1, 8)  # of a drawn number, the one with its sign too
    assert (each_byte.mean(dim=0) - 1).abs().max() < 4 / len(each_byte) ** 0.5
    for other in (again, once.roll(1, 1), once.roll(1, 0)):  # independent
        assert abs(float((once * other).detach().mean()) - 1) < 4 * 3**0.5 / inputs.numel() ** 0.5
    once.sum().backward()
    torch.testing.assert_close(inputs.grad, once.detach())
    assert drop.eval()(inputs) is inputs


def changed(folder, tmp_path, name, **entries):
    """A copy of an encoder with a JSON file that has other entries."""
    copy = shutil.copytree(folder, tmp_path / "encoder", dirs_exist_ok=True)
    file = copy / name
    content = json.loads(file.read_text()) if file.exists() else {}
    file.parent.mkdir(exist_ok=True)
    if isinstance(content, list):
        content[0].update(entries)
    else:
        content.update(entries)
    file.write_text(json.dumps(content))
    return copy


@pytest.mark.parametrize(
    ("name", "entries", "message"),
    [
        ("modules.json", {"type": "subprocess.Popen"}, r"names 'subprocess\.Popen'"),
        ("modules.json", {"type": "sentence_transformers.SentenceTransformer"}, "is not one of"),
        ("modules.json", {"type": "sentence_transformers.models.Router"}, "is not one of"),
        ("modules.json", {"path": "../elsewhere"}, "lies elsewhere"),
        ("sentence_bert_config.json", {"trust_remote_code": True}, "options that are not read"),
        ("sentence_bert_config.json", {"model_args": {"attn_implementation": "a/b"}}, "not read"),
        ("sentence_bert_config.json", {"tokenizer_name_or_path": "/etc"}, "not read"),
        ("2_Dense/config.json", {"activation_function": "pytest.main"}, "is not of torch.nn"),
        ("config.json", {"_attn_implementation": "evil/kernel:fn"}, "would be fetched"),
        ("model.safetensors.index.json", {"weight_map": {"w": "../w.safetensors"}}, "elsewhere"),
    ],
)
def test_encoder_files_that_ask_for_other_code(tiny_encoder, tmp_path, name, entries, message):
    folder = changed(tiny_encoder, tmp_path, name, **entries)
    with pytest.raises(OSError, match=message):
        load_encoder(folder)


def test_encoder_files_as_they_are_written(tiny_encoder, tmp_path):
    model = load_encoder(tiny_encoder)
    model.save(str(tmp_path / "again"), create_model_card=False)
    assert load_encoder(tmp_path / "again") is not None


def test_columns_that_are_constant_but_for_rounding():
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32))
    constant = [0.3 + 3e-8 * noise, 0 * noise, 1.7e9 + 0 * noise]
    others = [noise, 1e-4 * noise, 1.7e9 + 2000 * noise, 1e4 + 0.01 * noise]
    features = torch.cat([*constant, *others], dim=1)
    student = Student(7, 2, width=128)
    student.standardise_by(features)
    found = student.standardised(features)
    assert (student.scale[:2] == 1).all() and found[:, :3].abs().max() < 1e-6
    spread = found[:, 3:].std(dim=0, correction=0)
    torch.testing.assert_close(spread, torch.ones(4), rtol=0.05, atol=0)

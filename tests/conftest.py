"""Shared fixtures; the Hugging Face hub is never asked."""

import os
import shutil
import signal

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

WORDS = ["hi", "hello", "parcel", "late", "thanks", "refund", "where", "is", "my", "the"]
BROWSERS = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small products are faster on one thread than on several."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def on_the_processor():
    """Only tests that ask for the GPU see one, as it draws and rounds in its own way."""
    import torch

    is_available = torch.cuda.is_available
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield is_available


@pytest.fixture
def gpu(on_the_processor, monkeypatch):
    """The GPU's name, in tests that are skipped where there is none."""
    import torch

    if not on_the_processor():
        pytest.skip("needs a GPU")
    monkeypatch.setattr(torch.cuda, "is_available", on_the_processor)
    return "cuda"


@pytest.fixture
def default_interrupts():
    """Python's own handler, also where the test run was started with SIGINT ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path_factory, monkeypatch):
    """Nothing that a test pays a stand-in for is kept for the next one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """Folder of a random BERT of two layers, 32 wide."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = {
        word: at for at, word in enumerate([*SPECIAL, *WORDS, *"abcdefghijklmnopqrstuvwxyz"])
    }
    tokenizer = BertTokenizerFast(vocab=vocabulary)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    model = SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu")
    model.save(str(folder / "model"))
    return str(folder / "model")


@pytest.fixture(scope="module")
def chats():
    """A few short dialogues."""
    from sklearn_dialpref.datasets import make_dialogues

    return make_dialogues(n_dialogues=12, n_turns=(3, 5), human_fraction=0.6, random_state=0)


@pytest.fixture(scope="module")
def classifier(tiny_encoder, chats):
    """Fitted on them, with a context of one utterance."""
    from sklearn_dialpref import DialoguePreferenceClassifier

    clf = DialoguePreferenceClassifier(tiny_encoder, context_turns=1, max_epochs=1, random_state=0)
    return clf.fit(chats.X, chats.y_human, chats.y_llm)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small saved classifier; copy it before you change it."""
    import numpy as np

    from sklearn_dialpref import DialoguePreferenceClassifier

    path = tmp_path_factory.mktemp("saved") / "clf"
    X, y = np.random.default_rng(0).normal(size=(30, 3)), ["no", "yes", "so-so"] * 10
    clf = DialoguePreferenceClassifier("precomputed", max_epochs=1, random_state=0).fit(X, y)
    clf.save(path, metrics={"accuracy on test dialogues": 0.75})
    return path


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.fixture(scope="module")
def browser():
    """A real one, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("needs a browser: apt-get install chromium-headless-shell")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()

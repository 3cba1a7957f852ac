"""The simulator, the synthetic dialogues and the bundled corpus."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_dialpref.datasets import load_support_chats, make_dialogues, simulate_votes

SILENT = {"class_bias": 0.0, "dialogue_bias": 0.0, "noise": 0.0, "vote_noise": 0.0}
ACTS = [
    "action",
    "apology",
    "closing",
    "complaint",
    "greeting",
    "inform",
    "question",
    "request",
    "thanks",
]
PINNED_VOTES = [
    ["negative", "negative", "negative", "negative", "negative"],
    ["neutral", "neutral", "neutral", "positive", "neutral"],
]
CLASSES = {"sentiment": ["negative", "neutral", "positive"], "act": ACTS}


@pytest.fixture
def utterances():
    """Return the labels and dialogues of 200 dialogues of 10 utterances."""
    y = np.random.RandomState(0).randint(3, size=2000)
    return y, np.repeat(np.arange(200), 10)


def majority(votes, classes):
    return np.asarray(classes)[(votes[:, :, None] == classes).sum(axis=1).argmax(axis=1)]


def error_correlation(y, groups, **scales):
    """Correlate the errors, per class, of the two utterances at the start of each dialogue."""
    votes = simulate_votes(y, groups, n_votes=1, random_state=1, **{**SILENT, **scales})
    excess = (votes == np.arange(3)).astype(float) - (y[:, None] == np.arange(3))
    starts = np.unique(groups, return_index=True)[1]
    return np.corrcoef(excess[starts].ravel(), excess[starts + 1].ravel())[0, 1]


# ---------------------------------------------------------------------------- simulate_votes


def test_votes_keep_shape_and_label_type():
    strings = simulate_votes(["b", "a", "b"], [0, 0, 1], n_votes=4, random_state=0)
    assert strings.shape == (3, 4)
    assert set(strings.ravel()) <= {"a", "b"}
    numbers = simulate_votes([3, 7, 3], ["x", "x", "y"], n_votes=1, random_state=0)
    assert numbers.shape == (3, 1)
    assert numbers.dtype.kind == "i"


def test_without_noise_all_votes_are_right(utterances):
    y, groups = utterances
    votes = simulate_votes(y, groups, **SILENT)
    assert_array_equal(votes, np.tile(y[:, None], 5))


def test_without_signal_votes_know_nothing(utterances):
    y, groups = utterances
    votes = simulate_votes(y, groups, signal=0, class_bias=0, dialogue_bias=0, random_state=0)
    assert np.mean(votes == y[:, None]) == pytest.approx(1 / 3, abs=0.03)


def test_class_bias_has_its_direction_everywhere(utterances):
    y, groups = utterances
    bias = {**SILENT, "class_bias": [0.0, 1.5, 0.0], "noise": 1.0}
    votes = simulate_votes(y, groups, signal=2.0, random_state=0, **bias)
    fair = simulate_votes(y, groups, signal=2.0, random_state=0, **{**bias, "class_bias": 0.0})
    assert np.mean(votes == 1) > np.mean(fair == 1) + 0.15
    assert np.mean(fair == 1) == pytest.approx(np.mean(y == 1), abs=0.02)


def test_random_class_bias_has_the_stated_scale(utterances):
    y, groups = utterances
    # with two classes a standard deviation of 1 is a gap of 2: it beats 1.9, not 2.1
    binary = y % 2
    only = {**SILENT, "class_bias": 1.0}
    beaten = simulate_votes(binary, groups, signal=1.9, random_state=0, **only)
    assert len(np.unique(beaten)) == 1
    right = simulate_votes(binary, groups, signal=2.1, random_state=0, **only)
    assert_array_equal(right[:, 0], binary)


def test_dialogue_bias_makes_errors_of_a_dialogue_alike(utterances):
    y, groups = utterances
    assert abs(error_correlation(y, groups, noise=1.5)) < 0.1
    assert error_correlation(y, groups, noise=1.5, dialogue_bias=2.0) > 0.2


def test_dialogue_bias_is_shared_by_interleaved_rows():
    y = np.zeros(600, dtype=int)
    groups = np.tile(np.arange(20), 30)
    votes = simulate_votes(
        y, groups, classes=[0, 1, 2], signal=0, random_state=0, **{**SILENT, "dialogue_bias": 1.0}
    )
    for dialogue in range(20):
        assert len(np.unique(votes[groups == dialogue])) == 1
    assert len(np.unique(votes)) == 3


def test_utterance_noise_is_shared_by_votes_and_vote_noise_is_not(utterances):
    y, groups = utterances
    together = simulate_votes(y, groups, random_state=0, **{**SILENT, "noise": 2.0})
    assert_array_equal(together, np.tile(together[:, :1], 5))
    assert 0.4 < np.mean(together == y[:, None]) < 0.9
    apart = simulate_votes(y, groups, random_state=0, **{**SILENT, "vote_noise": 1.0})
    assert np.mean(apart[:, 0] != apart[:, 1]) > 0.1
    # independent errors average out
    assert np.mean(majority(apart, np.arange(3)) == y) > np.mean(apart == y[:, None]) + 0.05


def test_vote_noise_is_a_sampling_temperature():
    y = np.zeros(20_000, dtype=int)
    votes = simulate_votes(
        y,
        y,
        classes=[0, 1, 2],
        n_votes=1,
        signal=1.0,
        random_state=0,
        **{**SILENT, "class_bias": [0.0, 0.5, 0.0], "vote_noise": 0.5},
    )
    expected = np.exp([2.0, 1.0, 0.0])
    shares = np.bincount(votes.ravel()) / len(y)
    assert_allclose(shares, expected / expected.sum(), atol=0.015)


def test_a_scale_leaves_the_other_draws_alone(utterances):
    y, groups = utterances
    noisy = {"random_state": 3, "vote_noise": 1.0, "class_bias": 0.0}
    base = simulate_votes(y, groups, dialogue_bias=0.0, **noisy)
    nudged = simulate_votes(y, groups, dialogue_bias=1e-9, **noisy)
    assert_array_equal(base, nudged)


def test_votes_follow_the_seed(utterances):
    y, groups = utterances
    first = simulate_votes(y, groups, random_state=0)
    assert_array_equal(first, simulate_votes(y, groups, random_state=0))
    assert np.any(first != simulate_votes(y, groups, random_state=1))


def test_classes_may_come_in_any_order_and_exceed_y():
    y = np.array(["no", "yes"] * 50)
    silent = simulate_votes(y, np.arange(100), classes=["yes", "maybe", "no"], **SILENT)
    assert_array_equal(silent[:, 0], y)
    bias = {**SILENT, "class_bias": [0.0, 9.0, 0.0]}
    biased = simulate_votes(y, np.arange(100), classes=["yes", "maybe", "no"], **bias)
    assert set(biased.ravel()) == {"maybe"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"classes": ["a", "c"]}, r"y has the labels \['b'\], which are not in classes"),
        ({"classes": ["a", "b", "a"]}, "classes has a label twice"),
        ({"y": ["a", "a", "a"]}, "at least 2 classes"),
        ({"groups": [0, 1]}, "inconsistent numbers of samples"),
        ({"n_votes": 0}, "n_votes == 0, must be >= 1"),
        ({"noise": -1}, "noise == -1, must be >= 0"),
        ({"noise": np.nan}, "noise must be a finite number >= 0, got nan"),
        ({"class_bias": -0.5}, "class_bias == -0.5, must be >= 0"),
        ({"class_bias": [1, 2, 3]}, r"class_bias has shape \(3,\) but there are 2 classes"),
        ({"class_bias": [1, np.inf]}, "class_bias must be finite"),
    ],
)
def test_bad_simulator_parameters(params, message):
    good = {"y": ["a", "b", "a"], "groups": [0, 0, 1]}
    with pytest.raises(ValueError, match=message):
        simulate_votes(**{**good, **params})


# ---------------------------------------------------------------------------- make_dialogues


@pytest.mark.parametrize("as_frame", [True, False])
def test_dialogues_of_text(as_frame):
    data = make_dialogues(12, n_turns=(3, 5), n_classes=4, random_state=0, as_frame=as_frame)
    n = len(data.X)
    assert data.X.shape == (n, 4 if as_frame else 2)
    assert data.y_true.shape == data.y_human.shape == data.groups.shape == (n,)
    assert data.y_llm.shape == (n, 5)
    assert data.y_llm_scores.shape == (n, 4)
    assert data.classes.tolist() == [f"class_{c}" for c in range(4)]
    assert set(data.y_true) <= set(data.classes)
    assert set(data.y_llm.ravel()) <= set(data.classes)
    sizes = np.unique(data.groups, return_counts=True)[1]
    assert len(sizes) == 12
    assert set(sizes) == {3, 4, 5}
    assert "12 dialogues" in data.DESCR


def test_frame_and_array_hold_the_same():
    frame = make_dialogues(8, random_state=0)
    array = make_dialogues(8, random_state=0, as_frame=False)
    assert frame.X.columns.tolist() == ["dialogue_id", "turn", "speaker", "text"]
    assert_array_equal(frame.X[["dialogue_id", "text"]].to_numpy(object), array.X)
    assert_array_equal(frame.X["dialogue_id"], frame.groups)
    for name in ("y_true", "y_human", "y_llm", "y_llm_scores"):
        assert_array_equal(np.asarray(frame[name]), array[name])
    assert frame.y_llm_scores.columns.tolist() == array.classes.tolist()


def test_turns_count_up_and_speakers_alternate():
    frame = make_dialogues(10, random_state=0).X
    for _, dialogue in frame.groupby("dialogue_id"):
        assert dialogue["turn"].tolist() == list(range(len(dialogue)))
        assert dialogue["speaker"].tolist()[:4] == ["customer", "agent", "customer", "agent"]


def test_scores_are_the_shares_of_votes():
    data = make_dialogues(20, random_state=0, as_frame=False)
    for column, label in enumerate(data.classes):
        assert_allclose(data.y_llm_scores[:, column], (data.y_llm == label).mean(axis=1))


def test_dialogues_of_features():
    frame = make_dialogues(10, n_features=3, random_state=0)
    assert frame.X.columns.tolist() == ["dialogue_id", "x0", "x1", "x2"]
    array = make_dialogues(10, n_features=3, random_state=0, as_frame=False)
    assert array.X.dtype == np.float64
    assert_array_equal(frame.X[["x0", "x1", "x2"]], array.X)
    assert_array_equal(frame.X["dialogue_id"], array.groups)


def test_separation_is_the_distance_of_the_feature_centres():
    near, far = (
        make_dialogues(
            400, n_features=5, n_classes=2, separation=s, random_state=0, as_frame=False
        )
        for s in (0.0, 3.0)
    )
    for data, length in ((near, 0.0), (far, 3.0)):
        for label in data.classes:
            rows = data.X[data.y_true == label]
            assert np.linalg.norm(rows.mean(axis=0)) == pytest.approx(length, abs=0.15)
            assert_allclose(rows.std(axis=0), 1, atol=0.1)


def test_text_shows_the_class_as_far_as_it_is_separated():
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    accuracy = {}
    for separation in (0.0, 2.0):
        train, test = (
            make_dialogues(100, separation=separation, random_state=seed, as_frame=False)
            for seed in (0, 1)
        )
        model = make_pipeline(CountVectorizer(), MultinomialNB())
        model.fit(train.X[:, 1], list(train.y_true))
        accuracy[separation] = model.score(test.X[:, 1], list(test.y_true))
    assert accuracy[0.0] < 0.42
    assert 0.75 < accuracy[2.0] < 0.99


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_human_labels_cover_whole_dialogues(fraction):
    data = make_dialogues(50, human_fraction=fraction, random_state=0, as_frame=False)
    labelled = np.array([label is not None for label in data.y_human])
    for dialogue in np.unique(data.groups):
        assert len(set(labelled[data.groups == dialogue])) == 1
    assert_array_equal(data.y_human[labelled], data.y_true[labelled])
    assert fraction <= labelled.mean() < fraction + 0.03
    if fraction == 0:
        assert not labelled.any()


def test_missing_human_labels_are_missing_to_pandas():
    data = make_dialogues(20, random_state=0)
    assert data.y_human.dtype == object
    assert 0 < data.y_human.notna().sum() < len(data.y_human)


@pytest.mark.parametrize("n_features", [None, 4])
def test_dialogues_follow_the_seed(n_features):
    def make(seed):
        return make_dialogues(15, n_features=n_features, random_state=seed, as_frame=False)

    first, same, other = make(0), make(0), make(1)
    for name in ("X", "y_true", "y_human", "y_llm", "y_llm_scores"):
        assert_array_equal(first[name], same[name])
    assert len(first.X) != len(other.X) or np.any(first.X != other.X)


def test_fixed_number_of_turns():
    data = make_dialogues(7, n_turns=6, random_state=0)
    assert set(data.X.groupby("dialogue_id").size()) == {6}


def test_noise_reaches_the_votes():
    clean = make_dialogues(30, random_state=0, as_frame=False, **SILENT)
    assert np.all(clean.y_llm == clean.y_true[:, None])
    noisy = make_dialogues(30, random_state=0, as_frame=False, dialogue_bias=3.0)
    assert np.mean(noisy.y_llm == noisy.y_true[:, None]) < 0.8


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"n_dialogues": 0}, ValueError, "n_dialogues == 0, must be >= 1"),
        ({"n_dialogues": 2.5}, TypeError, "n_dialogues must be an instance of"),
        ({"n_turns": 0}, ValueError, "n_turns must be an int >= 1 or a tuple"),
        ({"n_turns": (5, 3)}, ValueError, r"got \(5, 3\)"),
        ({"n_turns": 2.5}, ValueError, "got 2.5"),
        ({"n_turns": (1, 2, 3)}, ValueError, r"got \(1, 2, 3\)"),
        ({"n_classes": 1}, ValueError, "n_classes == 1, must be >= 2"),
        ({"n_features": 0}, ValueError, "n_features == 0, must be >= 1"),
        ({"human_fraction": 1.5}, ValueError, "human_fraction == 1.5, must be <= 1"),
        ({"separation": -1}, ValueError, "separation == -1, must be >= 0"),
        ({"n_votes": 0}, ValueError, "n_votes == 0, must be >= 1"),
        ({"class_bias": [1.0]}, ValueError, "class_bias has shape"),
    ],
)
def test_bad_dialogue_parameters(params, error, message):
    with pytest.raises(error, match=message):
        make_dialogues(**params)


# ------------------------------------------------------------------------ load_support_chats


@pytest.mark.parametrize("target", ["sentiment", "act"])
def test_chats_are_complete_and_clean(target):
    data = load_support_chats(target=target)
    assert data.X.columns.tolist() == ["dialogue_id", "turn", "speaker", "text"]
    assert len(data.X) == 889
    assert data.X["dialogue_id"].nunique() == 84
    assert data.X["turn"].dtype == np.int64
    for _, dialogue in data.X.groupby("dialogue_id"):
        assert dialogue["turn"].tolist() == list(range(len(dialogue)))
        assert set(dialogue["speaker"]) == {"customer", "agent"}
    text = data.X["text"]
    assert (text.str.strip() == text).all()
    assert (text != "").all()
    assert not text.str.contains("[\x00-\x1f\ufffd]").any()
    assert text[text.str.len() > 12].is_unique
    assert data.classes.tolist() == CLASSES[target]
    assert set(data.y) == set(CLASSES[target])


def test_description_states_the_counts():
    for target in CLASSES:
        data = load_support_chats(target=target)
        assert "84 dialogues, 889 utterances" in data.DESCR
        for label, count in data.y.value_counts().items():
            assert any(line.split()[:2] == [label, str(count)] for line in data.DESCR.split("\n"))
        speakers = data.X["speaker"].value_counts()
        expected = f"{speakers['customer']} by customers, {speakers['agent']} by agents"
        assert expected in data.DESCR


@pytest.mark.parametrize("target", ["sentiment", "act"])
def test_held_out_chats_have_nothing_to_train_on(target):
    data = load_support_chats(target=target)
    assert set(data.groups[data.test]).isdisjoint(data.groups[~data.test])
    assert len(np.unique(data.groups[data.test])) == 28
    assert data.y_human[data.test].isna().all()
    assert all(vote is None for vote in data.y_llm[data.test].ravel())
    assert set(data.y_llm[~data.test].ravel()) == set(data.classes)
    assert set(data.y[data.test]) == set(data.y[~data.test]) == set(data.classes)


def test_chats_human_labels_cover_whole_dialogues():
    data = load_support_chats(n_human=100)
    labelled = data.y_human.notna().to_numpy()
    assert 100 <= labelled.sum() < 118
    for dialogue in np.unique(data.groups):
        assert len(set(labelled[data.groups == dialogue])) == 1
    assert_array_equal(data.y_human[labelled], data.y[labelled])


def test_number_of_human_labels():
    assert load_support_chats(n_human=0).y_human.isna().all()
    everything = load_support_chats(n_human=None)
    assert_array_equal(everything.y_human.notna(), ~everything.test)


def test_chats_random_state_moves_human_labels_only():
    first, same, other = (load_support_chats(random_state=seed) for seed in (0, 0, 1))
    assert_array_equal(first.y_human.isna(), same.y_human.isna())
    assert np.any(first.y_human.isna() != other.y_human.isna())
    assert_array_equal(first.y_llm, other.y_llm)
    assert_array_equal(first.test, other.test)


@pytest.mark.parametrize(("target", "vote", "ensemble"), [("sentiment", 70, 72), ("act", 66, 74)])
def test_votes_are_as_good_as_described(target, vote, ensemble):
    data = load_support_chats(target=target)
    y, votes = data.y[~data.test].to_numpy(), data.y_llm[~data.test]
    assert data.y_llm_is_simulated is True
    assert "SIMULATED" in data.DESCR
    assert round(100 * np.mean(votes == y[:, None])) == vote
    assert round(100 * np.mean(majority(votes, data.classes) == y)) == ensemble
    for percent in (vote, ensemble):
        assert f"{percent} %" in data.DESCR


def test_votes_are_biased_against_neutral():
    data = load_support_chats()
    y, votes = data.y[~data.test].to_numpy(), data.y_llm[~data.test]
    assert np.mean(votes == "neutral") < 0.7 * np.mean(y == "neutral")


def test_votes_are_the_same_on_every_machine():
    assert load_support_chats().y_llm[~load_support_chats().test][:2].tolist() == PINNED_VOTES


def test_chats_as_arrays():
    frame, array = load_support_chats(), load_support_chats(as_frame=False)
    assert array.X.shape == (889, 2)
    assert_array_equal(frame.X[["dialogue_id", "text"]].to_numpy(object), array.X)
    assert isinstance(array.y, np.ndarray)
    assert_array_equal(frame.y.to_numpy(), array.y)
    assert_array_equal(frame.y_human.to_numpy(), array.y_human)


@pytest.mark.parametrize("as_frame", [True, False])
def test_chats_as_pair(as_frame):
    X, y = load_support_chats(target="act", as_frame=as_frame, return_X_y=True)
    assert len(X) == len(y) == 889
    assert set(y) == set(ACTS)


def test_bad_chat_parameters():
    with pytest.raises(ValueError, match=r"one of \['act', 'sentiment'\], got 'mood'"):
        load_support_chats(target="mood")
    with pytest.raises(ValueError, match="n_human == 5000, must be <= 594"):
        load_support_chats(n_human=5000)


# --------------------------------------------------------------------------- optional pandas

WITHOUT_PANDAS = """
import sys

class NoPandas:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoPandas)
from sklearn_dialpref.datasets import load_support_chats, make_dialogues
assert "torch" not in sys.modules
for load in (load_support_chats, make_dialogues):
    load(as_frame=False)
    try:
        load()
    except ImportError as error:
        assert "pip install pandas" in str(error) and "as_frame=False" in str(error)
    else:
        raise AssertionError("as_frame=True went through without pandas")
"""


def test_arrays_need_no_pandas_and_frames_say_so():
    done = subprocess.run([sys.executable, "-c", WITHOUT_PANDAS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

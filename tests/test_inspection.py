"""What a user sees of a teacher report, its plots and a label-budget curve."""

import subprocess
import sys
import tracemalloc
from dataclasses import fields

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from sklearn_dialpref import (
    DialoguePreferenceClassifier,
    LabelBudgetCurve,
    LabelBudgetDisplay,
    LabelledGroupKFold,
    PairMarginDisplay,
    ReliabilityDisplay,
    TeacherConfusionDisplay,
    TeacherReport,
    expected_calibration_error,
    label_budget_curve,
    pairwise_accuracy_score,
    teacher_report,
    votes_to_scores,
)
from sklearn_dialpref.datasets import load_support_chats, make_dialogues, simulate_votes
from sklearn_dialpref.inspection.statistics import both_labels, pair_statistics

mpl.use("Agg", force=True)
FIELDS = [field.name for field in fields(TeacherReport)]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def rows_of(dialogues):
    """Utterances of these dialogues, no two alike."""
    return [[name, f"utterance {row}"] for row, name in enumerate(dialogues)]


def figures(report):
    return {name: getattr(report, name) for name in FIELDS}


def assert_same_report(one, other, but=()):
    for name, value in figures(one).items():
        if name in but:
            continue
        if isinstance(value, (tuple, str)) or np.asarray(value).dtype.kind in "OU":
            assert_array_equal(value, getattr(other, name), err_msg=name)
        else:
            assert_allclose(value, getattr(other, name), rtol=1e-9, atol=1e-12, err_msg=name)


def simulated(seed=0, n_dialogues=60, n_turns=10, **parameters):
    """Fully labelled dialogues and votes, whose bias is as stated."""
    settings = {"class_bias": 0.0, "dialogue_bias": 0.0, **parameters}
    data = make_dialogues(
        n_dialogues=n_dialogues,
        n_turns=n_turns,
        n_features=2,
        human_fraction=1.0,
        random_state=seed,
        **settings,
    )
    return data.X, data.y_human, data.y_llm


# -- importing ------------------------------------------------------------------------------


def test_import_and_report_need_neither_torch_nor_matplotlib_nor_pandas():
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("pandas", "matplotlib"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import sklearn_dialpref as sd
X = [["d", "a"], ["d", "b"], ["e", "c"]]
print(sd.teacher_report(X, ["x", "y", None], ["x", "x", "y"], random_state=0))
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 rows of 1 dialogues carry both labels" in done.stdout


# -- labels against labels ------------------------------------------------------------------

HUMAN = ["a", "a", "b", "c", "b", "a", None, "a"]
VOTES = np.array(
    ["aa", "ab", "bb", "bc", "ca", "aa", "aa", "bb"]
)  # one letter per vote; "ab" ties, and goes to a
TABLE = np.array([list(row) for row in VOTES])
X8 = rows_of("ddddeeef")


def test_labels_against_labels_by_hand():
    report = teacher_report(X8, HUMAN, TABLE, random_state=0)
    known = [0, 1, 2, 3, 4, 5, 7]
    predicted = np.array(list("aabbaaab"))[known]
    human = np.array(HUMAN)[known]
    assert (report.n_rows, report.n_dialogues, report.multilabel) == (7, 3, False)
    assert report.accuracy == pytest.approx(accuracy_score(human, predicted)) == 4 / 7
    assert report.macro_f1 == pytest.approx(f1_score(human, predicted, average="macro"))
    assert report.majority_accuracy == pytest.approx(4 / 7)
    assert_allclose(report.human_share, [4 / 7, 2 / 7, 1 / 7])
    # a: 1 + ½ + 0 + 0 + ½ + 1 + 0, b: 0 + ½ + 1 + ½ + 0 + 0 + 1, c: ½ + ½
    assert_allclose(report.teacher_share, [3 / 7, 3 / 7, 1 / 7])
    assert_allclose(report.class_bias, [-1 / 7, 1 / 7, 0])
    # confidences 1 ½ 1 ½ ½ 1 1
    assert report.overconfidence == pytest.approx(5.5 / 7 - 4 / 7)
    assert report.reliability_count.sum() == 7
    assert_allclose(report.reliability_accuracy[-1], 3 / 4)
    low, high = report.accuracy_interval
    assert 0 <= low <= report.accuracy <= high <= 1


def test_f1_leaves_out_a_class_that_nobody_gives():
    y = ["a", "b", "a", "b"]
    report = teacher_report(rows_of("ddee"), y, y, classes=["a", "b", "c"], random_state=0)
    assert report.macro_f1 == 1.0


def test_calibration_error_is_that_of_the_metrics():
    X, human, votes = simulated(vote_noise=2.0)
    scores = votes_to_scores(votes, np.unique(votes))
    report = teacher_report(X, human, scores, random_state=0)
    assert report.calibration_error == pytest.approx(expected_calibration_error(human, scores))
    gap = np.abs(report.reliability_accuracy - report.reliability_confidence)
    weighted = np.nansum(gap * report.reliability_count) / report.n_rows
    assert weighted == pytest.approx(report.calibration_error)


def test_class_bias_is_found_where_there_is_one():
    report = teacher_report(*simulated(class_bias=[0.0, 1.5, 0.0]), random_state=0)
    assert report.class_bias[1] > 0.1
    assert report.class_bias_interval[1, 0] > 0
    assert report.class_bias_interval[0, 1] < 0
    assert any("gives class_1 too often" in advice for advice in report.advice)
    none = teacher_report(*simulated(), random_state=0)
    assert (np.abs(none.class_bias) < 0.03).all()
    assert not any("too often" in a or "too rarely" in a for a in none.advice)


def test_interval_holds_the_truth_as_often_as_it_says():
    """Dialogues differ in how well the teacher does, so rows alone would say too little."""
    rng = np.random.RandomState(0)
    hits, repeats = 0, 30
    for _ in range(repeats):
        level = rng.choice([0.4, 1.0], size=40)
        right = rng.uniform(size=400) < np.repeat(level, 10)
        human = np.where(rng.uniform(size=400) < 0.5, "a", "b")
        llm = np.where(right, human, np.where(human == "a", "b", "a"))
        X = rows_of(np.repeat(np.arange(40), 10).tolist())
        low, high = teacher_report(X, human, llm, random_state=rng).accuracy_interval
        hits += low <= 0.7 <= high
    assert hits >= 0.85 * repeats


# -- dialogue bias --------------------------------------------------------------------------


def test_variance_components_by_hand():
    score = np.array([0.2, 0.4, 0.6, 0.8, 0.7])
    report = teacher_report(
        rows_of("ddeee"),
        list("aaaaa"),
        np.column_stack([score, 1 - score]),
        classes=["a", "b"],
        random_state=0,
    )
    between = (0.192 - 0.04 / 3) / 2.4  # MS_b, MS_w and n_0 = 5 − 13 / 5
    assert_allclose(report.between_variance, between, rtol=1e-5)
    assert_allclose(report.within_variance, 0.04 / 3, rtol=1e-5)
    assert_allclose(report.class_icc, between / (between + 0.04 / 3), rtol=1e-5)
    assert report.dialogue_icc == pytest.approx(report.class_icc[0])
    # of the 10 ways to choose the dialogue of two rows, one or no other separates as well
    assert 0.05 < report.dialogue_bias_pvalue < 0.25


def test_share_between_dialogues_is_the_true_one():
    rng = np.random.RandomState(0)
    group = np.repeat(np.arange(400), rng.randint(2, 12, size=400))
    human = rng.randint(2, size=len(group))
    level = 0.5 + 0.2 * (2 * human - 1)
    score = level + 0.03 * rng.randn(400)[group] + 0.06 * rng.randn(len(group))
    report = teacher_report(
        rows_of(group.tolist()),
        human,
        np.column_stack([1 - score, score]),
        random_state=0,
    )
    assert_allclose(report.class_icc, 0.2, atol=0.04)
    assert_allclose(report.between_variance, 0.03**2, rtol=0.2)
    assert_allclose(report.within_variance, 0.06**2, rtol=0.1)
    assert report.dialogue_bias_pvalue == 1 / 1000


def test_dialogue_bias_is_found_where_there_is_one():
    biased = teacher_report(*simulated(dialogue_bias=1.5), random_state=0)
    assert biased.dialogue_bias_pvalue <= 0.01
    assert biased.dialogue_icc > 0.1
    between, within = biased.between_variance.sum(), biased.within_variance.sum()
    assert biased.dialogue_icc == pytest.approx(between / (between + within))
    assert any("stay alike through a dialogue" in sentence for sentence in biased.advice)
    none = teacher_report(*simulated(), random_state=0)
    assert none.dialogue_bias_pvalue > 0.05
    assert none.dialogue_icc < 0.05
    assert any("No bias through whole dialogues" in sentence for sentence in none.advice)


def test_what_dialogues_are_about_is_no_bias_of_theirs():
    """A teacher that errs alike everywhere, on dialogues that each have a class of their own."""
    rng = np.random.RandomState(0)
    group = np.repeat(np.arange(60), 10)
    X, p, icc = rows_of(group.tolist()), [], []
    for _ in range(20):
        usual = np.repeat(rng.randint(3, size=60), 10)
        human = np.where(rng.uniform(size=600) < 0.8, usual, rng.randint(3, size=600))
        votes = simulate_votes(
            human, group, class_bias=[1.0, 0.0, -1.0], dialogue_bias=0, random_state=rng
        )
        report = teacher_report(X, human, votes, random_state=rng)
        p.append(report.dialogue_bias_pvalue)
        icc.append(report.dialogue_icc)
    assert 0.3 < np.mean(p) < 0.7
    assert np.mean(icc) < 0.02


def test_p_value_is_as_small_as_it_says_only_so_often():
    rng = np.random.RandomState(0)
    X = rows_of(np.repeat(np.arange(10), 4).tolist())
    p = []
    for _ in range(50):
        human = rng.randint(2, size=40)
        score = rng.beta(1 + human, 2)
        llm = np.column_stack([1 - score, score])
        p.append(teacher_report(X, human, llm, random_state=rng).dialogue_bias_pvalue)
    assert np.mean(np.array(p) <= 0.05) <= 0.12
    assert 0.35 < np.mean(p) < 0.65


# -- pairs ----------------------------------------------------------------------------------


def brute_force_pairs(group, truth, scores, weights, inside):
    """Weighted share of the pairs that are ordered rightly, of each class, pair by pair."""
    result = []
    for truth_c, score_c in zip(truth.T, scores.T, strict=True):
        right = pairs = 0.0
        for i in np.flatnonzero(truth_c == 1):
            for j in np.flatnonzero(truth_c == 0):
                if (group[i] == group[j]) != inside:
                    continue
                weight = weights[group[i]] * (1 if inside else weights[group[j]])
                pairs += weight
                right += weight * ((score_c[i] > score_c[j]) + 0.5 * (score_c[i] == score_c[j]))
        result.append(right / pairs if pairs else np.nan)
    return np.array(result)


def test_pair_accuracy_is_that_of_the_metric_inside_and_of_all_pairs_across():
    X, human, votes = simulated(n_dialogues=8, n_turns=5, class_bias=1.0, dialogue_bias=1.0)
    report = teacher_report(X, human, votes, random_state=0)
    classes = np.unique(human.tolist())
    scores = votes_to_scores(votes, classes)
    group = np.unique(X["dialogue_id"], return_inverse=True)[1]
    truth = (np.array(human.tolist())[:, None] == classes).astype(float)
    ones = np.ones(8)
    inside = pairwise_accuracy_score(human, scores, group, average=None)
    assert_allclose(report.class_pair_accuracy_inside, inside)
    assert report.pair_accuracy_inside == pytest.approx(
        pairwise_accuracy_score(human, scores, group)
    )
    across = brute_force_pairs(group, truth, scores, ones, inside=False)
    assert_allclose(report.class_pair_accuracy_across, across)
    assert report.pair_accuracy_across == pytest.approx(across.mean())
    assert report.pair_accuracy_difference == pytest.approx((inside - across).mean())
    low, high = report.pair_accuracy_difference_interval
    assert low < report.pair_accuracy_difference < high


def test_resampled_pairs_count_copies_of_a_dialogue_as_one_dialogue():
    X, human, votes = simulated(n_dialogues=6, n_turns=5, noise=2.0)
    evidence = both_labels(X, human, votes)[0]
    weights = np.array([2.0, 0.0, 1.0, 3.0, 0.0, 1.0])
    counted = pair_statistics(evidence)(weights[None])
    for where in ("inside", "across"):
        expected = brute_force_pairs(
            evidence.group, evidence.truth, evidence.scores, weights, where == "inside"
        )
        assert_allclose(counted[f"class_{where}"][0], expected)


def test_pairs_inside_dialogues_are_cleaner_where_bias_lasts_through_them():
    report = teacher_report(*simulated(dialogue_bias=2.0, vote_noise=1.0), random_state=0)
    assert report.pair_accuracy_difference_interval[0] > 0
    assert any(
        "inside dialogues more reliably than across" in sentence for sentence in report.advice
    )


def test_memory_is_linear_in_the_rows():
    X, human, votes = simulated(n_dialogues=2, n_turns=4000, n_votes=2)
    tracemalloc.start()
    teacher_report(X, human, votes, random_state=0)
    PairMarginDisplay.from_predictions(X, human, votes, random_state=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6  # one byte for each of the 8000² pairs of a class is 64 MB


# -- votes ----------------------------------------------------------------------------------


def test_agreement_of_votes_by_hand():
    votes = np.array([["a", "a"], ["a", "b"], ["b", "b"], ["b", "b"]])
    report = teacher_report(rows_of("ddee"), ["a", "b", None, "b"], votes, random_state=0)
    assert (report.n_voted_rows, report.votes_per_row) == (4, 2.0)
    assert report.vote_agreement == pytest.approx(0.75)
    assert report.vote_alpha == pytest.approx(1 - 7 * 2 / 30)
    assert report.vote_level.tolist() == [0.5, 1.0]
    assert report.vote_level_count.tolist() == [1, 2]
    assert report.vote_level_accuracy.tolist() == [0.0, 1.0]  # the tie goes to a
    # rows of b: one in four votes is a, so independent votes agree on 10 / 16 of them
    observed, expected = 2 / 3, (1 + 10 / 16 + 10 / 16) / 3
    rho = (observed - expected) / (1 - expected)
    assert report.vote_correlation == pytest.approx(rho)
    assert report.effective_votes == pytest.approx(2 / (1 + max(rho, 0)))


def test_alpha_of_a_published_example_with_missing_votes():
    """Three coders, 15 units; nominal alpha 0.691 (en.wikipedia.org/wiki/Krippendorff's_alpha)."""
    coders = ["*****34121133*3", "1*213343*******", "**21344*21133*4"]
    votes = [[None if given == "*" else int(given) for given in row] for row in coders]
    table = np.array(votes, dtype=object).T
    assert table.shape == (15, 3)
    human = [None] * 15
    human[0] = 1
    report = teacher_report(rows_of("d" * 15), human, table, random_state=0)
    assert report.vote_alpha == pytest.approx(0.691, abs=5e-4)
    assert report.n_voted_rows == 12


def test_votes_that_are_copies_are_worth_one():
    X, human, votes = simulated()
    report = teacher_report(X, human, np.repeat(votes[:, :1], 4, axis=1), random_state=0)
    assert report.vote_correlation == pytest.approx(1.0)
    assert report.effective_votes == pytest.approx(1.0)
    assert any("4.0 votes are worth about 1.0" in sentence for sentence in report.advice)


def test_votes_that_are_independent_given_the_class_are_worth_their_number():
    report = teacher_report(*simulated(noise=0.0, vote_noise=1.5), random_state=0)
    assert abs(report.vote_correlation) < 0.05
    assert report.effective_votes > 4
    assert not any("far from independent" in sentence for sentence in report.advice)


@pytest.mark.parametrize("form", ["labels", "scores"])
def test_no_votes_no_agreement(form):
    X, human, votes = simulated()
    llm = votes[:, 0] if form == "labels" else votes_to_scores(votes, np.unique(votes))
    report = teacher_report(X, human, llm, random_state=0)
    assert report.n_voted_rows == 0
    assert np.isnan(report.vote_alpha)
    assert len(report.vote_level) == 0
    assert "agreement" not in str(report)


# -- forms of the input ---------------------------------------------------------------------


def test_the_order_of_the_rows_does_not_matter():
    data = load_support_chats()
    human = data.y_human.to_numpy()
    order = np.random.RandomState(1).permutation(len(human))
    for X in (data.X, data.X[["dialogue_id", "text"]], data.X["text"].to_numpy()):
        one = teacher_report(X, human, data.y_llm, random_state=0)
        shuffled = X.iloc[order] if hasattr(X, "iloc") else X[order]
        other = teacher_report(shuffled, human[order], data.y_llm[order], random_state=0)
        assert_same_report(one, other)
        assert str(one) == str(other)


def test_a_seed_fixes_the_report_and_leaves_the_global_one_alone():
    data = simulated()
    np.random.seed(3)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one, same, other = (teacher_report(*data, random_state=seed) for seed in (0, 0, 1))
    assert_same_report(one, same)
    assert not np.array_equal(one.accuracy_interval, other.accuracy_interval)
    assert one.accuracy == other.accuracy
    assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_rows_without_both_labels_change_nothing():
    X, human, votes = simulated(n_dialogues=20)
    human, votes = human.to_numpy(dtype=object).copy(), votes.astype(object)
    one = teacher_report(X[:150], human[:150], votes[:150], random_state=0)
    human[150:175], votes[175:] = None, None
    votes[150:175] = votes[0, 0]
    other = teacher_report(X, human, votes, random_state=0)
    assert other.n_rows == 150
    assert_same_report(one, other, but=[name for name in FIELDS if name.startswith("vote_a")]
                       + ["n_voted_rows"])  # fmt: skip
    assert other.n_voted_rows == 175


@pytest.mark.parametrize("form", ["array", "frame", "turned frame", "polars"])
def test_scores_and_votes_say_the_same(form):
    X, human, votes = simulated(n_dialogues=20)
    classes = np.unique(votes)
    scores = votes_to_scores(votes, classes)
    frame = pd.DataFrame(scores, columns=classes)
    llm = {
        "array": scores,
        "frame": frame,
        "turned frame": frame[frame.columns[::-1]],
        "polars": pl.DataFrame({name: scores[:, at] for at, name in enumerate(classes)}),
    }[form]
    one = teacher_report(X, human, votes, random_state=0)
    other = teacher_report(X, human, llm, random_state=0)
    voted = [name for name in FIELDS if "vote" in name] + ["advice"]
    assert_same_report(one, other, but=voted)


def test_labels_of_other_types():
    X, human, votes = simulated(n_dialogues=10)
    one = teacher_report(X, human, votes, random_state=0)
    number = {name: at for at, name in enumerate(np.unique(votes))}
    coded = np.vectorize(number.get)(votes)
    other = teacher_report(X, human.map(number), coded, random_state=0)
    assert other.classes.tolist() == [0, 1, 2]
    assert_same_report(one, other, but=["classes", "advice"])


def test_multilabel_judges_each_label_on_its_own():
    X, human, votes = simulated(n_dialogues=30, dialogue_bias=1.0, class_bias=1.0)
    classes = np.unique(votes)
    scores = votes_to_scores(votes, classes)
    table = (human.to_numpy()[:, None] == classes).astype(float)
    table[:40, 0] = np.nan
    scores[40:60, 1] = np.nan
    report = teacher_report(X, table, scores, classes=classes, random_state=0)
    assert report.multilabel
    assert report.n_rows == len(human)
    one = [0, 1, 2]
    for label in one:
        known = ~np.isnan(table[:, label]) & ~np.isnan(scores[:, label])
        score = scores[known, label]
        alone = teacher_report(
            X[known], table[known, label], np.column_stack([1 - score, score]), random_state=0
        )
        assert report.class_bias[label] == pytest.approx(alone.class_bias[1])
        assert report.class_icc[label] == pytest.approx(alone.class_icc[1])
        assert report.class_pair_accuracy_inside[label] == pytest.approx(
            alone.class_pair_accuracy_inside[1]
        )
        assert report.class_pair_accuracy_across[label] == pytest.approx(
            alone.class_pair_accuracy_across[1]
        )
    known = ~np.isnan(table) & ~np.isnan(scores)
    right = (scores > 0.5)[known] == table[known]
    assert report.accuracy == pytest.approx(right.mean())
    # of three tests the least p-value counts three times (Bonferroni)
    least = report.class_dialogue_pvalue.min()
    assert report.dialogue_bias_pvalue == pytest.approx(min(1, 3 * least))
    confidence = np.maximum(scores, 1 - scores)[known].mean()
    assert report.overconfidence == pytest.approx(confidence - right.mean())
    f1 = [f1_score(table[k, c], scores[k, c] > 0.5) for c, k in enumerate(known.T)]
    assert report.macro_f1 == pytest.approx(np.mean(f1))
    assert report.calibration_error == pytest.approx(
        expected_calibration_error(table[known], scores[known])
    )
    assert report.n_voted_rows == 0
    assert "class_2" in str(report)


def test_the_report_is_plain_and_readable():
    report = teacher_report(*simulated(), random_state=0)
    for name, value in figures(report).items():
        assert isinstance(value, (bool, int, float, np.ndarray, tuple)), name
    text = str(report)
    assert "600 rows of 60 dialogues" in text
    assert all(f"- {sentence}" in text for sentence in report.advice)
    assert max(map(len, text.splitlines()[2:9])) < 120
    frame = report.frame()
    assert frame.index.tolist() == report.classes.tolist()
    assert_array_equal(frame["bias"], report.class_bias)
    with pytest.raises(AttributeError):
        report.accuracy = 1.0


# -- what is missing or wrong ---------------------------------------------------------------


def test_one_dialogue_has_no_intervals():
    report = teacher_report(rows_of("dddd"), list("abab"), list("abaa"), random_state=0)
    assert report.accuracy == 0.75
    assert np.isnan(report.accuracy_interval).all()
    assert np.isnan(report.class_bias_interval).all()
    assert np.isnan([report.dialogue_icc, report.pair_accuracy_across]).all()
    assert report.advice[0].startswith("All 4 doubly labelled rows stand in one dialogue")
    assert "cannot be said" in report.advice[1]
    assert len(report.advice) == 3
    assert "nan" in str(report)


def test_dialogues_of_one_row_have_no_pairs():
    report = teacher_report(["u", "v", "w"], list("aba"), list("abb"), random_state=0)
    assert report.n_dialogues == 3
    assert np.isnan([report.dialogue_bias_pvalue, report.pair_accuracy_inside]).all()
    assert report.pair_accuracy_across == pytest.approx(0.75)


def test_a_teacher_without_errors():
    report = teacher_report(rows_of("ddee"), list("abab"), list("abab"), random_state=0)
    assert report.accuracy == report.pair_accuracy_inside == report.pair_accuracy_across == 1.0
    assert report.overconfidence == 0.0
    assert np.isnan([report.dialogue_icc, report.dialogue_bias_pvalue]).all()


@pytest.mark.parametrize(
    ("human", "llm", "message"),
    [
        (["a", None, "b"], [None, "a", None], "no row carries both.*2 of 3 rows.*1 an LLM"),
        (None, ["a", "b", "a"], "y_human is None"),
        (["a", "b", "a"], None, "y_llm is None"),
        ([None, None, None], ["a", "b", "a"], "no row carries both"),
        (["a", "b"], ["a", "b", "a"], "X has 3 rows but y_human has 2"),
        (["a", "a", "a"], ["a", "a", "a"], "only one class"),
    ],
)
def test_errors_say_what_arrived(human, llm, message):
    with pytest.raises(ValueError, match=message):
        teacher_report(rows_of("dde"), human, llm)


def test_budget_curve_must_be_one():
    with pytest.raises(TypeError, match="label_budget_curve"):
        teacher_report(X8, HUMAN, TABLE, budget_curve=[0.5, 1])


# -- advice ---------------------------------------------------------------------------------


def test_advice_on_a_useless_teacher():
    X, human, votes = simulated()
    other = human.map({"class_0": "class_1", "class_1": "class_2", "class_2": "class_0"})
    advice = teacher_report(X, human, other, random_state=0).advice
    assert any("worse than always answering" in sentence for sentence in advice)
    shuffled = np.random.RandomState(0).permutation(votes)
    advice = teacher_report(X, human, shuffled, random_state=0).advice
    assert any("not shown to be better" in sentence for sentence in advice)
    advice = teacher_report(X, human, votes, random_state=0).advice
    assert not any("always answering" in sentence for sentence in advice)


def test_advice_on_scores_that_are_too_sure_or_too_unsure():
    X, human, votes = simulated(vote_noise=2.0)
    labels = teacher_report(X, human, votes[:, 0], random_state=0)  # as scores of 1
    assert labels.overconfidence_interval[0] > 0
    assert any("overconfident" in s for s in labels.advice)
    scores = 0.2 * np.eye(3)[human.map(lambda c: int(c[-1]))] + 0.8 / 3
    unsure = teacher_report(X, human, scores, random_state=0)
    assert unsure.overconfidence == pytest.approx(0.2 + 0.8 / 3 - 1, abs=1e-6)
    assert any("underconfident" in s for s in unsure.advice)


def test_advice_on_few_rows_or_wide_intervals():
    few = teacher_report(X8, HUMAN, TABLE, random_state=0)
    assert few.advice[0].startswith("Only 7 rows of 3 dialogues")
    X, human, votes = simulated(n_dialogues=12, n_turns=5, dialogue_bias=2.0)
    wide = teacher_report(X, human, votes, random_state=0)
    assert "wide" in wide.advice[0]
    enough = teacher_report(*simulated(n_dialogues=200), random_state=0)
    assert "Only" not in enough.advice[0]
    assert "wide" not in enough.advice[0]


def make_curve():
    scores = [[0.60, 0.62, 0.61], [0.75, 0.76, 0.74]]  # steps of 0.15, 0.14, 0.13
    scores += [[0.70, 0.71, 0.69], [0.73, 0.72, 0.71]]  # steps of 0.03, 0.01, 0.02
    return LabelBudgetCurve(
        source=np.array(["human", "human", "llm", "llm"]),
        share=np.array([0.5, 1.0, 0.5, 1.0]),
        n_human=np.array([50.0, 100.0, 100.0, 100.0]),
        n_llm=np.array([900.0, 900.0, 450.0, 900.0]),
        scores=np.array(scores),
    )


def test_advice_on_more_labels_comes_from_the_curve():
    report = teacher_report(X8, HUMAN, TABLE, random_state=0)
    assert "run label_budget_curve" in report.advice[-1]
    report = teacher_report(X8, HUMAN, TABLE, budget_curve=make_curve(), random_state=0)
    human, llm = report.advice[-2:]
    assert "From 50 to 100 human labels the student's score changed by +0.140" in human
    assert "more human labels should help" in human
    assert f"standard error {0.01 * np.sqrt(1 / 3 + 1 / 2):.3f} over 3 folds" in human
    assert "From 450 to 900 LLM labels" in llm
    assert "no gain from more LLM labels is shown" in llm


# -- displays -------------------------------------------------------------------------------


class FixedTeacher(ClassifierMixin, BaseEstimator):
    """Answers with scores that it was given; its classes are not sorted."""

    def __init__(self, scores, classes):
        self.scores, self.classes = scores, classes
        self.classes_ = np.asarray(classes)

    def predict_proba(self, X):
        return self.scores


def test_confusion():
    X, human, votes = simulated(n_dialogues=20)
    human = human.to_numpy(dtype=object)
    classes = np.unique(votes)
    scores = votes_to_scores(votes, classes)
    expected = confusion_matrix(human.tolist(), classes[scores.argmax(axis=1)])
    display = TeacherConfusionDisplay.from_predictions(human, votes)
    assert_array_equal(display.confusion_matrix, expected)
    share = TeacherConfusionDisplay.from_predictions(human, votes, normalize="true")
    assert_allclose(share.confusion_matrix.sum(axis=1), 1)
    share = TeacherConfusionDisplay.from_predictions(human, votes, normalize="pred")
    assert_allclose(share.confusion_matrix.sum(axis=0), 1)
    teacher = FixedTeacher(scores[:, ::-1], classes[::-1])
    asked = TeacherConfusionDisplay.from_estimator(teacher, X, human)
    assert_array_equal(asked.confusion_matrix, expected)
    frame = display.frame()
    assert frame.loc["class_0", "class_2"] == expected[0, 2]
    ax = plt.subplots()[1]
    assert display.plot(ax=ax, cmap="Blues") is display
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Teacher", "Human")
    with pytest.raises(ValueError, match="normalize must be"):
        TeacherConfusionDisplay.from_predictions(human, votes, normalize="rows")
    with pytest.raises(ValueError, match="no common confusion matrix"):
        TeacherConfusionDisplay.from_predictions([[0, 1], [1, 1]], [[0.5, 0.5], [0.1, 1.0]])


def test_reliability():
    X, human, votes = simulated(n_dialogues=20)
    classes = np.unique(votes)
    scores = votes_to_scores(votes, classes)
    display = ReliabilityDisplay.from_predictions(human, votes, n_bins=10)
    expected = expected_calibration_error(human, scores, n_bins=10)
    assert display.calibration_error == pytest.approx(expected)
    assert display.count.sum() == len(human)
    frame = display.frame()
    full = frame["count"] > 0
    assert (frame.loc[full, "confidence"] <= frame.loc[full, "high"] + 1e-6).all()
    assert (frame.loc[full, "confidence"] > frame.loc[full, "low"]).all()
    asked = ReliabilityDisplay.from_estimator(
        FixedTeacher(scores[:, ::-1], classes[::-1]), X, human, n_bins=10
    )
    assert_array_equal(asked.accuracy, display.accuracy)
    assert display.plot(name="GPT", color="red") is display
    line = display.ax_.get_lines()[-1]
    assert_allclose(line.get_ydata(), display.accuracy[display.count > 0])
    table = np.array([[1, 0], [0, np.nan]])
    multilabel = ReliabilityDisplay.from_predictions(table, np.array([[0.9, 0.2], [0.6, 0.1]]))
    assert multilabel.count.sum() == 3
    assert np.nansum(multilabel.accuracy * multilabel.count) == 2
    with pytest.raises(ValueError, match="n_bins"):
        ReliabilityDisplay.from_predictions(human, votes, n_bins=0)


def test_pair_margins():
    X, human, votes = simulated(n_dialogues=30, dialogue_bias=2.0)
    display = PairMarginDisplay.from_predictions(X, human, votes, n_bins=5, random_state=0)
    classes = np.unique(votes)
    scores = votes_to_scores(votes, classes)
    group = X["dialogue_id"].to_numpy()
    human = np.array(human.tolist())
    margins = []
    for at, name in enumerate(classes):
        for i in np.flatnonzero(human == name):
            j = np.flatnonzero((human != name) & (group == group[i]))
            margins.append(scores[i, at] - scores[j, at])
    margins = np.concatenate(margins)
    # gaps are whole fifths; each is the upper edge of a bin
    size = np.rint(np.abs(margins) * 5)
    assert_array_equal(display.count["inside"], [(size == k).sum() for k in range(1, 6)])
    right = [(margins[size == k] > 0).mean() for k in range(1, 6)]
    assert_allclose(display.accuracy["inside"], right)
    assert_allclose(display.gap["inside"], np.arange(1, 6) / 5)
    assert display.ties["inside"] == pytest.approx((size == 0).mean())
    across = []
    for at, name in enumerate(classes):
        for i in np.flatnonzero(human == name):
            j = np.flatnonzero((human != name) & (group != group[i]))
            across.append(scores[i, at] - scores[j, at])
    across = np.concatenate(across)
    size = np.rint(np.abs(across) * 5)
    right = [(across[size == k] > 0).mean() for k in range(1, 6)]
    assert_allclose(display.accuracy["across"], right, atol=0.03)
    assert display.count["across"].sum() > display.count["inside"].sum()
    frame = display.frame()
    assert frame["pairs"].tolist() == ["inside"] * 5 + ["across"] * 5
    assert display.plot(linewidth=1) is display
    assert [line.get_label() for line in display.ax_.get_lines()] == [
        "inside dialogues",
        "across dialogues",
        "chance",
    ]


def test_pair_margins_do_not_depend_on_the_order_of_rows():
    data = load_support_chats(as_frame=False)
    order = np.random.RandomState(0).permutation(len(data.X))
    one, other = (
        PairMarginDisplay.from_predictions(
            data.X[rows], data.y_human[rows], data.y_llm[rows], random_state=0
        )
        for rows in (np.arange(len(order)), order)
    )
    for where in ("inside", "across"):
        assert_array_equal(one.count[where], other.count[where])
        assert_allclose(one.accuracy[where], other.accuracy[where])
    teacher = FixedTeacher(votes_to_scores(data.y_llm, data.classes), data.classes)
    asked = PairMarginDisplay.from_estimator(teacher, data.X, data.y_human, random_state=0)
    assert_array_equal(asked.count["across"], one.count["across"])


def test_pair_margins_without_pairs_across():
    display = PairMarginDisplay.from_predictions(
        rows_of("ddd"), list("aba"), list("aba"), random_state=0
    )
    assert display.count["across"].sum() == 0
    assert np.isnan(display.ties["across"])
    assert len(display.plot().ax_.get_lines()) == 2


def make_displays():
    return [
        TeacherConfusionDisplay.from_predictions(HUMAN, TABLE),
        ReliabilityDisplay.from_predictions(HUMAN, TABLE),
        PairMarginDisplay.from_predictions(X8, HUMAN, TABLE, random_state=0),
        LabelBudgetDisplay(make_curve()),
    ]


@pytest.mark.parametrize("display", make_displays(), ids=lambda d: type(d).__name__)
def test_optional_packages_are_named(display, monkeypatch):
    display.plot()
    display.frame()
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'sklearn-dialpref\[plot\]'"):
        display.plot()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        display.frame()


def test_label_budget_plot():
    display = LabelBudgetDisplay(make_curve()).plot(capsize=2)
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == [
        "human labels, 50 to 100",
        "LLM labels, 450 to 900",
    ]
    frame = display.frame()
    assert frame["mean_score"].tolist() == pytest.approx(make_curve().scores.mean(axis=1).tolist())


# -- label budget ---------------------------------------------------------------------------

FITS = []


class Recorder(ClassifierMixin, BaseEstimator):
    """A student that keeps what it was given, and scores by how many labels that was."""

    def __init__(self, classes=None, note="x"):
        self.classes, self.note = classes, note

    def fit(self, X, y_human, y_llm=None):
        scored = [] if y_llm is None else pd.DataFrame(y_llm).notna().any(axis=1).to_numpy()
        self.seen_ = {
            "dialogue": np.asarray(X)[:, 0],
            "human": pd.DataFrame(y_human).notna().any(axis=1).to_numpy(),
            "llm": np.asarray(scored, dtype=bool),
            "y_llm": y_llm,
            "classes": self.classes,
        }
        self.classes_ = np.asarray(self.classes)
        FITS.append(self.seen_)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])

    def score(self, X, y):
        FITS[-1]["test"] = set(np.asarray(X)[:, 0])
        assert not pd.isna(pd.DataFrame(y)).to_numpy().any()
        return self.seen_["human"].sum() / 1000 + self.seen_["llm"].sum() / 1000


@pytest.fixture
def fits():
    FITS.clear()
    return FITS


def budget_data(as_frame=True):
    data = make_dialogues(
        n_dialogues=30, n_turns=6, human_fraction=0.6, random_state=0, as_frame=as_frame
    )
    llm = data.y_llm.astype(object)
    llm[data.groups == data.groups[0]] = None
    return data.X, data.y_human, llm


def test_budget_takes_labels_from_whole_dialogues_and_nests(fits):
    X, human, llm = budget_data()
    X = X[["dialogue_id", "text"]]
    curve = label_budget_curve(
        Recorder(), X, human, llm, budgets=[1, 0, 0.5, 0.25], cv=3, random_state=0
    )
    assert curve.source.tolist() == ["human"] * 4 + ["llm"] * 4
    assert curve.share.tolist() == [0, 0.25, 0.5, 1] * 2
    assert curve.scores.shape == (8, 3)
    assert len(fits) == 3 * 7  # all labels of both kinds: once
    for fold in range(3):
        seven = fits[7 * fold : 7 * fold + 7]
        by_human, by_llm = seven[:4], [*seven[4:], seven[3]]
        for kind, fitted in (("human", by_human), ("llm", by_llm)):
            kept = []
            for seen in fitted:
                assert not seen["test"] & set(seen["dialogue"])
                labelled = seen[kind] if len(seen[kind]) else np.zeros(len(seen["dialogue"]), bool)
                kept.append(set(seen["dialogue"][labelled]))
                whole = np.isin(seen["dialogue"], list(kept[-1]))
                assert (labelled == (whole & fitted[-1][kind])).all()
            assert kept[0] <= kept[1] <= kept[2] <= kept[3]
            sizes = [len(k) for k in kept]
            assert sizes[:3] == [0, np.ceil(sizes[3] / 4), np.ceil(sizes[3] / 2)]
            other = "llm" if kind == "human" else "human"
            assert len({int(seen[other].sum()) for seen in fitted}) == 1
        assert by_llm[0]["y_llm"] is None
    assert fits[0]["classes"] == ["class_0", "class_1", "class_2"]
    expected = (curve.n_human + curve.n_llm) / 1000
    assert_allclose(curve.scores.mean(axis=1), expected)
    assert curve.frame()["n_human"].tolist() == curve.n_human.tolist()


def test_budget_does_not_depend_on_the_order_of_rows(fits):
    X, human, llm = budget_data(as_frame=False)
    order = np.random.RandomState(3).permutation(len(X))
    one, other = (
        label_budget_curve(
            Recorder(), X[r], human[r], llm[r], budgets=[0.4, 1], cv=2, random_state=0
        )
        for r in (np.arange(len(X)), order)
    )
    assert_allclose(one.scores, other.scores)
    assert_allclose(one.n_human, other.n_human)
    label_budget_curve(Recorder(), X, human, llm, budgets=[0.4, 1], cv=2, random_state=5)
    first, _, third = (fits[at]["dialogue"][fits[at]["human"]] for at in (0, 6, 12))
    assert set(first) != set(third)


def test_budget_of_rows_without_dialogues(fits):
    rng = np.random.RandomState(0)
    X, human = rng.randn(40, 3), rng.choice(["a", "b"], size=40).astype(object)
    llm, order = human.copy(), rng.permutation(40)
    human[:10] = None
    for rows in (np.arange(40), order):
        label_budget_curve(
            Recorder(), X[rows], human[rows], llm[rows], budgets=[0.4, 1], cv=2, random_state=0
        )
    for one, other in zip(fits[:6], fits[6:], strict=True):
        assert set(one["dialogue"][one["human"]]) == set(other["dialogue"][other["human"]])
        assert one["test"] == other["test"]


def test_budget_takes_any_splitter(fits):
    X, human, llm = budget_data()
    X = X[["dialogue_id", "text"]]
    cv = LabelledGroupKFold(4, shuffle=True, random_state=1)
    curve = label_budget_curve(Recorder(), X, human, llm, budgets=[0.5, 1], cv=cv, random_state=0)
    assert curve.scores.shape == (4, 4)
    tests = [set(X["dialogue_id"].iloc[test]) for _, test in cv.split(X, human)]
    assert [seen["test"] for seen in fits[2::3]] == tests


@pytest.mark.parametrize("form", ["pandas", "polars", "list"])
def test_budget_takes_any_form(form, fits):
    X, human, llm = budget_data()
    X = X[["dialogue_id", "text"]]
    scores = votes_to_scores(llm, ["class_0", "class_1", "class_2"])
    frame = pd.DataFrame(scores, columns=["class_0", "class_1", "class_2"])
    converted = {
        "pandas": (X.set_index(np.arange(len(X))[::-1]), human, frame[frame.columns[::-1]]),
        "polars": (pl.from_pandas(X), human.tolist(), pl.from_pandas(frame)),
        "list": (X.to_numpy().tolist(), human.tolist(), llm.tolist()),
    }[form]
    curve = label_budget_curve(
        Recorder(), *converted, budgets=[0.5, 1], cv=2, scoring="accuracy", random_state=0
    )
    assert ((curve.scores >= 0) & (curve.scores <= 1)).all()
    if form != "list":
        known = ~np.isnan(fits[0]["y_llm"]).any(axis=1)
        assert_allclose(fits[0]["y_llm"][known].sum(axis=1), 1, atol=1e-6)


def test_budget_of_multilabel_rows(fits):
    X, human, llm = budget_data(as_frame=False)
    classes = ["class_0", "class_1", "class_2"]
    table = np.array([[np.nan] * 3 if h is None else [h == c for c in classes] for h in human])
    scores = votes_to_scores(llm, classes)
    curve = label_budget_curve(
        Recorder(), X, table.astype(float), scores, budgets=[0.5, 1], cv=2, random_state=0
    )
    assert curve.n_human[0] < curve.n_human[1]
    assert fits[0]["classes"] == [0, 1, 2]


def test_budget_of_the_student():
    data = make_dialogues(n_dialogues=30, n_features=8, human_fraction=0.5, random_state=0)
    clf = DialoguePreferenceClassifier(
        encoder="precomputed", max_epochs=1, schedule="joint", random_state=0
    )
    display = LabelBudgetDisplay.from_estimator(
        clf, data.X, data.y_human, data.y_llm, budgets=[0.5, 1], cv=2, random_state=0
    )
    assert ((display.curve.scores >= 0) & (display.curve.scores <= 1)).all()
    report = teacher_report(
        data.X, data.y_human, data.y_llm, budget_curve=display.curve, random_state=0
    )
    assert "over 2 folds" in report.advice[-1]
    assert clf.classes is None


@pytest.mark.parametrize("budgets", [[0.5], [0.5, 0.5], [-0.1, 1], [0.5, 2], "half", 0.5, None])
def test_budgets_must_be_shares(budgets):
    with pytest.raises(ValueError, match="two different shares"):
        label_budget_curve(DummyClassifier(), X8, HUMAN, TABLE, budgets=budgets)


def test_budget_needs_both_kinds_of_labels():
    for human, llm, name in (
        (None, TABLE, "y_human is None"),
        (HUMAN, None, "y_llm is None"),
        ([None] * 8, TABLE, "no row has a label in y_human"),
        (HUMAN, np.full((8, 2), None), "no row has a label in y_llm"),
    ):
        with pytest.raises(ValueError, match=name):
            label_budget_curve(Recorder(), X8, human, llm, budgets=[0.5, 1])

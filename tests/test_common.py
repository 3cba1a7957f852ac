"""scikit-learn's own checks."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_dialpref import DialoguePreferenceClassifier, LLMAnnotator


class AlwaysFirst:
    """A model; its repr is part of the tests' names, which all test processes have to agree on."""

    def __call__(self, messages):
        return "A"

    def __repr__(self):
        return "AlwaysFirst()"


QUICK = {"encoder": "precomputed", "learning_rate": 0.01, "max_epochs": 10, "random_state": 0}
INSTANCES = [
    DialoguePreferenceClassifier(**QUICK),
    DialoguePreferenceClassifier(schedule="pretrain_finetune", loss="ranknet", **QUICK),
    DialoguePreferenceClassifier(random_state=0),
    LLMAnnotator(["no", "yes"], AlwaysFirst()),
]


def expected_failures(estimator):
    """Failures that we stand by, each with its reason."""
    return {
        "check_fit_score_takes_y": (
            "the target is called y_human, beside y_llm; everything passes it by position"
        )
    }


# a text estimator takes no 2-D numbers, which scikit-learn says in a warning and checks less
@pytest.mark.filterwarnings("ignore:Can't test estimator")
@parametrize_with_checks(INSTANCES, expected_failed_checks=expected_failures)
def test_stock_checks(estimator, check):
    check(estimator)

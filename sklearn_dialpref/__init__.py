"""Classify the utterances of dialogues from few human and many LLM labels."""

from ._classifier import DialoguePreferenceClassifier
from .annotation import LLMAnnotator, PromptBank
from .dialogue_state import DialogueStateTracker
from .inspection import (
    LabelBudgetCurve,
    LabelBudgetDisplay,
    PairMarginDisplay,
    ReliabilityDisplay,
    TeacherConfusionDisplay,
    TeacherReport,
    label_budget_curve,
    teacher_report,
)
from .metrics import (
    expected_calibration_error,
    joint_goal_accuracy_score,
    masked_scorer,
    pairwise_accuracy_score,
    slot_f1_score,
)
from .model_selection import LabelledGroupKFold
from .preprocessing import votes_to_scores, with_context

__version__ = "0.1.0.dev0"

__all__ = [
    "DialoguePreferenceClassifier",
    "DialogueStateTracker",
    "LLMAnnotator",
    "LabelBudgetCurve",
    "LabelBudgetDisplay",
    "LabelledGroupKFold",
    "PairMarginDisplay",
    "PromptBank",
    "ReliabilityDisplay",
    "TeacherConfusionDisplay",
    "TeacherReport",
    "__version__",
    "expected_calibration_error",
    "joint_goal_accuracy_score",
    "label_budget_curve",
    "masked_scorer",
    "pairwise_accuracy_score",
    "slot_f1_score",
    "teacher_report",
    "votes_to_scores",
    "with_context",
]

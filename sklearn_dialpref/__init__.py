"""Classify the utterances of dialogues from few human and many LLM labels."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._classifier import DialoguePreferenceClassifier
    from .annotation import DialogueStateAnnotator, LLMAnnotator, PromptBank
    from .dialogue_state import DialogueStateTracker, flatten_states
    from .escalation import CoverageAccuracyDisplay, EscalatingClassifier
    from .inspection import (
        AnnotationTasks,
        DialogueView,
        LabelBudgetCurve,
        LabelBudgetDisplay,
        PairMarginDisplay,
        ReliabilityDisplay,
        Suggestions,
        SuspectLabels,
        TeacherConfusionDisplay,
        TeacherReport,
        TeacherReportDisplay,
        TrainingHistoryDisplay,
        from_annotations,
        label_budget_curve,
        out_of_fold_proba,
        show_dialogue,
        suggest_annotations,
        suspect_labels,
        teacher_report,
        to_annotation_tasks,
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
    from .serving import (
        DialogueStream,
        MicroBatcher,
        OnnxDialogueClassifier,
        OnnxReport,
        Prediction,
        export_onnx,
    )

__version__ = "0.1.0"

__all__ = [
    "AnnotationTasks",
    "CoverageAccuracyDisplay",
    "DialoguePreferenceClassifier",
    "DialogueStateAnnotator",
    "DialogueStateTracker",
    "DialogueStream",
    "DialogueView",
    "EscalatingClassifier",
    "LLMAnnotator",
    "LabelBudgetCurve",
    "LabelBudgetDisplay",
    "LabelledGroupKFold",
    "MicroBatcher",
    "OnnxDialogueClassifier",
    "OnnxReport",
    "PairMarginDisplay",
    "Prediction",
    "PromptBank",
    "ReliabilityDisplay",
    "Suggestions",
    "SuspectLabels",
    "TeacherConfusionDisplay",
    "TeacherReport",
    "TeacherReportDisplay",
    "TrainingHistoryDisplay",
    "__version__",
    "expected_calibration_error",
    "export_onnx",
    "flatten_states",
    "from_annotations",
    "joint_goal_accuracy_score",
    "label_budget_curve",
    "masked_scorer",
    "out_of_fold_proba",
    "pairwise_accuracy_score",
    "show_dialogue",
    "slot_f1_score",
    "suggest_annotations",
    "suspect_labels",
    "teacher_report",
    "to_annotation_tasks",
    "votes_to_scores",
    "with_context",
]

# Where each name lives. It is imported when it is asked for: serving needs few of them, and
# neither scikit-learn nor torch.
_HOMES = {
    "_classifier": ["DialoguePreferenceClassifier"],
    "annotation": ["DialogueStateAnnotator", "LLMAnnotator", "PromptBank"],
    "dialogue_state": ["DialogueStateTracker", "flatten_states"],
    "escalation": ["CoverageAccuracyDisplay", "EscalatingClassifier"],
    "inspection": [
        "AnnotationTasks",
        "DialogueView",
        "LabelBudgetCurve",
        "LabelBudgetDisplay",
        "PairMarginDisplay",
        "ReliabilityDisplay",
        "Suggestions",
        "SuspectLabels",
        "TeacherConfusionDisplay",
        "TeacherReport",
        "TeacherReportDisplay",
        "TrainingHistoryDisplay",
        "from_annotations",
        "label_budget_curve",
        "out_of_fold_proba",
        "show_dialogue",
        "suggest_annotations",
        "suspect_labels",
        "teacher_report",
        "to_annotation_tasks",
    ],
    "metrics": [
        "expected_calibration_error",
        "joint_goal_accuracy_score",
        "masked_scorer",
        "pairwise_accuracy_score",
        "slot_f1_score",
    ],
    "model_selection": ["LabelledGroupKFold"],
    "preprocessing": ["votes_to_scores", "with_context"],
    "serving": [
        "DialogueStream",
        "MicroBatcher",
        "OnnxDialogueClassifier",
        "OnnxReport",
        "Prediction",
        "export_onnx",
    ],
}
_MODULES = {"annotation", "datasets", "dialogue_state", "escalation", "inspection", "losses"}
_MODULES |= {"metrics", "model_selection", "pairs", "preprocessing", "serving"}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})

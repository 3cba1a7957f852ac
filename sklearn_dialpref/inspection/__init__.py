"""What a teacher's labels are worth, what to label next, which labels are wrong; and dialogues."""

from .annotation_labels import from_annotations
from .annotation_tasks import AnnotationTasks, to_annotation_tasks
from .dialogue_view import DialogueView, show_dialogue
from .displays import ReliabilityDisplay, TeacherConfusionDisplay
from .history_display import TrainingHistoryDisplay
from .label_budget import LabelBudgetCurve, LabelBudgetDisplay, label_budget_curve
from .out_of_fold import out_of_fold_proba
from .pair_display import PairMarginDisplay
from .report import TeacherReport
from .report_plot import TeacherReportDisplay
from .suggestions import Suggestions, suggest_annotations
from .suspects import SuspectLabels, suspect_labels
from .teacher import teacher_report

__all__ = [
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
]

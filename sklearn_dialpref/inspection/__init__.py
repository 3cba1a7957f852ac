"""Is the teacher biased, are its pairs cleaner than its labels, and what to do about it."""

from .displays import ReliabilityDisplay, TeacherConfusionDisplay
from .label_budget import LabelBudgetCurve, LabelBudgetDisplay, label_budget_curve
from .pair_display import PairMarginDisplay
from .report import TeacherReport
from .teacher import teacher_report

__all__ = [
    "LabelBudgetCurve",
    "LabelBudgetDisplay",
    "PairMarginDisplay",
    "ReliabilityDisplay",
    "TeacherConfusionDisplay",
    "TeacherReport",
    "label_budget_curve",
    "teacher_report",
]

"""Reports and plots of a teacher's errors, and of what more labels bring."""

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

"""Scores for labels of which some are missing, for orderings, probabilities and states."""

from .calibration import expected_calibration_error
from .masked import MaskedScorer, masked_scorer
from .pairs import pairwise_accuracy_score
from .states import joint_goal_accuracy_score, slot_f1_score

__all__ = [
    "MaskedScorer",
    "expected_calibration_error",
    "joint_goal_accuracy_score",
    "masked_scorer",
    "pairwise_accuracy_score",
    "slot_f1_score",
]

"""Classifiers that pass on the utterances of which they are not sure, to an LLM or a person."""

from .classifier import EscalatingClassifier
from .display import CoverageAccuracyDisplay

__all__ = ["CoverageAccuracyDisplay", "EscalatingClassifier"]

"""Accuracy of answers against the share that is passed on."""


class CoverageAccuracyDisplay:
    """Plot of accuracy against the share that is asked about."""

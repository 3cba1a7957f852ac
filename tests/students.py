"""The student that most tests train."""

from sklearn_dialpref import DialoguePreferenceClassifier


def student(encoder="precomputed", **parameters):
    """An unfitted classifier, of precomputed features where no encoder is named."""
    return DialoguePreferenceClassifier(encoder, **{"random_state": 0, **parameters})

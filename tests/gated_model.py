"""A stand-in for a model that answers when the test lets it, so that others wait meanwhile."""

import threading
import time

import numpy as np

from sklearn_dialpref._labels.fitted import FittedLabels, HasFittedLabels

PATIENCE = 30  # seconds until a test gives up


class GatedModel(HasFittedLabels):
    """Its logits are the lengths of a text and of its context; texts with "fail" fail.

    Closed, it keeps each batch until :meth:`open`. ``sizes`` are the rows of the batches,
    ``texts`` what was asked.
    """

    context_turns = 1
    fitted_labels_ = FittedLabels(np.array(["a", "b"]), False, None, {}, 2)

    def __init__(self, closed=False):
        self.sizes, self.texts, self.broken = [], [], False
        self._gate = threading.Event()
        if not closed:
            self._gate.set()

    def open(self):
        self._gate.set()

    def _logits_from_texts(self, texts, index, keep=True):
        assert not keep
        self.sizes.append(len(index))
        self.texts += [text for text in texts if text]
        assert self._gate.wait(PATIENCE)
        if self.broken or any("fail" in text for text in texts):
            raise ArithmeticError("failed")
        lengths = np.array([len(text) for text in texts] + [0], dtype=float)
        return lengths[index]


def until(condition):
    """Wait for what another thread does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nothing has come of it"
        time.sleep(0.001)

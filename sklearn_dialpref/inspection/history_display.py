"""Plot of the losses of a fit, by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError

from .drawing import REFERENCE, Display, drawn_at_once, line_style, to_pandas

__all__ = ["TrainingHistoryDisplay"]

COLUMNS = ["epoch", "stage", "train_loss", "valid_loss", "duration"]
MARKERS = "osD^"  # of the stages


class TrainingHistoryDisplay(Display):
    """Plot of the loss by epoch, in each stage of a fit.

    Make it with :meth:`from_estimator`. Each stage has its own loss, so that only the values of
    one stage compare.

    Parameters
    ----------
    history : list of dict
        Records of the epochs, as in ``history_`` of :class:`DialoguePreferenceClassifier`.

    Attributes
    ----------
    name : str or None
        Name of the classifier in the plot.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
        Axes and figure of the plot, after :meth:`plot` was called.

    See Also
    --------
    DialoguePreferenceClassifier : Keeps its history.

    Examples
    --------
    >>> from sklearn_dialpref import DialoguePreferenceClassifier, TrainingHistoryDisplay
    >>> from sklearn_dialpref.datasets import make_dialogues
    >>> data = make_dialogues(n_dialogues=40, n_features=8, human_fraction=0.5, random_state=0)
    >>> clf = DialoguePreferenceClassifier("precomputed", max_epochs=2, random_state=0)
    >>> clf = clf.fit(data.X, data.y_human, data.y_llm)
    >>> display = TrainingHistoryDisplay.from_estimator(clf)
    >>> display.frame()["stage"].tolist()
    ['pretrain', 'pretrain', 'finetune', 'finetune']
    >>> display.plot().ax_.get_xlabel()
    'Epoch'
    """

    def __init__(self, history: Sequence[Mapping[str, Any]]) -> None:
        self.history = history

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, ax: Any = None, name: str | None = None, **kwargs: Any
    ) -> TrainingHistoryDisplay:
        """Read the history of a fitted classifier.

        Parameters
        ----------
        estimator : estimator
            Fitted: a :class:`DialoguePreferenceClassifier`, or a Pipeline, a search, a
            :class:`DialogueStateTracker` or an :class:`EscalatingClassifier` that holds one.
        ax : matplotlib Axes, default=None
            Axes to draw on at once; None draws nothing before :meth:`plot`.
        name : str, default=None
            Name of the classifier in the plot.
        **kwargs : object
            For :meth:`plot`; only with `ax`.

        Returns
        -------
        display : TrainingHistoryDisplay

        Raises
        ------
        NotFittedError
            If nothing in `estimator` has a history.
        """
        return drawn_at_once(cls(_history(estimator)), ax, name, kwargs)

    def frame(self) -> Any:
        """The history as a table.

        Returns
        -------
        pandas.DataFrame
            One row per epoch: ``epoch``, ``stage``, ``train_loss``, ``valid_loss`` (NaN without
            early stopping) and ``duration`` in seconds.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return to_pandas({name: [row[name] for row in self.history] for name in COLUMNS})

    def plot(
        self, ax: Any = None, *, name: str | None = None, **kwargs: Any
    ) -> TrainingHistoryDisplay:
        """Draw a line for each stage and, where dialogues were held out, one for their loss.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a new figure.
        name : str, default=None
            Name of the classifier in the plot, by default the one of the display.
        **kwargs : object
            For :meth:`matplotlib.axes.Axes.plot`, for all lines.

        Returns
        -------
        self : TrainingHistoryDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = self._axes(ax)
        from matplotlib.ticker import MaxNLocator

        stages = list(dict.fromkeys(row["stage"] for row in self.history))
        for number, stage in enumerate(stages):
            rows = [row for row in self.history if row["stage"] == stage]
            epochs = [row["epoch"] for row in rows]
            if number:
                ax.axvline(epochs[0] - 0.5, **REFERENCE)
            style = {"marker": MARKERS[number % len(MARKERS)], "color": f"C{number}"}
            for key, words, line in (
                ("train_loss", "training", "-"),
                ("valid_loss", "held-out dialogues", "--"),
            ):
                losses = np.array([row[key] for row in rows], dtype=np.float64)
                label = self._label(f"{stage}, {words}", name)
                if not np.isnan(losses).all():
                    shown = line_style({**style, "linestyle": line, "label": label}, kwargs)
                    ax.plot(epochs, losses, **shown)
        locator = ax.xaxis.get_major_locator()
        if isinstance(locator, MaxNLocator):  # not one of the user's
            locator.set_params(integer=True)
        return self._drawn(ax, "Epoch", "Loss")


def _history(estimator: Any) -> Sequence[Mapping[str, Any]]:
    """The history of an estimator or of the one that it has fitted."""
    inner = estimator
    while inner is not None:
        if hasattr(inner, "history_"):
            return list(inner.history_)
        if hasattr(inner, "steps"):
            inner = inner.steps[-1][1]
            continue
        parts = ("best_estimator_", "estimator_", "student_")
        inner = next((getattr(inner, part) for part in parts if hasattr(inner, part)), None)
    raise NotFittedError(
        f"{type(estimator).__name__} has no training history, in itself or in what it has fitted; "
        "fit it first, and pass a DialoguePreferenceClassifier or what holds one"
    )

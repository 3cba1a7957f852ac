"""One dialogue to look at, with all labels that its utterances have."""

from __future__ import annotations

from numbers import Integral
from reprlib import repr as short_repr
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_scalar

from sklearn_dialpref._dialogues.validation import Dialogues, check_dialogues, warn_of_other_order

from .dialogue_answers import Labels, answers_of
from .dialogue_html import as_fragment, as_page
from .dialogue_text import as_text
from .dialogue_turns import Conversation, counted, notes_on, turns_of

__all__ = ["DialogueView", "show_dialogue"]

_SHOWN_IDS = 5


class DialogueView:
    """A dialogue, as :func:`show_dialogue` returns it.

    A notebook shows it as HTML, a terminal as text, which ``str(view)`` returns as well. The text
    is as wide as the terminal, has ASCII marks only, and leaves out what the HTML folds.

    Parameters
    ----------
    conversation : Conversation
        What :func:`show_dialogue` has made of the dialogue and its labels.

    Examples
    --------
    >>> from sklearn_dialpref import show_dialogue
    >>> view = show_dialogue([["d1", "My parcel is late."], ["d1", "I am sorry!"]], "d1")
    >>> print(str(view).splitlines()[0])
    Dialogue d1: 2 turns
    >>> view.to_html()[:15]
    '<!DOCTYPE html>'
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    def __str__(self) -> str:
        return as_text(self._conversation)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_fragment(self._conversation)

    def to_html(self) -> str:
        """The dialogue as a page of its own.

        Returns
        -------
        html : str
            A page in UTF-8, without scripts, that loads nothing:
            ``Path("chat.html").write_text(view.to_html(), encoding="utf-8")``.
        """
        return as_page(self._conversation)


def show_dialogue(
    X: Any,
    dialogue_id: Any = None,
    *,
    y_human: Any = None,
    y_llm: Any = None,
    predicted: Any = None,
    proba: Any = None,
    classes: Any = None,
    suggestions: Any = None,
    suspects: Any = None,
    max_turns: int | None = 50,
) -> DialogueView:
    """Show a dialogue with the labels of humans, the LLM and the student.

    Each utterance is followed by what each source says of it. Where the LLM or the student says
    something else than the human, or the student something else than the LLM where no human has
    labelled, the label is marked. Rows that a person should label next and labels that are
    probably wrong are flagged.

    Parameters
    ----------
    X : DataFrame, ndarray or sequence of str, of n rows
        Utterances, in any form that the estimator accepts, with text; rows in any order. All
        labels are aligned to it.
    dialogue_id : object, default=None
        Which dialogue. None: the first one by its id; if ``X`` names no dialogues, all of its
        rows.
    y_human : array-like of shape (n,) or (n, L), default=None
        Human labels, missing where None, NaN or ``pd.NA``. 2-D: 0, 1 or missing per label
        (multilabel). Or states: a dict of slots and values per row.
    y_llm : array-like of shape (n,), (n, A) or (n, K), default=None
        Labels, votes or float scores of the LLM, or a state per row. Of votes and scores the
        first label is shown with its share; multilabel: those above 0.5.
    predicted : array-like of shape (n,) or (n, L), default=None
        Labels or states that a student predicts; None where it abstains. If it is None but
        ``proba`` is given, the label is the most probable one; multilabel: those above 0.5.
    proba : array-like of shape (n, K), default=None
        Probabilities of the student, from ``predict_proba``.
    classes : array-like of shape (K,), default=None
        Classes of the columns of ``proba`` and of ``y_llm``, such as ``clf.classes_``, where
        these are not DataFrames; the names of the labels of a multilabel problem.
    suggestions : Suggestions or array-like of int, default=None
        From :func:`suggest_annotations`, or positions of rows in ``X``.
    suspects : SuspectLabels, default=None
        From :func:`suspect_labels`. Labels that are wrong with a probability above 0.5 are
        flagged.
    max_turns : int or None, default=50
        Turns that are shown at once; the others are folded. Flagged turns and their neighbours
        come first, then turns with a disagreement, then the beginning. None: all.

    Returns
    -------
    view : DialogueView
        Shown as HTML by a notebook and as text by a terminal.

    Raises
    ------
    ValueError
        If ``X`` has no text or no such dialogue, or if labels do not fit it or one another.
    TypeError
        If ``suspects`` is not what :func:`suspect_labels` returns.

    Notes
    -----
    Texts, names and labels are shown as they are and never as markup. Characters that have no
    shape of their own, such as controls, zero-width ones and those that change the direction of
    the text, appear as escapes.

    The HTML needs no JavaScript, loads nothing, and follows the light or dark theme of
    JupyterLab, VS Code, Colab or the system. A folded turn is part of it, about 500 bytes each.

    Examples
    --------
    >>> from sklearn_dialpref import show_dialogue
    >>> X = [["d1", "My parcel is late."], ["d1", "I am sorry!"], ["d2", "Thank you."]]
    >>> human, llm = ["negative", None, "positive"], ["negative", "neutral", "positive"]
    >>> show_dialogue(X, "d1", y_human=human, y_llm=llm, predicted=["neutral", None, "positive"])
    Dialogue d1: 2 turns, 1 disagreement
    <BLANKLINE>
    ! 1  My parcel is late.
       - human negative | LLM negative | student neutral != human
      2  I am sorry!
       - LLM neutral | student no label
    """
    dialogues = check_dialogues(X)
    if dialogues.text is None:
        raise ValueError(
            "X holds precomputed features but no texts to show; pass the utterances, as a "
            "DataFrame with 'dialogue_id' and 'text', in the same order"
        )
    if max_turns is not None:
        check_scalar(max_turns, "max_turns", Integral, min_val=1)
    warn_of_other_order(X, y_human=y_human, y_llm=y_llm, predicted=predicted, proba=proba)
    rows, title, caption = _chosen(dialogues, dialogue_id)
    labels = Labels(y_human, y_llm, predicted, proba, classes)
    answers = answers_of(labels, len(dialogues), rows)
    turns = turns_of(dialogues, rows, answers, notes_on(suggestions, suspects, len(dialogues)))
    return DialogueView(Conversation(title, caption, turns, max_turns))


def _chosen(dialogues: Dialogues, dialogue_id: Any) -> tuple[NDArray[np.int64], str, str]:
    """The rows of the dialogue by turn, its title, and what is said of the other dialogues."""
    if dialogue_id is None and not dialogues.has_dialogues:
        return np.arange(len(dialogues)), "Utterances of no named dialogue", ""
    ids = dialogues.dialogue_id[np.unique(dialogues.group, return_index=True)[1]]
    code = 0 if dialogue_id is None else _code_of(dialogue_id, ids)
    rows = np.flatnonzero(dialogues.group == code)
    caption = ""
    if dialogue_id is None and len(ids) > 1:
        caption = (
            f"The first of {counted(len(ids), 'dialogue')}; choose another by dialogue_id=..."
        )
    return rows[np.argsort(dialogues.turn[rows])], f"Dialogue {ids[code]}", caption


def _code_of(dialogue_id: Any, ids: NDArray[Any]) -> int:
    codes = {value: code for code, value in enumerate(ids)}
    try:
        return codes[dialogue_id]
    except TypeError:
        raise ValueError(f"dialogue_id must name one dialogue, got {dialogue_id!r}") from None
    except KeyError:
        alike = [value for value in ids if str(value) == str(dialogue_id)]
        shown = ", ".join(map(short_repr, ids[:_SHOWN_IDS]))
        way_out = (
            f"it has {alike[0]!r} of the type {type(alike[0]).__name__}; pass that"
            if alike
            else f"pass one of its {counted(len(ids), 'dialogue')}, such as {shown}"
        )
        raise ValueError(f"X has no dialogue {dialogue_id!r}; {way_out}") from None

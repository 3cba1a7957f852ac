"""PersuasionForGood: persuasion to donate, with labels of people and three LLMs."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ._fetching import (
    PublicData,
    Source,
    Task,
    bunch_of,
    check_choice,
    github,
    load_table,
    optional,
)

if TYPE_CHECKING:
    from pandas import DataFrame, Series

_VOTES = "persuasion-nlp/persuasion-strategies", "321ed75b58ba051dc6ecf5e8a778ff3b551a0504"
_PEOPLE = "ohyj1002/persuasionforgood", "3fbc0df7bd2a081413cad6e6092e7c712efc26c4"
_LLMS = ("qwen3_30b", "mistral_small32", "phi4")
_TASKS = {
    "coarse": Task("persuader_gold_coarse", tuple(f"llm_{llm}_coarse" for llm in _LLMS)),
    "strategy": Task("persuader_gold", tuple(f"llm_{llm}_mapped" for llm in _LLMS)),
}

_APPEALS = (
    "logical-appeal",
    "emotion-appeal",
    "credibility-appeal",
    "foot-in-the-door",
    "self-modeling",
    "personal-story",
    "donation-information",
)
_INQUIRIES = ("source-related-inquiry", "task-related-inquiry", "personal-related-inquiry")
_COARSE = {**dict.fromkeys(_APPEALS, "appeal"), **dict.fromkeys(_INQUIRIES, "inquiry")}

# The LLMs' scheme in the words of the people's, as the LLM labels' authors map it.
_MAPPED = {
    strategy: label
    for label, strategies in {
        "logical-appeal": (
            "Rational Appeal",
            "Logical Appeal",
            "Activation of Impersonal Commitment",
            "Commitment and Consistency",
        ),
        "emotion-appeal": (
            "Emotional Appeal",
            "Empathy Appeal",
            "Sympathy Appeal",
            "Fear Appeal",
            "Emotional Manipulation",
            "Guilt Induction",
            "Moral Appeal",
            "Appeal to Values",
        ),
        "credibility-appeal": (
            "Credibility Appeal",
            "Authority",
            "Expertise",
            "Social Proof",
            "Unity",
            "Social Positioning",
        ),
        "foot-in-the-door": ("Foot-in-the-door", "Door-in-the-face"),
        "self-modeling": ("Activation of Personal Commitment", "Self-feeling Appeal"),
        "personal-story": ("Storytelling",),
        "donation-information": (
            "Call to Action",
            "Framing",
            "Loss Aversion Appeal",
            "Urgency",
            "Scarcity",
        ),
        "source-related-inquiry": ("Charity Awareness Probe",),
        "task-related-inquiry": (
            "Qualification / Segmentation",
            "Donation Baseline / Habit Probe",
            "Permission / Time Check",
        ),
        "greeting": ("Greeting / Rapport",),
        "acknowledgement": ("Acknowledgement",),
        "closing": ("Conversation Closing",),
        "proposition-of-donation": ("Logistics / Coordination",),
        "praise-user": ("Liking",),
        "other": (
            "Non-persuasive Other",
            "Rewarding Activity",
            "Pre-giving",
            "Reciprocity",
            "Debt",
            "Threat",
            "Aversive Stimulation",
            "Punishing Activity",
            "Overloading",
            "Confusion Induction",
            "Bait-and-switch",
            "Pretexting",
            "Promise",
            "Scarcity Manipulation",
        ),
    }.items()
    for strategy in strategies
}


def _parse(folder: Path) -> DataFrame:
    pd = optional("pandas")
    raw = _csv(pd, folder / "full_dialog_with_all_analysis.csv")
    votes = {
        llm: _csv(pd, folder / f"{name}_annotations.csv").set_index("original_index")
        for llm, name in (("mistral_small32", "mistral"), ("phi4", "phi4"))
    }
    row = raw.index.astype(str)
    frame = pd.DataFrame({"split": "all", "dialogue_id": raw["B2"]})
    frame["turn"] = frame.groupby("dialogue_id", sort=False).cumcount()
    frame["speaker"] = raw["B4"].map({"0": "persuader", "1": "persuadee"})
    frame["text"] = raw["Unit"].str.split().str.join(" ")
    frame["p4g_turn"] = raw["Turn"].astype("int64")
    frame["llm_qwen3_30b_strategy"] = _filled(raw["strategy_ollama_single"])
    for column in ("strategy", "category"):
        for llm, name in (("mistral_small32", "mistral"), ("phi4", "phi4")):
            answers = _filled(votes[llm][f"{name}_{column}"])
            frame[f"llm_{llm}_{column}"] = answers.reindex(row).to_numpy()
    frame["llm_qwen3_30b_sentiment"] = _filled(raw["sentiment_ollama_v2"])
    _add_human_labels(pd, frame, folder)
    for llm in _LLMS:
        frame[f"llm_{llm}_mapped"] = frame[f"llm_{llm}_strategy"].map(_MAPPED)
        frame[f"llm_{llm}_coarse"] = _coarse(frame[f"llm_{llm}_mapped"])
    return frame


def _add_human_labels(pd: ModuleType, frame: DataFrame, folder: Path) -> None:
    rows = pd.MultiIndex.from_frame(frame[["dialogue_id", "p4g_turn", "speaker"]])
    sentences = _sentence_labels(pd, folder / "300_dialog.xlsx")
    frame["human_sentence_labels"] = sentences.map("|".join).reindex(rows).to_numpy()
    frame["human_label"] = sentences.map(_most_telling).reindex(rows).to_numpy()
    gold = _csv(pd, folder / "gold_validation_merged.csv")
    keys = [gold["B2"], gold["Turn"].astype("int64"), ["persuader"] * len(gold)]
    best = pd.Series(gold["best_label"].to_numpy(), index=pd.MultiIndex.from_arrays(keys))
    frame["persuader_gold"] = best.reindex(rows).to_numpy()
    frame["persuader_gold_coarse"] = _coarse(frame["persuader_gold"])


def _sentence_labels(pd: ModuleType, path: Path) -> Series:
    """Labels of each utterance's sentences, in order."""
    raw = pd.read_excel(path, engine="openpyxl")
    raw["speaker"] = raw["B4"].map({0: "persuader", 1: "persuadee"})
    raw["label"] = raw["er_label_1"].where(raw["B4"] == 0, raw["ee_label_1"])
    labelled = raw[raw["label"].notna()].astype({"Turn": "int64"})
    return labelled.groupby(["B2", "Turn", "speaker"], sort=False)["label"].agg(list)


def _most_telling(labels: list[str]) -> str:
    """Most frequent label, the first of several; appeals and inquiries come before the others."""
    counts = Counter([label for label in labels if label in _COARSE] or labels)
    return counts.most_common(1)[0][0]


def _coarse(labels: Series) -> Series:
    return labels.map(_COARSE).fillna("non-strategy").where(labels.notna(), None)


def _filled(answers: Series) -> Series:
    return answers.astype(object).where(answers != "", None)


def _csv(pd: ModuleType, path: Path) -> DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")


P4G = PublicData(
    name="p4g",
    sources=(
        Source(
            "full_dialog_with_all_analysis.csv",
            github(*_VOTES, "full_dialog_with_all_analysis.csv"),
            2976783,
            "01ad5602ae17df52ec3aea195b860a82a863cfbb85d92426c64750831d550e95",
        ),
        Source(
            "mistral_annotations.csv",
            github(*_VOTES, "mistral_annotations.csv"),
            2136626,
            "fa3bfbcec7d9303026f929412f413d6f82695c6bd69f0faba736b413196154a3",
        ),
        Source(
            "phi4_annotations.csv",
            github(*_VOTES, "phi4_annotations.csv"),
            2127624,
            "65107208a857e24379cd6228bf990b622c8094d3e3c371e51ca8c52c9565e28b",
        ),
        Source(
            "gold_validation_merged.csv",
            github(*_VOTES, "gold_validation_merged.csv"),
            432654,
            "053652dbb41a654deab4a19a70e51a358c1a5272fe2895064915376079b2ff79",
        ),
        Source(
            "300_dialog.xlsx",
            github(*_PEOPLE, "data/AnnotatedData/300_dialog.xlsx"),
            852322,
            "48e292ceb4b5574694e82581eb2a25883ce9ef75817193820dfe3c5621c62767",
        ),
    ),
    parse=_parse,
    fingerprint="f97db4c15a8ce441800c82613ee27485a738b781a9e4b92925cd9e36b796b096",
)


def fetch_p4g(
    *,
    task: str = "coarse",
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    return_X_y: bool = False,
    as_frame: bool = True,
    n_retries: int = 3,
    delay: float = 1.0,
) -> Any:
    """Load persuasive dialogues with strategies that people and three LLMs gave.

    In PersuasionForGood, one person persuades another to donate to a charity. People labelled the
    persuader's utterances of 300 dialogues with a strategy. Three LLMs labelled those of all
    dialogues, in a scheme of their own that was mapped to that of the people. All LLM labels are
    real answers. The data is downloaded at the first call, 9 MB.

    ==================  =====================================================
    Dialogues           1,017 (300 with human labels)
    Utterances          20,932 (10,600 of persuaders, 3,047 with a human
                        label)
    Strategies          27 (3 coarse)
    LLMs                Qwen3 30B, Mistral Small 3.2, Phi-4
    Licence             Apache-2.0; LLM labels CC BY 4.0
    ==================  =====================================================

    Please cite Wang et al., "Persuasion for Good: Towards a Personalized Persuasive Dialogue
    System for Social Good", ACL 2019. `DESCR` has the sources and says what each column is.

    Parameters
    ----------
    task : {"coarse", "strategy"}, default="coarse"
        What the labels say: "coarse" tells appeals, inquiries and other utterances apart, where
        the LLMs are right in about 73 %; "strategy" has 27 classes, of which the LLMs know 15 and
        are right in about 30 %.
    data_home : path-like or None, default=None
        Folder of all public data sets: the table lies there as ``p4g.parquet``, and the raw
        downloads in its folder ``p4g``. None: the environment variable ``DIALPREF_DATA``, or
        ``~/sklearn_dialpref_data``.
    download_if_missing : bool, default=True
        False: raise an OSError if the data is not there, rather than download it.
    return_X_y : bool, default=False
        Return ``(X, y_human, y_llm)`` instead of a Bunch.
    as_frame : bool, default=True
        True: `X`, `y_llm` and `frame` are pandas DataFrames, `y_human` is a pandas Series.
        False: all are arrays.
    n_retries : int, default=3
        How often a download that failed is tried again.
    delay : float, default=1.0
        Seconds between two tries.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the attributes

        X : DataFrame of shape (20932, 4) or ndarray of shape (20932, 2)
            Columns `dialogue_id`, `turn`, `speaker`, `text`; as an array `dialogue_id` and
            `text`.
        y_human : Series or ndarray of shape (20932,)
            What people say, None where there is no label.
        y_llm : DataFrame or ndarray of shape (20932, n_votes), of objects
            What the LLMs say, one column for each of the three, None in the persuadee's
            utterances.
        groups : ndarray of shape (20932,)
            The dialogue of each utterance.
        classes : ndarray of shape (n_classes,)
            The sorted human labels.
        frame : DataFrame or None
            All columns of the table; None if `as_frame` is False.
        DESCR : str
            Columns, licence, citation and sources.
    (X, y_human, y_llm) : tuple
        If `return_X_y` is True.

    Raises
    ------
    ImportError
        If the packages of ``pip install "sklearn-dialpref[datasets]"`` are missing.
    OSError
        If a file cannot be downloaded, read or written, or is not the one that is expected.
    ValueError
        If `task` is unknown, or the raw files cannot be parsed.

    Warns
    -----
    UserWarning
        If the table is not the one that published figures were measured with.

    See Also
    --------
    fetch_deli : Group discussions.
    fetch_meld : Scenes of a television series, with emotions.
    fetch_talkmoves : Lessons, with a bank of prompts.

    Examples
    --------
    >>> from sklearn_dialpref.datasets import fetch_p4g
    >>> data = fetch_p4g()  # doctest: +SKIP
    >>> data.X.shape, data.classes.tolist()  # doctest: +SKIP
    ((20932, 4), ['appeal', 'inquiry', 'non-strategy'])
    >>> int(data.y_human.notna().sum())  # doctest: +SKIP
    3047
    """
    check_choice("task", task, _TASKS)
    frame = load_table(
        P4G,
        data_home,
        download_if_missing=download_if_missing,
        n_retries=n_retries,
        delay=delay,
    )
    return bunch_of(frame, _TASKS[task], "p4g.rst", return_X_y=return_X_y, as_frame=as_frame)

"""DeliData: groups that solve a puzzle in a chat, with labels of people and of three LLMs."""

from __future__ import annotations

import json
import os
from pathlib import Path
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
    from pandas import DataFrame

_REPOSITORY = "Videepvv/LLM-Dialogue-Annotation-AIED"
_COMMIT = "3cfeca7c8ccf99869ef40e76f38619d3435938f6"
_LLMS = {
    "gpt4omini": "deli_gpt-4o-mini.json",
    "qwen25_32b": "deli_qwen-32b.json",
    "gemini20flash": "deli_gemini-2.0-flash.json",
}
_TYPES = {-1: "none", 0: "probing", 1: "non-probing-deliberation"}
_TARGETS = {0: "none", 1: "solution", 2: "reasoning", 3: "moderation", 4: "agree", 5: "disagree"}
_TASKS = {
    label: Task(label, tuple(f"llm_{llm}_{label}" for llm in _LLMS))
    for label in ("type", "target")
}


def _parse(folder: Path) -> DataFrame:
    pd = optional("pandas")
    answers = {
        llm: pd.DataFrame(json.loads((folder / file).read_text(encoding="utf-8"))).set_index("idx")
        for llm, file in _LLMS.items()
    }
    # the longest file has every utterance; the others stop earlier
    whole = answers["gpt4omini"].sort_index()
    frame = pd.DataFrame({"split": "all", "dialogue_id": whole["group_id"]})
    frame["turn"] = frame.groupby("dialogue_id", sort=False).cumcount()
    frame["speaker"] = whole["participant"]
    frame["text"] = whole["utterance"].str.split().str.join(" ")
    frame["type"] = whole["gt_type"].map(_TYPES)
    frame["target"] = whole["gt_target"].map(_TARGETS)
    for llm, answer in answers.items():
        frame[f"llm_{llm}_type"] = answer["pred_type"].map(_TYPES)
        frame[f"llm_{llm}_target"] = answer["pred_target"].map(_TARGETS)
    return frame.reset_index(drop=True)


DELI = PublicData(
    name="deli",
    sources=tuple(
        Source(file, github(_REPOSITORY, _COMMIT, f"results/DELI/{file}"), size, sha256)
        for file, size, sha256 in (
            (
                "deli_gpt-4o-mini.json",
                2749750,
                "b00d5ec482ba7bbb83499facc779b6a56e8e228c248d64182f1769bfa597b8c1",
            ),
            (
                "deli_qwen-32b.json",
                1692981,
                "38ccf85bb2fa5098b48ecbb9bccd2e10cb13f7d549c232aca2e35d98b722b0c0",
            ),
            (
                "deli_gemini-2.0-flash.json",
                1167437,
                "098c6734ec169b0708ee66bcfa01bcb4fd952bdf86ebe61998cf0f1cef976b69",
            ),
        )
    ),
    parse=_parse,
    fingerprint="0fa55b593258a4e864fa00272b8731ab8df5168b2c998af1f7d23707c41e9c92",
)


def fetch_deli(
    *,
    task: str = "type",
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    return_X_y: bool = False,
    as_frame: bool = True,
    n_retries: int = 3,
    delay: float = 1.0,
) -> Any:
    """Load discussions of groups with labels that people and three LLMs gave (DeliData).

    Groups of people solve a puzzle in a chat. People labelled each utterance with the type and
    the target of its deliberation. Three LLMs did the same on all, on the first 3,000 and on the
    first 2,350 utterances. All LLM labels are real answers. The data is downloaded at the first
    call, 6 MB.

    ==================  =====================================================
    Dialogues           183
    Utterances          5,000
    Types               3
    Targets             6
    LLMs                GPT-4o mini, Qwen 2.5 32B, Gemini 2.0 Flash
    Licence             DeliData CC BY 4.0; LLM labels MIT
    ==================  =====================================================

    Please cite Karadzhov et al., "DeliData: A dataset for deliberation in multi-party problem
    solving", CSCW 2023. `DESCR` has the sources and says what each column is.

    Parameters
    ----------
    task : {"type", "target"}, default="type"
        What the labels say.
    data_home : path-like or None, default=None
        Folder of all public data sets: the table lies there as ``deli.parquet``, and the raw
        downloads in its folder ``deli``. None: the environment variable ``DIALPREF_DATA``, or
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

        X : DataFrame of shape (5000, 4) or ndarray of shape (5000, 2)
            Columns `dialogue_id`, `turn`, `speaker`, `text`; as an array `dialogue_id` and
            `text`.
        y_human : Series or ndarray of shape (5000,)
            What people say. There is a label for every utterance.
        y_llm : DataFrame or ndarray of shape (5000, n_votes), of objects
            What the LLMs say, one column for each of the three, None where they were not asked.
        groups : ndarray of shape (5000,)
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
    fetch_meld : Scenes of a television series, with emotions.
    fetch_p4g : Persuasion.
    fetch_talkmoves : Lessons, with a bank of prompts.

    Examples
    --------
    >>> from sklearn_dialpref.datasets import fetch_deli
    >>> data = fetch_deli(task="target")  # doctest: +SKIP
    >>> data.X.shape, data.classes.tolist()  # doctest: +SKIP
    ((5000, 4), ['agree', 'disagree', 'moderation', 'none', 'reasoning', 'solution'])
    >>> data.y_llm.notna().sum().tolist()  # doctest: +SKIP
    [5000, 3000, 2350]
    """
    check_choice("task", task, _TASKS)
    frame = load_table(
        DELI,
        data_home,
        download_if_missing=download_if_missing,
        n_retries=n_retries,
        delay=delay,
    )
    return bunch_of(frame, _TASKS[task], "deli.rst", return_X_y=return_X_y, as_frame=as_frame)

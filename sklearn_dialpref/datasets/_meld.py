"""MELD: scenes of a television series, with labels of people and of several LLMs."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

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

_MELD = "declare-lab/MELD", "2d2011b409d3ca2d7e94460cd007d434b1d0a102"
_MELT = "KeiKinn/meltdataset", "1447085ccffe2a9aba496945591d68c4b26c8070"
_WINDOWS = "Huyoyo1/Emotion", "71f047b540821e914b5939bae3fc99825e76bb10"

_EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
# MELT has no sentiment: surprise counts as negative, which it is in about half of the utterances
_SENTIMENT_OF = {"joy": "positive", "neutral": "neutral"}

# Answers on the test split, by the number of earlier utterances shown: the column and its file.
# GPT-3.5's files 0 and 1 say themselves that their windows are 1 and 0, and Llama's first three
# files lie in GPT-3.5's folder.
_WINDOW_FILES = {
    "llm_gpt4o_w0": "gpt4o/MELD_gpt4o_results_window_0.csv",
    "llm_gpt4o_w1": "gpt4o/MELD_gpt4o_results_window_1.csv",
    "llm_gpt4o_w3": "gpt4o/MELD_gpt4o_results_window_3.csv",
    "llm_gpt35_w1": "gpt3.5/MELD_gpt3_5_results_0.csv",
    "llm_gpt35_w0": "gpt3.5/MELD_gpt3_5_results_1.csv",
    "llm_gpt35_w3": "gpt3.5/MELD_gpt3_5_results_3.csv",
    "llm_gemma2_w0": "Gemma2/MELD_Gemma_prediction_results_0.csv",
    "llm_gemma2_w1": "Gemma2/MELD_Gemma_prediction_results_1.csv",
    "llm_gemma2_w3": "Gemma2/MELD_Gemma_prediction_results_3.csv",
    "llm_gemma2_w5": "Gemma2/MELD_Gemma_prediction_results_5.csv",
    "llm_llama31_w0": "gpt3.5/MELD_Llama_prediction_results_0.csv",
    "llm_llama31_w1": "gpt3.5/MELD_Llama_prediction_results_1.csv",
    "llm_llama31_w3": "gpt3.5/MELD_Llama_prediction_results_3.csv",
    "llm_llama31_w5": "Llama3.1/MELD_Llama_prediction_results_5.csv",
    "llm_llama31_1shot_w0": "llama_1_shot/MELD_Llama_1_shot_prediction_results_0.csv",
    "llm_llama31_1shot_w1": "llama_1_shot/MELD_Llama_1_shot_prediction_results_1.csv",
    "llm_llama31_1shot_w3": "llama_1_shot/MELD_Llama_1_shot_prediction_results_3.csv",
    "llm_llama31_gpt4o_2step_w0": "llamagpt4o/MELD_llamagpt_results_0.csv",
}
# the last of these columns that a file has holds the answers
_ANSWERS = ("Predicted_Emotion", "1-shot_Prediction", "Second_Predicted_Emotion")
# In these files the answers of each dialogue have moved round, see `_window_votes`.
_MOVED = ("llm_gpt35", "llm_gemma2", "llm_llama31_w", "llm_llama31_gpt4o")
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("‘’\x91\x92", "'"),
        **dict.fromkeys("“”\x93\x94", '"'),
        **dict.fromkeys("–—\x96\x97", "-"),
        **dict.fromkeys("…\x85", "..."),
    }
)

_TASKS = {
    "sentiment": Task("sentiment", ("llm_gpt4o_melt_sentiment_derived",)),
    "emotion": Task("emotion", ("llm_gpt4o_melt", *_WINDOW_FILES)),
}
_PARTS = ("train", "dev", "test")


def _parse(folder: Path) -> DataFrame:
    pd = optional("pandas")
    parts = [_utterances(pd, folder / f"{part}_sent_emo.csv", part) for part in _PARTS]
    frame = pd.concat(parts, ignore_index=True)
    melt = pd.concat([_melt(pd, folder / f"meld_{part}.csv", part) for part in ("train", "test")])
    rows = pd.MultiIndex.from_frame(frame[["dialogue_id", "turn"]])
    frame["llm_gpt4o_melt"] = melt.reindex(rows).to_numpy()
    test = (frame["split"] == "test").to_numpy()
    for column, file in _WINDOW_FILES.items():
        votes = _window_votes(pd, folder / Path(file).name, column, frame.loc[test, "dialogue_id"])
        frame.loc[test, column] = votes
    emotion = frame["llm_gpt4o_melt"]
    frame["llm_gpt4o_melt_sentiment_derived"] = (
        emotion.map(_SENTIMENT_OF).fillna("negative").where(emotion.notna(), None)
    )
    return frame


def _utterances(pd: ModuleType, path: Path, part: str) -> DataFrame:
    raw = _csv(pd, path)
    return pd.DataFrame(
        {
            "split": part,
            "dialogue_id": [f"{part}_{number}" for number in raw["Dialogue_ID"]],
            "turn": raw["Utterance_ID"].astype("int64"),
            "speaker": raw["Speaker"].map(_plain),
            "text": raw["Utterance"].map(_plain),
            "emotion": raw["Emotion"],
            "sentiment": raw["Sentiment"],
            "season": raw["Season"].astype("int64"),
            "episode": raw["Episode"].astype("int64"),
        }
    )


def _plain(text: str) -> str:
    """Typographic quotes and dashes, also those of Windows, as plain ones; single spaces."""
    return " ".join(text.translate(_PLAIN).split())


def _melt(pd: ModuleType, path: Path, part: str) -> Series:
    """GPT-4o's emotions of MELT, by dialogue and turn."""
    raw = _csv(pd, path)
    dialogues = [f"{part}_{number}" for number in raw["Dialogue_ID"]]
    rows = pd.MultiIndex.from_arrays([dialogues, raw["Utterance_ID"].astype("int64")])
    return pd.Series(_emotions(raw["llm_label"]).to_numpy(), index=rows, dtype=object)


def _window_votes(pd: ModuleType, path: Path, column: str, dialogues: Series) -> list[str | None]:
    """Answers on the test split, row by row.

    In the files of some models, the answers of a dialogue that starts at row s of the split and
    has n utterances have moved by s places to the front, those at the front to the end. The
    accuracy that the authors report for these files is that of the moved answers.
    """
    raw = _csv(pd, path)
    if len(raw) != len(dialogues):
        raise ValueError(f"{path.name} must have {len(dialogues)} rows, got {len(raw)}")
    name = [name for name in _ANSWERS if name in raw][-1]
    answers = np.array(_emotions(raw[name]), dtype=object)
    if column.startswith(_MOVED):
        places = pd.Series(range(len(raw)))
        for _, rows in places.groupby(dialogues.to_numpy(), sort=False):
            answers[rows] = np.roll(answers[rows], rows.iloc[0])
    return list(answers)


def _emotions(answers: Series) -> Series:
    """Answers that are one of the emotions, as MELD writes them; None for any other."""
    answers = answers.str.strip().str.lower().astype(object)
    return answers.where(answers.isin(_EMOTIONS), None)


def _csv(pd: ModuleType, path: Path) -> DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")


MELD = PublicData(
    name="meld",
    sources=(
        Source(
            "train_sent_emo.csv",
            github(*_MELD, "data/MELD/train_sent_emo.csv"),
            1119290,
            "d2fa2d6529cf03cac2989efec05c9b27d8fd2f4c8fc5974c7ae88aa537fa02db",
        ),
        Source(
            "dev_sent_emo.csv",
            github(*_MELD, "data/MELD/dev_sent_emo.csv"),
            121640,
            "2e89c6f8aa182d6f62f8c6331aece905ac7273ca4999660bfb5213e1d0370c1c",
        ),
        Source(
            "test_sent_emo.csv",
            github(*_MELD, "data/MELD/test_sent_emo.csv"),
            294526,
            "8d37103938f7067600839fe29d5a114a6cd1bcdafb75bec101e06464c5006888",
        ),
        # of the LLMs' answers the repositories' commits are known, not the files' hashes
        Source("meld_train.csv", github(*_MELT, "meld_train.csv")),
        Source("meld_test.csv", github(*_MELT, "meld_test.csv")),
        *(
            Source(Path(file).name, github(*_WINDOWS, f"evaluation_results/{file}"))
            for file in _WINDOW_FILES.values()
        ),
    ),
    parse=_parse,
    fingerprint="12b1707f3d489c84f2e3f048ebaac0e0779bf9f6e3bfc26f7d3b2834d7e040af",
)


def fetch_meld(
    *,
    task: str = "sentiment",
    subset: str = "all",
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    return_X_y: bool = False,
    as_frame: bool = True,
    n_retries: int = 3,
    delay: float = 1.0,
) -> Any:
    """Load scenes of a television series with emotions that people and LLMs gave (MELD).

    The utterances of MELD have an emotion and a sentiment that people gave. GPT-4o labelled about
    70 % of those of the training and of the test part; on the test part there are also answers of
    GPT-3.5, Gemma 2 and Llama 3.1, which saw different numbers of earlier utterances. All LLM
    labels are real answers. The data is downloaded at the first call, 6 MB.

    ==================  ============================================
    Dialogues           1,432 (train 1,038, dev 114, test 280)
    Utterances          13,708 (train 9,989, dev 1,109, test 2,610)
    Emotions            7
    Sentiments          3
    Licence             GPL-3.0; LLM labels: none stated
    ==================  ============================================

    Please cite Poria et al., "MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in
    Conversations", ACL 2019. `DESCR` has the sources and says what each column is.

    Parameters
    ----------
    task : {"sentiment", "emotion"}, default="sentiment"
        What the labels say. The LLM labels of the sentiment are derived from GPT-4o's emotions,
        and wrong where surprise is positive.
    subset : {"all", "train", "validation", "dev", "test"}, default="all"
        Part of the data. "dev" and "validation" are the same.
    data_home : path-like or None, default=None
        Folder of all public data sets: the table lies there as ``meld.parquet``, and the raw
        downloads in its folder ``meld``. None: the environment variable ``DIALPREF_DATA``, or
        ``~/sklearn_dialpref_data``.
    download_if_missing : bool, default=True
        False: raise an OSError if the data is not there, rather than download it.
    return_X_y : bool, default=False
        Return ``(X, y_human, y_llm)`` instead of a Bunch.
    as_frame : bool, default=True
        True: `X`, `y_llm` and `frame` are pandas DataFrames, `y_human` and `split` pandas Series.
        False: all are arrays.
    n_retries : int, default=3
        How often a download that failed is tried again.
    delay : float, default=1.0
        Seconds between two tries.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the attributes

        X : DataFrame of shape (n_utterances, 4) or ndarray of shape (n_utterances, 2)
            Columns `dialogue_id`, `turn`, `speaker`, `text`; as an array `dialogue_id` and
            `text`.
        y_human : Series or ndarray of shape (n_utterances,)
            What people say. There is a label for every utterance.
        y_llm : DataFrame or ndarray of shape (n_utterances, n_votes), of objects
            What the LLMs say, None where they were not asked or gave no emotion: one column for
            the sentiment, 19 for the emotion.
        groups : ndarray of shape (n_utterances,)
            The dialogue of each utterance.
        classes : ndarray of shape (n_classes,)
            The sorted human labels.
        split : Series or ndarray of shape (n_utterances,)
            "train", "dev" or "test".
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
        If `task` or `subset` is unknown, or the raw files cannot be parsed.

    Warns
    -----
    UserWarning
        If the table is not the one that published figures were measured with.

    See Also
    --------
    fetch_deli : Group discussions.
    fetch_p4g : Persuasion.
    fetch_talkmoves : Lessons, with a bank of prompts.

    Examples
    --------
    >>> from sklearn_dialpref.datasets import fetch_meld
    >>> train = fetch_meld(subset="train")  # doctest: +SKIP
    >>> train.X.shape, train.classes.tolist()  # doctest: +SKIP
    ((9989, 4), ['negative', 'neutral', 'positive'])
    >>> int(train.y_llm.notna().any(axis=1).sum())  # doctest: +SKIP
    7024
    """
    check_choice("task", task, _TASKS)
    check_choice("subset", subset, (*_PARTS, "validation", "all"))
    frame = load_table(
        MELD,
        data_home,
        download_if_missing=download_if_missing,
        n_retries=n_retries,
        delay=delay,
    )
    if subset != "all":
        frame = frame[frame["split"] == subset.replace("validation", "dev")]
    return bunch_of(frame, _TASKS[task], "meld.rst", return_X_y=return_X_y, as_frame=as_frame)

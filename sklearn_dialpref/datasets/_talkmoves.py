"""TalkMoves: mathematics lessons, with labels of people and of LLMs with several prompts."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ._fetching import PublicData, Source, Task, bunch_of, github, load_table, optional

if TYPE_CHECKING:
    from pandas import DataFrame, Series

_REPOSITORY = "National-Tutoring-Observatory/Baseline_Performance_Pipeline"
_LESSONS = "c80cf7f2557367b376e6f64ce32ca661f5250db4"
_FULL = "2d48e71ef8d7d056fc2d213725a21536e3991c1a"
_STRATIFIED = "2d144421e0105158b45136d87171ae960d5b2f91"

# by the codes of the transcripts
_MOVES = (
    "None",
    "Keeping Everyone Together",
    "Getting Students to Relate",
    "Restating",
    "Revoicing",
    "Pressing for Accuracy",
    "Pressing for Reasoning",
)
_MODELS = {
    "claude45opus": "anthropic.claude-4.5-opus",
    "claude45sonnet": "anthropic.claude-4.5-sonnet",
    "gemini25pro": "google.gemini-2.5-pro",
    "gemini3pro": "google.gemini-3-pro-preview",
    "gpt5": "openai.gpt-5",
    "o3": "openai.o3",
}
_STRATIFIED_PROMPTS = {
    "fs3": "FewShot_3",
    "fsall": "FewShot_ALL",
    "os": "OneShot",
    "zs": "ZeroShot",
}
# the columns have the names by which figures are published
_FULL_PROMPTS = {"zs": "ZeroShot", "zsv2": "OneShot", "zsv3": "FewShot_3", "zsv4": "FewShot_ALL"}


def _full_file(prompt: str, model: str) -> str:
    # of OneShot there is no file of Gemini 3 Pro; the column has the votes of the other prompt
    name = "FewShot_ALL" if (prompt, model) == ("zsv2", "gemini3pro") else _FULL_PROMPTS[prompt]
    return f"TalkMoves_Teacher_{name}_{_MODELS[model]}_joined.csv"


_FULL_FILES = {
    f"llm_full_{prompt}_{model}": _full_file(prompt, model)
    for prompt in _FULL_PROMPTS
    for model in _MODELS
    if model != "claude45opus" and (prompt, model) != ("zsv4", "gemini3pro")
}
_STRATIFIED_FILES = {
    f"llm_strat_{prompt}_{model}": f"TalkMoves_Teacher_{name}_{_MODELS[model]}_joined.csv"
    for prompt, name in _STRATIFIED_PROMPTS.items()
    for model in _MODELS
}
_TASK = Task("talkmove", tuple(_FULL_FILES))


def _parse(folder: Path) -> DataFrame:
    pd = optional("pandas")
    raw = _csv(pd, folder / "test_data_63.csv")
    number = raw["ID"].astype("int64")
    lesson = pd.factorize(raw["Transcript"])[0]
    codes = raw["Tag"].map({str(code): move for code, move in enumerate(_MOVES)})
    frame = pd.DataFrame(
        {
            "split": "all",
            "dialogue_id": [f"lesson_{k:02d}" for k in lesson],
            "turn": number - number.groupby(lesson).transform("min"),
            "speaker": raw["Speaker"],
            "text": raw["Sentence"].str.strip(),
            "talkmove": codes.where(raw["Speaker"] == "T", None),
        }
    )
    for kind, columns in (("stratified", _STRATIFIED_FILES), ("full", _FULL_FILES)):
        for column, file in columns.items():
            frame[column] = number.map(_votes(pd, folder / kind / file))
    frame.loc[raw["Speaker"] != "T", [*_STRATIFIED_FILES, *_FULL_FILES]] = None
    labels = ["talkmove", *_STRATIFIED_FILES, *_FULL_FILES]
    frame = frame.astype(dict.fromkeys(labels, "category"))
    # utterances of no words have the text "nan"
    return frame[~frame["text"].isin(["nan", ""])].reset_index(drop=True)


def _votes(pd: ModuleType, path: Path) -> Series:
    """Moves by the number of the utterance; the first answer, if there are several."""
    raw = _csv(pd, path)
    moves = raw["TalkMove_Pred"].replace(
        "Getting Students to Relate to Another's Ideas", _MOVES[2]
    )
    moves = moves.astype(object).where(moves.isin(_MOVES), None)
    moves.index = raw["ID"].astype("int64")
    return moves[~moves.index.duplicated()]


def _csv(pd: ModuleType, path: Path) -> DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")


TALKMOVES = PublicData(
    name="talkmoves",
    sources=(
        Source(
            "test_data_63.csv",
            github(_REPOSITORY, _LESSONS, "data/inputs/ground_truth/test_data_63.csv"),
        ),
        *(
            Source(
                f"{kind}/{file}",
                github(_REPOSITORY, commit, f"results/{results}/bootstrap_data/{file}"),
            )
            for kind, commit, results, files in (
                ("stratified", _STRATIFIED, "Baseline_Experiments", _STRATIFIED_FILES),
                ("full", _FULL, "full_sample", _FULL_FILES),
            )
            for file in files.values()
        ),
    ),
    parse=_parse,
    fingerprint="964a91c85e6e010db2e3e69c99412755099e11f2ec2b31099f702906e86ab84f",
)


def fetch_talkmoves(
    *,
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    return_X_y: bool = False,
    as_frame: bool = True,
    n_retries: int = 3,
    delay: float = 1.0,
) -> Any:
    """Load mathematics lessons with talk moves that people, and LLMs with several prompts, gave.

    People labelled each utterance of a teacher with a talk move, or "None". Five LLMs did the same
    with up to four prompts each: a real bank of prompts and models. `frame` has 24 more columns of
    answers on 10,522 of the utterances, by prompts with and without examples. All LLM labels are
    real answers. The data is downloaded at the first call, 80 MB.

    ==================  =====================================================
    Lessons             63
    Utterances          30,202 (23,208 of teachers)
    Talk moves          7, one of them the string "None"; strongly imbalanced
    LLMs                Claude Sonnet 4.5, Gemini 2.5 Pro, Gemini 3 Pro,
                        GPT-5, o3
    Licence             CC BY-NC-SA 4.0; LLM labels: none stated
    ==================  =====================================================

    Please cite Suresh et al., "The TalkMoves Dataset: K-12 Mathematics Lesson Transcripts
    Annotated for Teacher and Student Discursive Moves", LREC 2022. `DESCR` has the sources and
    says what each column is.

    .. warning::
        A downloaded table differs from the one that published figures were measured with, and
        loading it warns: by the authors' counts, that one has 0.4 % more votes in `y_llm`, all of
        Gemini, probably from answers that were cut off and that the downloads leave out. No hashes
        of these downloads were known either; only their beginnings were compared, and agreed.

    Parameters
    ----------
    data_home : path-like or None, default=None
        Folder of all public data sets: the table lies there as ``talkmoves.parquet``, and the raw
        downloads in its folder ``talkmoves``. None: the environment variable ``DIALPREF_DATA``, or
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

        X : DataFrame of shape (30202, 4) or ndarray of shape (30202, 2)
            Columns `dialogue_id`, `turn`, `speaker`, `text`; as an array `dialogue_id` and
            `text`.
        y_human : Series or ndarray of shape (30202,)
            What people say, None in utterances of students.
        y_llm : DataFrame or ndarray of shape (30202, n_votes), of objects
            What the LLMs say, a column for each of the 19 pairs of prompt and model, None in
            utterances of students and where there is no answer.
        groups : ndarray of shape (30202,)
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
        If the raw files cannot be parsed.

    Warns
    -----
    UserWarning
        If the table is not the one that published figures were measured with.

    See Also
    --------
    fetch_deli : Group discussions.
    fetch_meld : Scenes of a television series, with emotions.
    fetch_p4g : Persuasion.

    Examples
    --------
    >>> from sklearn_dialpref.datasets import fetch_talkmoves
    >>> data = fetch_talkmoves()  # doctest: +SKIP
    >>> data.X.shape, data.y_llm.shape  # doctest: +SKIP
    ((30202, 4), (30202, 19))
    >>> data.classes.tolist()[:3]  # doctest: +SKIP
    ['Getting Students to Relate', 'Keeping Everyone Together', 'None']
    """
    frame = load_table(
        TALKMOVES,
        data_home,
        download_if_missing=download_if_missing,
        n_retries=n_retries,
        delay=delay,
    )
    return bunch_of(frame, _TASK, "talkmoves.rst", return_X_y=return_X_y, as_frame=as_frame)

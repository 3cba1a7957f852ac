"""Public data: find the table at home or make it from verified downloads."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import Bunch, check_scalar

if TYPE_CHECKING:
    from pandas import DataFrame

HOME_VARIABLE = "DIALPREF_DATA"
EXTRA = 'pip install "sklearn-dialpref[datasets]"'
TO_READ = ("pandas", "pyarrow")
TO_PARSE = ("openpyxl", "pooch")
TIMEOUT_SECONDS = 30
X_COLUMNS = ("dialogue_id", "turn", "speaker", "text")


@dataclass(frozen=True)
class Source:
    """A file of a public repository, pinned by a commit in its address.

    Attributes
    ----------
    file : str
        Its name in the folder of raw files.
    url : str
    size : int or None
        In bytes; None where it is not known.
    sha256 : str or None
        None where it is not known: then the fingerprint of the table is the only check.
    """

    file: str
    url: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class PublicData:
    """A public data set: where its raw files are, and what they become.

    Attributes
    ----------
    name : str
        Of the table, ``<name>.parquet``, and of the folder of raw files, ``<name>``.
    sources : tuple of Source
    parse : callable
        From the folder of raw files to the table.
    fingerprint : str
        Of the table, see :func:`fingerprint_of`.
    """

    name: str
    sources: tuple[Source, ...]
    parse: Callable[[Path], DataFrame]
    fingerprint: str


def github(repository: str, commit: str, path: str) -> str:
    """Address of a file as it was at a commit."""
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"


def optional(module: str) -> Any:
    """Import a module of the extra, or name the extra."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"Public data sets need {module}, which is not installed; run `{EXTRA}`"
        ) from error


def data_home_of(data_home: str | os.PathLike[str] | None) -> Path:
    """Folder of all public data: as given, or of the environment, or in the user's folder."""
    if data_home is None:
        data_home = os.environ.get(HOME_VARIABLE) or Path("~") / "sklearn_dialpref_data"
    return Path(data_home).expanduser()


def load_table(
    data: PublicData,
    data_home: str | os.PathLike[str] | None,
    *,
    download_if_missing: bool,
    n_retries: int,
    delay: float,
) -> DataFrame:
    """Read the table at home; if there is none, make it from raw files and keep it.

    Parameters
    ----------
    data : PublicData
    data_home : path-like or None
    download_if_missing : bool
        False: raw files are not downloaded, but used if they are there.
    n_retries : int
        How often a download is tried again.
    delay : float
        Seconds between two tries.

    Returns
    -------
    DataFrame
    """
    check_scalar(n_retries, "n_retries", Integral, min_val=0)
    check_scalar(delay, "delay", Real, min_val=0)
    for package in TO_READ:
        optional(package)
    home = data_home_of(data_home)
    table = home / f"{data.name}.parquet"
    if table.exists():
        frame = _read(table)
    else:
        folder = home / data.name
        for package in TO_PARSE:  # before a long download
            optional(package)
        if not download_if_missing:
            _check_there(data, folder)
        for source in data.sources:
            _provide(source, folder, n_retries, delay)
        frame = _parsed(data, folder)
        with _new_file(table) as new:
            frame.to_parquet(new, index=False)
    if fingerprint_of(frame) != data.fingerprint:
        warnings.warn(
            f"{table} differs from the table that published figures were measured with, so yours "
            f"may differ; fetch_{data.name} says what is known about it. If somebody has changed "
            f"it, or a download was damaged, delete it and {home / data.name} to make it again",
            stacklevel=3,
        )
    return frame


def fingerprint_of(frame: DataFrame) -> str:
    """Sha256 of a table's columns and values, the same for every kind of string and of missing."""
    digest = hashlib.sha256()
    for name, column in frame.items():
        values = column.astype(object).where(column.notna(), None).tolist()
        digest.update(json.dumps([name, values]).encode())
    return digest.hexdigest()


def _read(table: Path) -> DataFrame:
    pd = optional("pandas")
    try:
        return pd.read_parquet(table)
    except (OSError, ValueError) as error:
        raise OSError(
            f"{table} cannot be read as a parquet file: {error}. If it is damaged, delete it, and "
            "it is made again from its sources"
        ) from error


def _parsed(data: PublicData, folder: Path) -> DataFrame:
    try:
        return data.parse(folder)
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(
            f"The raw files in {folder} are not as {data.name} has them: "
            f"{type(error).__name__}: {error}. Delete the folder to download them again"
        ) from error


def _check_there(data: PublicData, folder: Path) -> None:
    missing = [source for source in data.sources if not (folder / source.file).exists()]
    if missing:
        files = "".join(f"\n{source.url} to {folder / source.file}" for source in missing)
        raise OSError(
            f"{data.name} is not in {folder.parent}, and download_if_missing=False; set data_home "
            f"to the folder where it is, or download {files}"
        )


def _provide(source: Source, folder: Path, n_retries: int, delay: float) -> None:
    """Have a verified raw file in the folder."""
    target = folder / source.file
    if target.exists():
        _verify(source, target, f"delete {target} to download it again from {source.url}")
        return
    with _new_file(target) as new:
        _download(source, new, target, n_retries, delay)
        _verify(source, new, f"try again later, or put the right file at {target}")


def _verify(source: Source, path: Path, way_out: str) -> None:
    size = path.stat().st_size
    if source.size is not None and size != source.size:
        raise OSError(
            f"{source.file} must have {source.size} bytes, got {size}; {way_out}",
        )
    if source.sha256 is not None:
        sha256 = optional("pooch").file_hash(str(path), alg="sha256")
        if sha256 != source.sha256:
            raise OSError(
                f"{source.file} must have the sha256 {source.sha256}, got {sha256}; {way_out}"
            )


def _download(source: Source, new: Path, target: Path, n_retries: int, delay: float) -> None:
    pooch, requests = optional("pooch"), optional("requests")
    # the downloader alone: pooch.retrieve logs to the console
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS)
    for left in range(n_retries, -1, -1):
        try:
            return downloader(source.url, str(new), None)
        except requests.RequestException as error:
            if not left:
                raise OSError(
                    f"{source.url} could not be downloaded: {error}. Without a connection, put "
                    f"the file at {target}, or set data_home, or the environment variable "
                    f"{HOME_VARIABLE}, to a folder that has it"
                ) from error
            warnings.warn(f"Trying again to download {source.url}: {error}", stacklevel=5)
            time.sleep(delay)
    return None


@contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """A path to write to, which takes the target's name if the block succeeds."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent)
    except OSError as error:
        raise OSError(
            f"{target} cannot be written: {error}. Pass a data_home that can be written to, or "
            f"set the environment variable {HOME_VARIABLE}"
        ) from error
    # a file in a folder of its own gets the usual permissions, unlike a temporary file
    with folder as work:
        new = Path(work) / target.name
        yield new
        os.replace(new, target)


@dataclass(frozen=True)
class Task:
    """Columns of a table that hold one kind of labels.

    Attributes
    ----------
    human : str
    llm : tuple of str
    """

    human: str
    llm: tuple[str, ...]


def bunch_of(
    frame: DataFrame, task: Task, descr: str, *, return_X_y: bool, as_frame: bool
) -> Bunch | tuple[Any, Any, Any]:
    """Give the user a table's texts, human labels and votes.

    Parameters
    ----------
    frame : DataFrame
    task : Task
    descr : str
        Name of the description in the package's data.
    return_X_y, as_frame : bool

    Returns
    -------
    Bunch, or tuple (X, y_human, y_llm)
    """
    pd = optional("pandas")
    frame = frame.reset_index(drop=True)
    X: Any = frame[list(X_COLUMNS)].copy()
    y_human: Any = _with_none(frame[task.human]).rename("y_human")
    y_llm: Any = pd.DataFrame({name: _with_none(frame[name]) for name in task.llm}, dtype=object)
    classes = np.array(sorted(y_human.dropna().unique()), dtype=object)
    groups = frame["dialogue_id"].to_numpy(dtype=object)
    split: Any = frame["split"].astype(object)
    if not as_frame:
        X = frame[["dialogue_id", "text"]].to_numpy(dtype=object)
        y_human, y_llm, split = (part.to_numpy(dtype=object) for part in (y_human, y_llm, split))
    if return_X_y:
        return X, y_human, y_llm
    data = Bunch(X=X, y_human=y_human, y_llm=y_llm, groups=groups, classes=classes)
    if frame["split"].nunique() > 1 or frame["split"].iloc[0] != "all":
        data.split = split
    data.frame = frame if as_frame else None
    data.DESCR = (files("sklearn_dialpref.datasets") / "data" / descr).read_text(encoding="utf-8")
    return data


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise a ValueError unless the value is one of the choices."""
    if value not in tuple(choices):
        raise ValueError(f"{name} must be one of {sorted(choices)}, got {value!r}")


def _with_none(column: Any) -> Any:
    labels = column.astype(object)
    return labels.where(labels.notna(), None)

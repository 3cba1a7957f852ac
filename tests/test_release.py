"""What is released: metadata that agree, and archives that hold what they should."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import sklearn_dialpref

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
VERSION = sklearn_dialpref.__version__
BUILT = (".git", ".*cache", ".venv*", "build", "dist", "__pycache__", "auto_examples")
FILES_OF_PACKAGE = (
    "py.typed",
    "datasets/data/support_chats.csv",
    "datasets/data/support_chats.rst",
    "inspection/dialogue_view.css",
)
NOT_IN_SOURCE = (".ci/", ".github/", ".pre-commit-config.yaml")


def build(folder, into):
    """Build sdist and wheel of a copy of the repository; return their paths."""
    copy = folder / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*BUILT), copy_function=shutil.copy)
    env = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(into)]
    subprocess.run(command, cwd=copy, env=env, check=True, capture_output=True)
    return [next(into.glob(pattern)) for pattern in ("*.tar.gz", "*.whl")]


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("build")
    return build(folder, folder / "dist")


@pytest.fixture
def sdist(archives):
    with tarfile.open(archives[0]) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


@pytest.fixture
def wheel(archives):
    with zipfile.ZipFile(archives[1]) as archive:
        return set(archive.namelist())


def test_version_is_the_same_everywhere():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev0)?", VERSION)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (\S+)$", citation, re.MULTILINE)[1] == VERSION


def test_python_versions_are_those_of_the_classifiers():
    named = [line for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert named
    oldest = "3." + min((line.rsplit(".")[-1] for line in named), key=int)
    assert PROJECT["requires-python"] == f">={oldest}"


def test_wheel_holds_the_package_and_nothing_else(wheel):
    outside = {name for name in wheel if not name.startswith("sklearn_dialpref")}
    assert not outside
    assert {f"sklearn_dialpref/{name}" for name in FILES_OF_PACKAGE} <= wheel
    modules = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "sklearn_dialpref").rglob("*.py")
    }
    assert modules == {name for name in wheel if name.endswith(".py")}
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in wheel)


def test_sdist_holds_what_git_holds(sdist):
    assert {"LICENSE", "README.md", "CITATION.cff", "docs/conf.py", "tests/conftest.py"} <= sdist
    assert not [name for name in sdist if re.search(r"__pycache__|auto_examples|\.pyc$", name)]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("git does not list the files here")
    files = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    assert {name for name in files - sdist if not name.startswith(NOT_IN_SOURCE)} == set()


def test_builds_are_reproducible(archives, tmp_path):
    again = build(tmp_path, tmp_path / "dist")
    assert [path.name for path in again] == [path.name for path in archives]
    for first, second in zip(archives, again, strict=True):
        assert first.read_bytes() == second.read_bytes()

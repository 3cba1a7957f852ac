"""README.md: its code runs as it stands, and its links hold on a package index."""

import re
import tomllib

import pytest
from readme_code import README, run_readme

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")
LINKS = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", TEXT)
HOME = "https://github.com/sklearn-dialpref/sklearn-dialpref"
OF_FILES = (f"{HOME}/blob/main/", HOME.replace("github", "raw.githubusercontent") + "/main/")


@pytest.mark.slow
def test_the_code_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    run_readme()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4
    assert float(said[1]) > 0.7
    assert "clf__pair_weight" in said[2]
    assert said[3] == "negative"


def test_it_is_short():
    assert len(TEXT.split()) <= 900


def test_links_hold_on_a_package_index():
    targets = [markdown or html for markdown, html in LINKS]
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []
    assert not re.search(r"^\[[^\]]+\]:", TEXT, re.MULTILINE), "reference links are not checked"


def test_linked_files_are_in_the_repository():
    for markdown, html in LINKS:
        target = markdown or html
        for base in OF_FILES:
            if target.startswith(base):
                assert (ROOT / target.removeprefix(base)).is_file(), target


def test_the_first_screen_has_picture_installation_and_code():
    picture, install, code = (TEXT.index(part) for part in ("![", "$ pip install", "```python"))
    assert picture < install < code < TEXT.index("\n## What was measured")
    first = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    assert len(first.strip().splitlines()) <= 10


def test_extras_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = ",".join(re.findall(r"pip install '[\w.-]+\[([\w,]+)\]'", TEXT)).split(",")
    named = re.findall(r"extra `(\w+)`", TEXT)
    assert installed
    assert named
    assert {*installed, *named} <= set(project["optional-dependencies"])

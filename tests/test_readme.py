"""The code of README.md runs as it stands, from top to bottom."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_code_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL):
        exec(compile(block, README.name, "exec"), names)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4
    assert float(said[1]) > 0.7
    assert "clf__pair_weight" in said[2]
    assert said[3] == "negative"

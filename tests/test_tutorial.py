"""The tutorial runs from top to bottom as the notebook that readers download."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
SCRIPT = ROOT / "examples" / "plot_00_tutorial.py"
# What a notebook does: the cells one after the other, in one namespace
RUN = """
import json, sys
for number, cell in enumerate(json.load(open(sys.argv[1], encoding="utf-8"))["cells"]):
    if cell["cell_type"] == "code":
        source = "".join(cell["source"]).replace("%matplotlib inline", "")
        exec(compile(source, f"cell {number}", "exec"), globals())
"""


def data_home() -> Path | None:
    """Where DeliData lies on this machine."""
    folders = [os.environ.get("DIALPREF_DATA"), SHARED, Path("~/sklearn_dialpref_data")]
    places = [Path(folder).expanduser() for folder in folders if folder]
    return next((place for place in places if (place / "deli.parquet").exists()), None)


@pytest.fixture
def notebook(tmp_path):
    """The notebook that the gallery makes of the script."""
    gallery = pytest.importorskip("sphinx_gallery.notebook")
    copy = tmp_path / SCRIPT.name
    copy.write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    gallery.python_to_jupyter_cli([str(copy)])
    return copy.with_suffix(".ipynb")


def test_every_step_has_a_heading(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(headings) >= 15


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(data_home() is None, reason="DeliData is not there: fetch_deli() downloads it")
def test_tutorial_runs_as_a_notebook(notebook, tmp_path):
    for package in ("matplotlib", "onnxruntime", "polars"):
        pytest.importorskip(package)
    here = tmp_path / "here"
    here.mkdir()
    places = {"DIALPREF_DATA": str(data_home()), "TMPDIR": str(tmp_path)}
    environment = {**os.environ, **places, "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(notebook)],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    scores = [line for line in done.stdout.splitlines() if "macro-F1" in line and "±" in line]
    assert len(scores) >= 10
    assert "int8 graph" in scores[-1]
    assert list(here.iterdir()) == []  # what it writes is in a temporary folder

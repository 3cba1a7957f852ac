"""The page to print is drawn from the page that is read."""

import runpy
from pathlib import Path

GUIDE = Path(__file__).parents[1] / "docs" / "user_guide"


def test_the_drawing_is_that_of_the_page():
    draw = runpy.run_path(str(GUIDE / "cheat_sheet.py"))["draw"]
    page = draw((GUIDE / "cheat_sheet.rst").read_text(encoding="utf-8"))
    assert (GUIDE / "cheat_sheet.svg").read_text(encoding="utf-8") == page, (
        "run python docs/user_guide/cheat_sheet.py"
    )

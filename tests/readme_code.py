"""Run the Python code of README.md from top to bottom, as somebody who copies it would."""

import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def run_readme():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, README.name, "exec"), names)


if __name__ == "__main__":
    import sklearn_dialpref

    home = Path(sklearn_dialpref.__file__)
    if not home.is_relative_to(sys.prefix):
        sys.exit(f"sklearn_dialpref was imported from {home} instead of {sys.prefix}")
    run_readme()

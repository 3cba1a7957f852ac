"""How the package is built: small files, and parts that leave each other's insides alone."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "sklearn_dialpref"


def private_reads(path):
    """Lines that read another object's private attribute."""
    tree = ast.parse(path.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    own = {"self", "cls"} | {name.asname or name.name for node in imports for name in node.names}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Attribute) and node.attr.startswith("_")):
            continue
        of_own = isinstance(node.value, ast.Name) and node.value.id in own
        if not (of_own or node.attr.startswith("__")):
            yield f"{path.name}:{node.lineno} {ast.unparse(node)}"


def test_the_root_is_small():
    assert len(list(PACKAGE.glob("*.py"))) <= 12


def test_files_can_be_read_in_one_sitting():
    lengths = {path.name: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert not {name: lines for name, lines in lengths.items() if lines > 500}


def test_functions_fit_on_a_screen():
    long = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                documented = len((ast.get_docstring(node, clean=False) or "").splitlines())
                lines = node.end_lineno - node.lineno + 1 - documented
                long += [f"{path.name}: {node.name}, {lines} lines"] if lines > 66 else []
    assert not long


def test_parts_leave_the_insides_of_others_alone():
    reads = [read for path in sorted(PACKAGE.rglob("*.py")) for read in private_reads(path)]
    assert len(reads) <= 15, "\n".join(reads)

"""Every public name has its parameters told, an example that runs, and a place in the API."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import sklearn_dialpref

docscrape = pytest.importorskip("numpydoc.docscrape", reason="docstrings are read by numpydoc")
ClassDoc, FunctionDoc = docscrape.ClassDoc, docscrape.FunctionDoc

API = (Path(__file__).parents[1] / "docs" / "api.rst").read_text(encoding="utf-8")
PACKAGE = "sklearn_dialpref"
# their examples cannot run here, or only in minutes
NO_RUN = {
    "fetch_deli": "downloads",
    "fetch_meld": "downloads",
    "fetch_p4g": "downloads",
    "fetch_talkmoves": "downloads",
    "predict_dask": "needs a cluster",
    "predict_ray": "needs a cluster",
    "predict_spark": "needs a cluster",
    "DialoguePredictor": "its last line needs a cluster",
}


def modules():
    """The package and its public modules."""
    names = [one.name for one in pkgutil.iter_modules(sklearn_dialpref.__path__)]
    public = [f"{PACKAGE}.{name}" for name in names if not name.startswith("_")]
    return [importlib.import_module(name) for name in [PACKAGE, *public]]


def public_names():
    """Names with what they stand for: by the shortest path that has them."""
    found, seen = {}, set()
    for module in modules():
        for name in module.__all__:
            value = getattr(module, name)
            if name != "__version__" and id(value) not in seen:
                seen.add(id(value))
                found[f"{module.__name__}.{name}"] = value
    return found


NAMES = public_names()
CALLABLES = {path: value for path, value in NAMES.items() if callable(value)}


def methods(cls):
    """Public functions and properties of a class that this package has written."""
    for name in dir(cls):
        value = inspect.getattr_static(cls, name)
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            yield name, value.fget, True
        value = getattr(value, "__func__", value)
        if inspect.isfunction(value) and value.__module__.startswith(PACKAGE):
            yield name, value, False


def texts_of(entries):
    """Name, type and text of each parameter; several names may share an entry."""
    for names, kind, text in entries:
        for name in re.split(r",\s*", names):
            yield name.lstrip("*"), kind, " ".join(text)


def summary_problems(doc):
    summary = " ".join(doc["Summary"])
    if not summary:
        return ["no summary"]
    return [] if re.search(r"[.:]$", summary) else ["its summary does not end in a full stop"]


def parameter_problems(value, doc, *, fields=False):
    """What is missing of the parameters of a signature."""
    expected = set(inspect.signature(value).parameters) - {"self", "cls"}
    entries = list(texts_of([*doc["Parameters"], *(doc["Attributes"] if fields else [])]))
    told = {name for name, _, _ in entries}
    problems = [f"{name} is not documented" for name in sorted(expected - told)]
    problems += [f"{name} is not a parameter" for name in sorted(told - expected) if not fields]
    for name, kind, text in entries:
        if name not in expected:
            continue
        if not kind:
            problems.append(f"{name} has no type")
        if not re.search(r"[.:]$", text):
            problems.append(f"{name} has no text that ends in a full stop")
    return problems


def returned(function):
    """Whether its code returns or yields something."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    inner = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    nested = {id(node) for one in inner[1:] for node in ast.walk(one)}
    values = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Return | ast.Yield) and id(node) not in nested
    ]
    return any(value is not None and ast.unparse(value) != "None" for value in values)


def function_problems(function):
    doc = FunctionDoc(function)
    problems = summary_problems(doc) + parameter_problems(function, doc)
    if returned(function) and not (doc["Returns"] or doc["Yields"]):
        problems.append("no section Returns")
    return problems


def class_problems(cls):
    doc = ClassDoc(cls, config={"show_class_members": False})
    problems = summary_problems(doc) + parameter_problems(cls, doc, fields=is_dataclass(cls))
    for name, method, is_property in methods(cls):
        found = summary_problems(FunctionDoc(method)) if is_property else function_problems(method)
        problems += [f"{name}: {problem}" for problem in found]
    return problems


@pytest.mark.parametrize("path", CALLABLES)
def test_what_a_name_does_is_told(path):
    value = NAMES[path]
    if inspect.isclass(value) and issubclass(value, Exception):
        problems = summary_problems(ClassDoc(value, config={"show_class_members": False}))
    else:
        problems = class_problems(value) if inspect.isclass(value) else function_problems(value)
    assert not problems, "\n".join([path, *problems])


@pytest.mark.parametrize("path", CALLABLES)
def test_a_name_has_an_example_that_runs(path):
    value = NAMES[path]
    doc = inspect.getdoc(value) or ""
    assert "Examples\n--------\n" in doc
    examples = doctest.DocTestParser().get_examples(doc)
    assert examples
    skipped = any(example.options.get(doctest.SKIP) for example in examples)
    assert skipped == (value.__name__ in NO_RUN)  # also where an exception is no longer one


@pytest.mark.parametrize("path", NAMES)
def test_the_api_page_has_a_name(path):
    listed, module = set(), PACKAGE
    for line in API.splitlines():
        if match := re.fullmatch(r"\.\. (?:currentmodule|module):: (\S+)", line.strip()):
            module = match[1]
        elif match := re.fullmatch(r"\s+~?([\w.]+)", line):
            listed |= {f"{module}.{match[1]}", match[1]}
    assert path in listed


def test_help_begins_with_the_public_names():
    doc = sklearn_dialpref.__doc__
    assert not [name for name in sklearn_dialpref.__all__ if name not in (doc + "__version__")]
    assert ">>> " in doc and doc.index("DialogueStream") < doc.index(">>> ")
    names = set(dir(sklearn_dialpref))
    assert {one.__name__.rpartition(".")[2] for one in modules()[1:]} <= names
    assert not names & {"Any", "TYPE_CHECKING", "import_module"}


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_a_module_tells_what_it_is_for(module):
    assert re.match(r"[A-Z].*\.$", module.__doc__.splitlines()[0])
    assert set(module.__all__) <= set(dir(module))

"""Each error and warning that the package can raise has an entry in the FAQ."""

import ast
import re
from pathlib import Path

import sklearn_dialpref

ROOT = Path(__file__).parents[1]
FAQ = ROOT / "docs" / "user_guide" / "faq.rst"
PACKAGE = Path(sklearn_dialpref.__file__).parent
FOREIGN = "From other packages"  # the section of messages that are not in our code
VARIABLE = "…"
# they end in one of these names: exceptions, and the reasons in failures_
MESSENGERS = re.compile(
    r"(Error|Warning|NoAnswer|OffList|DamagedFile|BadAnswer|OutOfBudget|warn)$"
)


def template(node: ast.expr, constants: dict[str, str]) -> list[str]:
    """The messages that an expression can be, with a mark for each part that is not literal."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            texts = [part.value if isinstance(part, ast.Constant) else VARIABLE for part in parts]
            return ["".join(map(str, texts))]
        case ast.IfExp(body=body, orelse=orelse):
            return template(body, constants) + template(orelse, constants)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [
                a + b
                for a in template(left, constants) or [VARIABLE]
                for b in template(right, constants) or [VARIABLE]
            ]
        case ast.Name(id=name) if name in constants:
            return [constants[name]]
    return []


def messages(source: str) -> list[tuple[int, str]]:
    """Line and text of each message."""
    tree = ast.parse(source)
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and MESSENGERS.search(ast.unparse(node.func)):
            for argument in node.args[:2]:
                texts = template(argument, constants)
                found += [(node.lineno, text) for text in texts]
                if texts:
                    break
    return found


def all_strings() -> set[str]:
    """Each string of the package: a warning can be put together before it is given."""
    return {
        text
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Constant, ast.JoinedStr))
        for text in template(node, {})
    }


def all_messages() -> dict[str, str]:
    """Messages with the place of each."""
    return {
        text: f"{file.relative_to(PACKAGE)}:{line}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for line, text in messages(file.read_text(encoding="utf-8"))
    }


def entries() -> dict[str, str]:
    """Beginnings of messages that the FAQ names, with their section."""
    parts = re.split(r"^(.+)\n=+\n", FAQ.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        message: section
        for section, body in zip(parts[1::2], parts[2::2], strict=True)
        for message in re.findall(r"^[- ] \| ``(.+)``$", body, re.MULTILINE)
    }


def pattern(entry: str) -> re.Pattern[str]:
    return re.compile(".*?".join(map(re.escape, entry.split(VARIABLE))), re.DOTALL)


MESSAGES, ENTRIES = all_messages(), entries()
OURS = [entry for entry, section in ENTRIES.items() if section != FOREIGN]
LEAST = 4  # literal characters of an entry, so that none matches everything
# what no reader looks for, and why
INTERNAL = {
    "…; or …": "put together from slips, which have entries of their own",
    "…: …": "type and text of an error in a function of the user's own",
    "not reached": "an assertion",
    "the queue is empty": "caught by the batcher, which waits",
}


def test_each_message_has_an_entry():
    patterns = list(map(pattern, OURS))
    missing = {
        place: text
        for text, place in MESSAGES.items()
        if text not in INTERNAL and not any(p.match(text) for p in patterns)
    }
    assert not missing, "add them to docs/user_guide/faq.rst"


def test_each_entry_is_of_a_message():
    strings = all_strings()
    gone = [entry for entry in OURS if not any(map(pattern(entry).match, strings))]
    assert not gone, "the message is gone or changed"


def test_no_entry_is_of_everything():
    short = [entry for entry in OURS if len(re.sub(r"[…\W]", "", entry)) < LEAST]
    assert not short


def test_internal_messages_are_there():
    assert set(INTERNAL) <= set(MESSAGES)

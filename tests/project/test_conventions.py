"""The rules about tests and names that no tool checks."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MOST_LINES = 60

COUNTED = (
    *("annotations", "attempts", "batches", "boxes", "checkpoints", "classes", "epochs", "files", "images", "kills"),
    *("labels", "objects", "pictures", "problems", "runs", "steps", "tiles", "times"),
)
A_COUNT = re.compile(rf"(?:\{{(?![A-Z_]+\}})[^{{}}:]*\}}\}}?|%d) (?:{'|'.join(COUNTED)})\b")
"""A number and a plural in a message or on a page."""

EMPTY_NAMES = {"common", "helpers", "misc", "util", "utils"}
"""Names of files and folders that say nothing about what is inside."""


def test_every_test_says_its_promise():
    """Each test of the suite has a docstring of one sentence."""
    found = list(every_test())
    assert found
    assert [where for where, docstring in found if not is_one_sentence(docstring)] == []


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("A run survives.", True),
        ("A run survives v1.2 and `a.b`,\n    on two lines.", True),
        ("", False),
        ("A run survives", False),
        ("A run survives. It ends.", False),
    ],
)
def test_one_sentence_is_neither_none_nor_two(docstring, expected):
    """A docstring that is empty, unfinished or two sentences long is not taken for one sentence."""
    assert is_one_sentence(docstring) is expected


def test_a_noun_agrees_with_its_number():
    """A number and its noun in a message come from `counted`, unless the number is a constant: none says "1 epochs"."""
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in (ROOT / "job").rglob("*")
        if path.suffix in {".py", ".j2"}
        for match in A_COUNT.finditer(path.read_text())
    ]
    assert found == []
    assert A_COUNT.search('f"after {len(rows)} epochs"')
    assert A_COUNT.search("<p>{{ rows|length }} images</p>")


def test_names_say_what_is_inside():
    """No file or folder of the code has a name under which anything could be put."""
    paths = [path for top in ("job", "tests") for path in (ROOT / top).rglob("*.py")]
    assert [path for path in paths if EMPTY_NAMES & {*path.parent.relative_to(ROOT).parts, path.stem}] == []


def test_no_function_is_long():
    """A function of the code has at most 60 lines."""
    long = {
        f"{path.relative_to(ROOT)} {node.name}": num_lines
        for path in (ROOT / "job").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and (num_lines := node.end_lineno - node.lineno + 1) > MOST_LINES
    }
    assert long == {}


def test_threads_cannot_die_in_silence():
    """A thread beside training is a `Background`, which keeps what it raises; the others wait for one thing and hand
    its error on, are the last that a process does, or import what the main thread then imports itself.
    """
    found = {
        path.relative_to(ROOT / "job").as_posix(): path.read_text().count("threading.Thread(")
        for path in (ROOT / "job").rglob("*.py")
        if "threading.Thread(" in path.read_text() or "threading.Timer(" in path.read_text()
    }
    assert found == {
        "background.py": 1,
        "session/preemption.py": 1,
        "session/watchdog.py": 1,
        "training/distributed.py": 1,
        "training/isolation.py": 1,
    }


def every_test() -> Iterator[tuple[str, str]]:
    """Yield where each test stands, and its docstring."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", ast.get_docstring(node) or ""


def is_one_sentence(text: str) -> bool:
    """Whether a text ends with a full stop and has no other end of a sentence."""
    return text.endswith(".") and not re.search(r"[.!?]\s+[A-Z]", text)

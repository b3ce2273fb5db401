"""Advised commands exist, with their flags; messages fit any data."""

import ast
import itertools
import re
import shlex

import pytest

from job.analysis.advice import RULES, advise
from job.analysis.campaign import Goal, find_campaign
from job.cli.app import COMMANDS, find, load, main
from job.errors import UsageError
from job.recipes.arguments import ALIASES, DEFAULTS, OWNED
from job.report.campaign import render
from job.report.reproduce import command_of
from job.storage.local import FolderStore
from tests.support.bucket_records import put_recorded, recorded
from tests.support.cli_process import ROOT

OF_OTHERS = {
    *("--shm-size", "--stop-timeout", "--gpus", "--ipc"),
    *("--member", "--role", "--project", "--enable-private-ip-google-access"),
}
"""Flags in messages that are those of a container engine, or of gcloud."""

DRAW_ANIMALS = {"session/demo.py", "datasets/synthetic.py"}
"""Modules that draw animals, and may say so."""

FLAT, RISING = (0.3, *[1.0] * 11), tuple(0.5 + epoch / 38 for epoch in range(20))


def strings():
    """Yield each text in the code that is no docstring, with the module it is in and its place."""
    for path in sorted((ROOT / "job").rglob("*.py")):
        tree = ast.parse(path.read_text())
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        name = str(path.relative_to(ROOT / "job"))
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield (
                    name,
                    node.lineno,
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values),
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                yield name, node.lineno, node.value


def find_command(words):
    """Return the function that a command line means, and the words that follow its name; none if there is no such."""
    try:
        path, entry = find(words)
    except UsageError:
        return None, words
    return entry and load(entry), words[len(path) :]


def understand(words):
    """Let a command line be read as `main` reads it; nothing of it runs."""
    command, rest = find_command(words)
    command.read("job", rest)


def flags_of(command):
    """Return the flags that a command has."""
    parameters = command.signature.parameters.values()
    names = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        names |= {*DEFAULTS, *ALIASES}
    return {f"--{name.replace('_', '-')}" for name in names}


def flags_in(words):
    """Return the flags among words."""
    return {word.partition("=")[0] for word in words if word.startswith("--")}


@pytest.fixture
def store(tmp_path):
    """A bucket with a data set."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    store.put("datasets/wildlife/data.yaml", b"names: [cow]\n")
    return store


CASES = [
    *(("base", shape, f1, more) for shape, f1, more in itertools.product(
        (FLAT, RISING), (0.4, 0.58), ({}, {"profile": "demo", "imgsz": 64, "batch": 2}))),
    *(("A", shape, f1, {}) for shape, f1 in itertools.product((FLAT, RISING), (0.66, 0.69))),
    ("B", FLAT, 0.7, {}),
    ("base", (0.5, 1.0), 0.3, {}),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "shape", "f1", "more"), CASES)
def test_every_advised_command_is_one_that_would_start(store, capsys, recipe, shape, f1, more):
    """Each option after a run is a command line that the job understands; a training would start as it is printed."""
    summary = recorded(recipe, course=tuple(f1 * value for value in shape), precision=f1 + 0.1, **more)
    put_recorded(store, summary)
    options = advise(summary, bucket=store.uri).options
    assert options
    for option in options:
        program, *words = shlex.split(option.command)
        assert program == "job"
        understand(words)
        command, rest = find_command(words)
        assert flags_in(rest) <= flags_of(command), option.command
        if words[0] == "train":
            assert main([*words, "--dry-run"]) == 0
            assert "would not start" not in capsys.readouterr().err


def test_the_command_that_repeats_a_run_would_start(store, capsys):
    """The report's command to repeat a run is one that the job understands."""
    summary = recorded("A", degrees=12.0, epochs=30)
    put_recorded(store, summary)
    words = shlex.split(command_of(summary.record))[1:]
    assert main([*words, "--bucket", store.uri, "--dry-run"]) == 0
    assert "degrees: 12.0" in capsys.readouterr().out


def test_the_command_that_repeats_a_campaign_has_flags_that_it_has(store):
    """The command of a campaign's page has flags of `job campaign`."""
    goal = Goal(
        target_f1=0.7, max_runs=3, max_usd=5.0, profile="full", dataset="wildlife", weights="zebra",
        arguments={"epochs": "3", "new-classes": "true"},
    )  # fmt: skip
    page = render(find_campaign(store, "zoo", goal))
    shown = re.search(r"How to repeat it</h2>\s*<pre>(.*)</pre>", page)[1]
    words = shlex.split(re.sub(r"</?span>", "", shown))[1:]
    understand(words)
    command, rest = find_command(words)
    assert flags_in(rest) <= flags_of(command)
    assert {"--max-usd", "--epochs", "--weights", "--bucket"} <= flags_in(rest)


def test_every_command_in_a_message_is_one():
    """Text between backquotes that begins with ``job`` is a command with flags that it has."""
    wrong = []
    num_found = 0
    for name, line, text in strings():
        for words in map(str.split, re.findall(r"`job ([^`]+)`", text)):
            num_found += 1
            command, rest = find_command(words)
            known = flags_of(command) if command is not None else set()
            is_group = command is None and bool(find(words)[0])
            if not (command or is_group or words[-1] == "--help") or not flags_in(rest) <= {*known, "--help"}:
                wrong.append((name, line, words))
    assert wrong == []
    assert num_found > 20


def test_every_flag_in_a_message_is_one_of_some_command():
    """A flag that a message names is one that a command has, or one of a container engine or gcloud."""
    known = OF_OTHERS | {"--help"} | {f"--{name.replace('_', '-')}" for name in OWNED}
    known = known.union(*(flags_of(load(entry)) for entry in COMMANDS.values()))
    wrong = [
        (name, line, flag)
        for name, line, text in strings()
        if " " in text
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text)
        if flag not in known
    ]
    assert wrong == []


def test_messages_speak_of_objects_and_not_of_animals():
    """No text for people calls the objects animals, except where animals are drawn; nor does a page of the report."""
    wrong = [(name, line) for name, line, text in strings() if "animal" in text.lower() and name not in DRAW_ANIMALS]
    pages = [path.name for path in (ROOT / "job").rglob("*.j2") if "animal" in path.read_text().lower()]
    assert (wrong, pages) == ([], [])


def test_no_rule_repeats_its_options():
    """A rule's own reason names no step: what is next follows from the options that there are."""
    assert [rule.name for rule in RULES if re.search(r"next|first|instead", rule.because)] == []

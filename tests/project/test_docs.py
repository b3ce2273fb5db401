"""README and docs name only links, paths, targets, commands and flags that exist, and README stays short."""

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from job.cli.app import main
from job.recipes.arguments import ALIASES, DEFAULTS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDES = PAGES[2:]

MAX_README_LINES = 199

TOP = ("job", "tests", "infra", "docker", "requirements", "docs", ".ci")
"""Folders of the repository; a word in backquotes that begins with one of them is a path."""

CREATED = {"infra/terraform.tfvars", "infra/outputs.json"}
"""Files that a user or Terraform makes."""

OF_OTHERS = {"--compression-level", "--full", "--on-cpu", "--write-golden"}
"""Flags of Podman and of the test suite."""


def test_readme_stays_short():
    """README has fewer than 200 lines."""
    assert len(PAGES[0].read_text().splitlines()) <= MAX_README_LINES


def test_readme_leads_to_every_page():
    """README links to each page of docs."""
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", PAGES[0].read_text()))
    assert {f"docs/{page.name}" for page in GUIDES} == linked


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_a_page_says_first_for_whom_it_is(page):
    """The first paragraph below a page's title names its readers."""
    title, first, *_ = page.read_text().split("\n\n")
    assert title.startswith("# ")
    assert first.startswith("For people who ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    """Each relative link leads to a file, and its fragment to a heading of that file."""
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in link]
    broken = []
    for link in links:
        name, _, fragment = link.partition("#")
        target = page.parent / name if name else page
        if not target.is_file() or (fragment and fragment not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_paths_exist(page):
    """Each path of the repository in backquotes exists, a definition behind `::` included."""
    named = [word for word in quoted(page.read_text()) if word.partition("/")[0] in TOP and "/" in word]
    assert [word for word in named if word not in CREATED and not exists(word)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_targets_exist(page):
    """Each `make` target that a page names is one of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word for words in commands(page.read_text(), "make") for word in words[1:] if re.fullmatch(r"[a-z-]+", word)
    }
    assert named - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_commands_exist(page, capsys):
    """Each `job` command that a page names exists, with the flags that the page gives it."""
    wrong = []
    for _, *words in commands(page.read_text(), "job"):
        path = list(itertools.takewhile(re.compile(r"[a-z][a-z-]*").fullmatch, words))
        flags = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--help", "--version"}
        known = flags_of(path, capsys) if path else set()
        if known is None or (path and not flags <= known):
            wrong.append(words)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_flags_exist(page, capsys):
    """Each flag that a page names is one of some command, or of the program that its command line starts."""
    flags = {flag for span in quoted(page.read_text()) for flag in re.findall(r"^(--[a-z][a-z0-9-]*)", span)}
    main(["--help"])
    names = re.findall(r"^  job ([a-z -]*[a-z])", capsys.readouterr().out, re.MULTILINE)
    assert len(names) > 20
    known = set().union(*(flags_of(name.split(), capsys) or set() for name in names))
    assert flags - known - OF_OTHERS == set()


def test_the_checks_find_mistakes(capsys):
    """A path, a command and a flag that do not exist are not taken for ones that do."""
    assert not exists("job/no_such_module.py")
    assert not exists("job/errors.py::NoSuchName")
    assert exists("job/errors.py::ExitCode")
    assert flags_of(["trian"], capsys) is None
    assert "--no-such-flag" not in (flags_of(["train"], capsys) or set())
    assert list(commands("type `make test` or\n\n    .venv/bin/job runs list   # all\n", "job")) == [
        ["job", "runs", "list"]
    ]
    assert anchors("# On Google Cloud\n## Who, and why?\n") == {"on-google-cloud", "who-and-why"}


def anchors(text: str) -> set[str]:
    """Return the fragments of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def quoted(text: str) -> list[str]:
    """Return what stands between backquotes."""
    return re.findall(r"`([^`\n]+)`", text)


def commands(text: str, program: str):
    """Yield the words of each command line of a program, in backquotes or in an indented block."""
    blocks = re.findall(r"^ {4}(?:\S*/)?(\w+ .*)$", text, re.MULTILINE)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    for line in [*blocks, *spans]:
        call = re.sub(r"^\S*/", "", line).split("  #")[0]
        if call.startswith(f"{program} "):
            yield [word for word in shlex.split(call) if word != "..."]


def exists(name: str) -> bool:
    """Whether a path, or a definition written `path::name`, is in the repository."""
    path, _, definition = name.partition("::")
    if not definition:
        return (ROOT / path).exists()
    source = (ROOT / path).read_text() if (ROOT / path).is_file() else ""
    return bool(re.search(rf"^(?:\s*(?:async )?(?:def|class) )?{re.escape(definition)}\b", source, re.MULTILINE))


def flags_of(path: list[str], capsys) -> set[str] | None:
    """Return the flags in a command's help, with those of training if it takes them, or none without such a command."""
    capsys.readouterr()
    code = main([*path, "--help"])
    text = capsys.readouterr().out
    if code != 0 or f"job {' '.join(path)}" not in text:
        return None
    flags = set(re.findall(r"--[a-z][a-z0-9-]*", text))
    flags |= {f"--{name.lower().replace('_', '-')}" for name in re.findall(r"^  ([A-Z_]+)\b", text, re.MULTILINE)}
    passes_on = "training argument" in text.lower()
    return flags | ({f"--{name.replace('_', '-')}" for name in (*DEFAULTS, *ALIASES)} if passes_on else set())


def test_the_tables_of_scale_are_what_its_command_prints():
    """The indented lines of docs/scale.md are the output of `make bench-scale`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.scale"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    page = (ROOT / "docs" / "scale.md").read_text()
    shown = [line.removeprefix("    ") for line in page.splitlines() if line.startswith("    ")]
    assert shown == [line for line in done.stdout.splitlines() if line]
    assert max(map(len, shown)) <= 80

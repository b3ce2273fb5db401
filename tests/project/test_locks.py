"""The locks: complete, minimal, and in step with pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

GROUPS = [*PROJECT["dependency-groups"]["build"], *PROJECT["dependency-groups"]["headless"]]
LIGHT = [*PROJECT["project"]["dependencies"], *GROUPS]
CLOUD = [*LIGHT, *PROJECT["project"]["optional-dependencies"]["cloud"]]
EXPORT = [*LIGHT, *PROJECT["project"]["optional-dependencies"]["export"]]
FULL = [*LIGHT, *PROJECT["project"]["optional-dependencies"]["train"]]
DEV = PROJECT["dependency-groups"]["dev"]

LINE = re.compile(
    r"""
    [ ]*\#(?!.*(://|/\w+/)).*                           # a comment, without an address or an absolute path
    | [a-z0-9-]+==[\w.+]+ ([ ];[ ][^/\\]+)? [ ]\\       # a version, and on which machines
    | [ ]{4}--hash=sha256:[0-9a-f]{64} ([ ]\\)?         # the digest of one of its files
    """,
    re.VERBOSE,
)


@pytest.mark.parametrize("level", ["light", "cloud", "export", "full", "dev"])
def test_a_lock_names_versions_and_digests_only(level):
    """Each lock works with any registry: it names versions and digests, and no address or path."""
    lines = lock_text(level).splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []


@pytest.mark.parametrize(
    ("level", "wanted"), [("light", LIGHT), ("cloud", CLOUD), ("export", EXPORT), ("full", FULL), ("dev", DEV)]
)
def test_a_lock_holds_what_the_project_asks_for(level, wanted):
    """Each lock holds every direct dependency of its level, at a version that pyproject.toml allows."""
    locked = versions(level)
    requirements = [Requirement(text) for text in wanted]
    assert [str(wish) for wish in requirements if not wish.specifier.contains(locked.get(wish.name, "0"))] == []


def test_the_locks_agree():
    """A package that stands in several locks has one version, so that levels can share an environment."""
    full = versions("full")
    assert [
        name
        for level in ("light", "cloud", "export", "dev")
        for name, version in versions(level).items()
        if full.get(name, version) != version
    ] == []


@pytest.mark.parametrize("level", ["light", "cloud", "export", "full"])
def test_the_environment_needs_no_display(level):
    """The only OpenCV in a lock is the headless one."""
    assert [name for name in versions(level) if name.startswith("opencv")] == ["opencv-python-headless"]


def versions(level: str) -> dict[str, str]:
    """Return the version of each package in a lock."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock_text(level), re.MULTILINE))


def lock_text(level: str) -> str:
    """Return the text of a lock."""
    return (ROOT / "requirements" / f"{level}.txt").read_text()

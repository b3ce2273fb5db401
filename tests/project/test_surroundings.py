"""The tests need nothing of a machine but a home and a path."""

import os
import subprocess
import sys

import pytest

from tests.support.cli_process import ROOT, TIMEOUT_S

COLLECT = """
import sys, pytest
code = pytest.main(["--collect-only", "-q", "-n0", "-p", "no:cacheprovider"])
assert "ultralytics" not in sys.modules, "a test module imports Ultralytics before it is confined"
sys.exit(code)
"""


def run_bare(tmp_path, *words, **environment):
    """Run Python on the suite with a home, a path and the given variables alone."""
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], **environment}
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )


def test_all_tests_are_found_where_only_home_and_path_are_set(tmp_path):
    """The suite is collected with two variables in its environment, and no test module decides by being imported where
    Ultralytics keeps its settings.
    """
    found = run_bare(tmp_path, "-c", COLLECT)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "tests/infra/test_terraform.py::" in found.stdout


def test_what_is_marked_full_is_named_and_left_out(tmp_path):
    """A test of the full matrices is skipped with the target that runs it, and run where that is asked for."""
    words = ("-m", "pytest", "-n0", "-p", "no:cacheprovider", f"{__file__}::test_of_the_full_matrices")
    assert "SKIPPED [1] tests/project/test_surroundings.py" in run_bare(tmp_path, *words).stdout
    assert "1 passed" in run_bare(tmp_path, *words, "--full").stdout


@pytest.mark.full
def test_of_the_full_matrices():
    """The marker `full` can be set on a test that has nothing to do."""


def test_what_processes_leave_behind_is_removed(tmp_path):
    """Files that a process left in its temporary folder are gone after the tests, whichever worker ran them."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    words = ("-m", "pytest", "-n2", "-p", "no:cacheprovider", f"{__file__}::test_of_a_process_that_leaves_a_file")
    done = run_bare(tmp_path, *words, TMPDIR=str(folder))
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_of_a_process_that_leaves_a_file():
    """A process that a test starts has a temporary folder of the tests' own."""
    program = "import tempfile; print(tempfile.mkstemp()[1])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(os.environ["TMPDIR"])


def test_what_needs_terraform_or_a_container_engine_is_named_and_left_out(tmp_path):
    """Where neither is installed, the tests of both are skipped, and the summary has each with its reason."""
    places = ("tests/infra/test_terraform.py", "tests/container/test_image.py")
    done = run_bare(tmp_path, "-m", "pytest", "-n0", "-p", "no:cacheprovider", *places, PATH=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.partition("short test summary info")[2]
    for place, reason in zip(places, ("needs terraform", "there is no container engine"), strict=True):
        assert any(line.startswith("SKIPPED") and place in line and reason in line for line in summary.splitlines())

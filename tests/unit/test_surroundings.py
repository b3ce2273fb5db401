"""What the tests may take from the machine that they run on: nothing that a stranger's machine lacks."""

import os
import subprocess
import sys

from tests.support.command import ROOT, TIMEOUT_S


def test_all_tests_are_found_where_only_home_and_path_are_set(tmp_path):
    """The suite is collected with two variables in its environment, so that it runs on any machine."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", "-p", "no:cacheprovider"]
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    found = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "tests/infra/test_terraform.py::" in found.stdout

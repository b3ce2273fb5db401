"""Terraform on a copy of the project's configuration, with the provider of its own settings.

Where that is a stub that reaches no cloud, even `apply` runs. A real provider would be refused by any cloud: the token
that it is given is none.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.cli_process import ROOT, TIMEOUT_S

SETTINGS = "TF_CLI_CONFIG_FILE"
STUB = Path(os.environ.get(SETTINGS) or os.devnull).with_name("provider") / "main.py"
"""The stub lies beside the settings that lead to it, if there are any."""

NO_CLOUD = {"GOOGLE_OAUTH_ACCESS_TOKEN": "none"}

needs_terraform = pytest.mark.skipif(
    shutil.which("terraform") is None or not STUB.exists(),
    reason=f"needs terraform, and {SETTINGS} that leads to a stub of the google provider; .ci/run installs it",
)


class Infrastructure:
    """A copy of ``infra/`` with its scripts, and the variables of a project that does not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "infra"
        hidden = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars", "backend.tf", "outputs.json")
        shutil.copytree(ROOT / "infra", self.folder, ignore=hidden)
        (self.folder / "terraform.tfvars").write_text('project = "demo-project"\n')

    def run(self, *command: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the copy."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | NO_CLOUD | {f"TF_VAR_{name}": value for name, value in variables.items()},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def provision(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the script behind ``make infra-...``."""
        return self.run("scripts/provision.sh", *words, **variables)

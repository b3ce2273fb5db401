"""A checkout whose programs record how they are called, in the place of all that make starts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.cli_process import ROOT
from tests.support.stub_programs import Programs

SCRIPTS = (
    *("docker/build.sh", "docker/push.sh", "docker/run.sh"),
    *("infra/scripts/provision.sh", "infra/scripts/machine.sh", "infra/scripts/left.sh"),
    *("infra/scripts/supervision.sh", "infra/scripts/boot_image.sh"),
)

LEVELS = ("light", "full", "cloud", "export", "dev")


def make_checkout(folder: Path) -> Path:
    """Copy the Makefile and the recipes into a folder, with an environment that seems to be installed."""
    shutil.copytree(ROOT / "job" / "recipes", folder / "job" / "recipes")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").touch()
    (folder / "requirements").mkdir()
    for level in LEVELS:
        (folder / "requirements" / f"{level}.txt").touch()
    (folder / ".venv").mkdir()
    venv = Programs(folder / ".venv" / "bin")
    venv.add("job")
    venv.add("uv")
    venv.add(
        "python", f'if sys.argv[1] == "-c":\n    os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])'
    )
    Programs(folder / "programs").add("sky")
    for name in SCRIPTS:
        script = folder / name
        Programs(script.parent).add(script.name)
    for stamp in (".created", *(f".installed-{level}" for level in LEVELS)):
        (folder / ".venv" / stamp).touch()
    return folder


def calls_of(checkout: Path) -> list[tuple[str, list[str]]]:
    """Return program and words of every call, but for the splitting of ARGS."""
    folders = {checkout / ".venv" / "bin", checkout / "programs", *((checkout / name).parent for name in SCRIPTS)}
    logs = [log for folder in folders for log in folder.glob("*.log")]
    calls = [(log.stem, words) for log in logs for words in Programs(log.parent).words(log.stem)]
    return [(program, words) for program, words in calls if words[:1] != ["-c"]]


def make(checkout, target, variables, **environment):
    """Run a target, or several with spaces between them, with variables on the command line."""
    return subprocess.run(
        ["make", *target.split(), *(f"{name}={value}" for name, value in variables.items())],
        cwd=checkout,
        env={"PATH": f"{checkout / 'programs'}:{os.environ['PATH']}", "HOME": str(checkout)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )

"""What `tests/gpu/take.sh` takes to a machine with a GPU and a PyTorch of its own."""

import re
import shutil
import subprocess

import pytest

from tests.support.cli_process import ROOT
from tests.support.stub_programs import Programs


@pytest.fixture
def project(tmp_path):
    """A copy of the script and the locks, and a Python that keeps the requirements that it is given."""
    folder = tmp_path / "project"
    (folder / "tests" / "gpu").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "gpu" / "take.sh", folder / "tests" / "gpu")
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    keep = f'import os, shutil\nos.mkdir(".whl")\nshutil.copy(sys.argv[-1], {str(tmp_path / "taken")!r})'
    Programs(tmp_path / "bin").add("python", keep)
    return folder


def take(project, *words):
    """Run the script."""
    return subprocess.run(
        [project / "tests" / "gpu" / "take.sh", *words],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(project.parent / "bin" / "python")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_such_a_machine_lacks_is_taken_with_its_digests(project):
    """Ultralytics, the job's libraries and the test tools are taken as the locks name them; PyTorch and its like are
    the machine's own.
    """
    done = take(project, "--wheels")
    assert done.returncode == 0, done.stderr
    text = (project.parent / "taken").read_text()
    names = re.findall(r"^([\w.-]+)==", text, re.MULTILINE)
    assert {"ultralytics", "fire", "pydantic", "setuptools", "pytest", "pytest-timeout", "pytest-xdist"} <= {*names}
    assert not {"torch", "torchvision", "triton", "numpy", "polars", "wandb", "mypy", "opencv-python-headless"} & {
        *names
    }
    assert not any(name.startswith("nvidia-") for name in names)
    assert len(names) == len(set(names))
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("words", [(), ("--where",), ("--there",)])
def test_a_call_that_is_not_understood_starts_nothing(project, words):
    """Without a host, or with a flag that is none, it says how it is called."""
    done = take(project, *words)
    assert done.returncode != 0
    assert "take.sh" in done.stderr
    assert not (project.parent / "taken").exists()

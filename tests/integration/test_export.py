"""Exports: the file agrees with its weights, or there is none."""

import json
import subprocess

import pytest

from job.storage.checksums import sha256_of
from tests.support.cli_process import job, start_job
from tests.support.labelled_run import make_labelled_run, make_weights

pytest.importorskip("onnxruntime", reason="the packages of the extra `export` are not installed; `make test` does")

EXPORT = ("export", "zebra", "--pictures", "2", "--bound-metric", "1")
"""Metrics of weights from scratch say nothing: which of many equal boxes is right is decided by the last bits."""


@pytest.fixture(scope="module")
def bucket(confined, tmp_path_factory):
    """A function that returns the bucket of a run with a model of some size."""
    made = {}

    def bucket_of(size):
        if size not in made:
            folder = tmp_path_factory.mktemp(size)
            made[size] = make_labelled_run(folder, make_weights(folder / "best.pt", size))
        return made[size]

    return bucket_of


@pytest.mark.parametrize(
    ("size", "px"),
    [("n", 64), *(pytest.param("s", px, marks=pytest.mark.full) for px in (64, 96))],
)
def test_an_export_agrees_with_its_weights(bucket, tmp_path, size, px):
    """On the CPU the exported file passes its check, and it, its card and its record are where they were asked for."""
    out = tmp_path / "out"
    command = (*EXPORT, "--imgsz", px, "--out", out, "--bucket", bucket(size))
    done = job(*command, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["px"] == px
    assert (found["parity"]["num_pictures"], found["parity"]["num_of"]) == (2, 3)
    assert found["parity"]["num_candidates"] > 50
    assert found["parity"]["num_in_both"] > 0
    assert {name: sha256_of(out / name) for name in ("best.onnx", "model-card.md")} == found["files"]
    assert json.loads((out / "export.json").read_text())["parity"] == found["parity"]
    again = job(*command)
    assert again.returncode == 0
    assert "was finished before" in again.stderr


def test_one_changed_weight_is_refused(bucket, tmp_path):
    """If one number of the exported file is another, it ends with 70, names what differs, and leaves nothing behind."""
    out = tmp_path / "out"
    process = start_job(*EXPORT, "--out", out, "--bucket", bucket("n"), program="tests.support.changed_export_cli")
    _, errors = process.communicate()
    assert process.returncode == 70, errors
    assert "best.onnx differs from best.pt beyond the bounds, and nothing was written" in errors
    assert "confidence: the greatest difference is" in errors
    assert not out.exists()


def test_ultralytics_installs_nothing(confined, monkeypatch):
    """Where a package that Ultralytics asks for is missing, no program is started to install it."""
    from ultralytics.utils import checks  # noqa: PLC0415 -- once Ultralytics is confined

    def start(*_args, **_kwargs):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "check_output", start)
    monkeypatch.setattr(subprocess, "run", start)
    monkeypatch.setattr(checks, "ONLINE", True)
    assert checks.check_requirements("no-package-of-this-name") is False

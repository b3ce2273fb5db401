"""What the commands about a submission print without one."""

import json

from job.cli.app import main
from tests.cloud.conftest import SETTINGS


def test_settings_are_printed_in_one_order(tmp_path, monkeypatch, capsys):
    """However flags are ordered, each call prints the same line, so that a supervisor's arguments do not change."""
    monkeypatch.chdir(tmp_path)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in reversed(SETTINGS.items())]
    assert main(["settings", *words, "--bucket", "gs://photos"]) == 0
    assert list(json.loads(capsys.readouterr().out).items()) == [*SETTINGS.items(), ("bucket", "gs://photos")]

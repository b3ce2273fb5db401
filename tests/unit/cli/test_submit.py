"""What the commands about a submission print without one."""

import json

from job.cli.app import main

SETTINGS = {
    "project": "demo-project",
    "region": "us-central1",
    "image": f"us-central1-docker.pkg.dev/demo-project/yolo/trainer@sha256:{'0' * 64}",
    "service_account": "trainer@demo-project.iam.gserviceaccount.com",
    "network": "projects/demo-project/global/networks/yolo",
    "subnetwork": "projects/demo-project/regions/us-central1/subnetworks/yolo",
    "wandb_secret": "projects/demo-project/secrets/wandb",
    "boot_image": "projects/demo-project/global/images/trainer",
}


def test_settings_are_printed_in_one_order(tmp_path, monkeypatch, capsys):
    """However flags are ordered, each call prints the same line, so that a supervisor's arguments do not change."""
    monkeypatch.chdir(tmp_path)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in reversed(SETTINGS.items())]
    assert main(["settings", *words, "--bucket", "gs://photos"]) == 0
    assert list(json.loads(capsys.readouterr().out).items()) == [*SETTINGS.items(), ("bucket", "gs://photos")]

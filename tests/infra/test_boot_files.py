"""The boot files of the VM, read by the programs that read them there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from job.cloud.job_spec import FAILS_THE_TASK
from job.errors import FATAL, FIRST_OF_BATCH, ExitCode
from tests.support.cli_process import ROOT, TIMEOUT_S
from tests.support.terraform import needs_terraform

VM = ROOT / "infra/vm"
SCRIPTS = sorted([*(ROOT / "infra").rglob("*.sh"), *(ROOT / "docker").glob("*.sh"), *(ROOT / "tests").rglob("*.sh")])
SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
PATHS = {
    "/etc/trainer/environment": None,
    "/etc/trainer/trainer.sh": VM / "trainer.sh",
    "/etc/systemd/system/trainer.service": VM / "trainer.service",
}
"""The files that cloud-init writes, and their sources."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
needs_cloud_init = pytest.mark.skipif(
    shutil.which("cloud-init") is None, reason="needs cloud-init; .ci/run installs it"
)


@pytest.fixture
def user_data(applied, tmp_path):
    """The boot configuration that Terraform gives the machine, as a file."""
    expression = "jsonencode(local.vm_user_data)\n"
    printed = applied.run(
        "terraform", "console", stdin=expression, wandb_key_version="1", wandb_api_key="k" * 40, archive="demo-archive"
    ).stdout
    path = tmp_path / "user-data"
    path.write_text(json.loads(json.loads(printed)))
    return path


def test_the_script_has_the_exit_codes_of_the_job():
    """The exit codes that the boot script does not retry, or returns the machine for, are those of the job's table."""
    script = (VM / "trainer.sh").read_text()
    [fatal] = re.findall(r'^ +([\d |]+)\) say "failed for good', script, re.MULTILINE)
    [elsewhere] = re.findall(r'^ +(\d+)\) say "this machine is unfit', script, re.MULTILINE)
    [again] = re.findall(r"^ +(\d+)\) agains=", script, re.MULTILINE)
    assert {int(code) for code in fatal.split("|")} == FATAL
    assert (int(elsewhere), int(again)) == (ExitCode.ELSEWHERE, ExitCode.TRY_AGAIN)


def test_the_alert_names_the_ends_that_are_not_tried_again():
    """The alert for a training that failed names every code that Batch does not try again, but its own."""
    alerts = (ROOT / "infra/alerts.tf").read_text()
    listed = [set(re.findall(r"\d+", codes)) for codes in re.findall(r"\((\d+(?:(?: OR |\|)\d+)+)\)", alerts)]
    assert listed == [{str(code) for code in FAILS_THE_TASK if code < FIRST_OF_BATCH}] * 2


@needs_terraform
def test_the_machine_is_given_the_files_unchanged(user_data):
    """Each file reaches the machine byte for byte, and the unit is started by name."""
    config = yaml.safe_load(user_data.read_text())
    written = {file["path"]: file["content"] for file in config["write_files"]}
    assert config.keys() == {"write_files", "runcmd"}  # older versions of cloud-init pass over a key they do not know
    assert written.keys() == PATHS.keys()
    assert all(written[path] == source.read_text() for path, source in PATHS.items() if source)
    assert config["runcmd"][-1][-1] == "trainer.service"


@needs_terraform
def test_the_unit_reads_what_terraform_says(user_data):
    """The unit's environment names bucket, archive and the version of the key, in systemd's form, and not the key."""
    written = {file["path"]: file["content"] for file in yaml.safe_load(user_data.read_text())["write_files"]}
    lines = written["/etc/trainer/environment"].splitlines()
    names = dict(line.split("=", 1) for line in lines)
    assert names["BUCKET"] == "gs://demo-project-yolo-train"
    assert names["ARCHIVE"] == "gs://demo-archive"
    assert names["WANDB_SECRET"].startswith("projects/")
    assert "k" * 40 not in user_data.read_text()
    assert "EnvironmentFile=/etc/trainer/environment" in written["/etc/systemd/system/trainer.service"].splitlines()


@needs_terraform
@needs_cloud_init
def test_cloud_init_understands_what_it_is_given(user_data):
    """cloud-init's own schema holds for what Terraform gives the machine."""
    assert schema_of(user_data).returncode == 0


@needs_cloud_init
@pytest.mark.parametrize("wrong", ["runcmd: 5", "write_files: [{content: x}]", "write_files: [{path: /a, mode: 1}]"])
def test_cloud_init_refuses_what_it_does_not_understand(tmp_path, wrong):
    """The check above fails for a value of the wrong kind, a file without a path, and a name that does not exist."""
    path = tmp_path / "user-data"
    path.write_text(f"#cloud-config\n{wrong}\n")
    done = schema_of(path)
    assert done.returncode == 1
    assert "schema errors" in done.stdout + done.stderr


def schema_of(path):
    """Let cloud-init check a file."""
    command = ["cloud-init", "schema", "--config-file", path]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@needs_systemd
def test_systemd_understands_the_unit(tmp_path):
    """In the unit systemd finds nothing wrong, and nothing that it would pass over."""
    done = verified((VM / "trainer.service").read_text(), tmp_path)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("wrong", ["RestartSecs=30", "KillMode=gently", "ExecStart=/no/such/program"])
def test_systemd_refuses_what_it_does_not_understand(tmp_path, wrong):
    """The check above fails for a setting, a value or a program that does not exist."""
    unit = (VM / "trainer.service").read_text().replace("RestartSec=30", f"RestartSec=30\n{wrong}")
    done = verified(unit, tmp_path)
    assert (done.returncode, done.stdout + done.stderr) != (0, "")


def verified(unit, folder):
    """Let systemd check a unit, beside a Docker as the machine has one."""
    (folder / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
    (folder / "trainer.service").write_text(unit)
    command = ["systemd-analyze", "verify", "--man=no", folder / "trainer.service"]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    """Shellcheck has nothing to say about a script, its hints included."""
    command = [SHELLCHECK, "--external-sources", "--severity", "style", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "")

"""The script that fills the disk of a boot image, run for real: a real metadata server, stubs of the programs."""

import subprocess

import pytest

from tests.support.cli_process import ROOT, TIMEOUT_S
from tests.support.fake_metadata_server import running_metadata_server
from tests.support.stub_programs import Programs

IMAGE = f"us-central1-docker.pkg.dev/demo-project/yolo-train/trainer@sha256:{'0' * 64}"
TOKEN = "ya29.of-the-machine"  # noqa: S105 -- made up
METADATA = {
    "instance/attributes/boot-image-container": IMAGE,
    "instance/service-accounts/default/token": f'{{"access_token":"{TOKEN}","expires_in":3599}}',
}


@pytest.fixture
def programs(tmp_path):
    """The programs of Container-Optimized OS."""
    programs = Programs(tmp_path / "programs")
    programs.add("docker", reads=True)
    for name in ("cos-extensions", "poweroff"):
        programs.add(name)
    return programs


def fill(programs):
    """Run the script."""
    with running_metadata_server(**METADATA) as metadata:
        return subprocess.run(
            ["bash", ROOT / "infra/vm/fill.sh"],
            env={"PATH": programs.path, "no_proxy": "*"} | metadata.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )


def test_a_disk_is_filled_with_container_and_driver(programs):
    """The machine pulls the container image with its own token, installs the driver, and turns itself off; the token is
    on no command line, and the login in no file of the disk.
    """
    done = fill(programs)
    assert done.returncode == 0, done.stderr
    login, pull = programs.calls("docker")
    assert (login["words"][0], login["words"][-1]) == ("login", "https://us-central1-docker.pkg.dev")
    assert login["stdin"].strip() == TOKEN
    assert pull["words"] == ["pull", IMAGE]
    assert login["environment"]["DOCKER_CONFIG"].startswith("/run/")
    assert programs.words("cos-extensions") == [["install", "gpu"]]
    assert programs.words("poweroff") == [[]]


@pytest.mark.parametrize("program", ["docker", "cos-extensions"])
def test_a_machine_whose_disk_cannot_be_filled_stays_on(programs, program):
    """The failure is said on the serial console, where `make boot-image` looks for it; no image is made of the disk."""
    programs.add(program, "sys.exit(1)")
    done = fill(programs)
    assert done.returncode != 0
    assert "boot image: cannot be filled" in done.stderr
    assert programs.words("poweroff") == []

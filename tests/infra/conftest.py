"""Fixtures that several tests of the infrastructure share."""

import pytest

from tests.support.terraform import Infrastructure


@pytest.fixture(scope="session")
def applied(tmp_path_factory):
    """The infrastructure with a key, an archive and a boot image, applied to the stub of a cloud; tests read it."""
    infrastructure = Infrastructure(tmp_path_factory.mktemp("applied"))
    variables = {
        "wandb_key_version": "1",
        "wandb_api_key": "k" * 40,
        "archive": "demo-archive",
        "boot_image": "projects/demo-project/global/images/yolo-train-boot-1",
    }
    done = infrastructure.provision("apply", "-auto-approve", "-no-color", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return infrastructure

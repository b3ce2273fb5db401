"""Fixtures that several tests of the infrastructure share."""

import pytest

from tests.support.terraform import Infrastructure


@pytest.fixture(scope="session")
def applied(tmp_path_factory):
    """The infrastructure with a key and an archive, applied to the stub of a cloud; tests change nothing in it."""
    infrastructure = Infrastructure(tmp_path_factory.mktemp("applied"))
    done = infrastructure.provision(
        "apply", "-auto-approve", "-no-color", wandb_key_version="1", wandb_api_key="k" * 40, archive="demo-archive"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return infrastructure

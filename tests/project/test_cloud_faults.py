"""Faults on the way from an empty project to a run: each stops the command that meets it before anything is made.

Commands are typed as the README has them, in a clean clone with an empty home; tests/cloud/test_preflight.py has the
rest of what the preflight finds in a project.
"""

import pytest

from job.storage.open_store import open_store
from tests.support.fresh_account import DATASET, IMAGE, SETTINGS, VARIABLES
from tests.support.tiny_dataset import make_tiny_dataset

PUSH = "make data DATA=flight BUCKET={bucket}"
SUBMIT = f"make submit RECIPE=base IMAGE={IMAGE}"
VM_UP = f"make vm-up RECIPE=base IMAGE={IMAGE}"
SUPERVISE_UP = f"make supervise-up RUN=zebra IMAGE={IMAGE}"


def lose(name):
    """Return a fault: a file of the clone is not there."""
    return lambda account: (account.clone / name).unlink()


def lose_program(name):
    """Return a fault: a program is not installed."""
    return lambda account: (account.programs.folder / name).unlink()


def forget(name):
    """Return a fault: something was not done before."""
    return lambda account: (account.home / name).unlink()


def use_the_example(account):
    """Copy Terraform's example, and leave it as it is."""
    example = (account.clone / f"{VARIABLES}.example").read_text()
    (account.clone / VARIABLES).write_text(example)


def break_labels(account):
    """Draw pictures with a label of a class that the data set does not have."""
    folder = make_tiny_dataset(account.clone / "flight")
    next(folder.rglob("labels/**/*.txt")).write_text("9 0.5 0.5 0.1 0.1\n")


def without_login(account):
    """Ask Google itself, without credentials."""
    account.services.clear()
    account.login.unlink()


def no_quota(account):
    """Have a new project's quota."""
    account.project.quotas.update(GPUS_ALL_REGIONS=[0.0, 0.0])


FAULTS = {
    "Terraform is not installed": (
        "make infra-apply",
        lose_program("terraform"),
        78,
        "terraform: is not installed; get 1.11 or later, https://developer.hashicorp.com/terraform/install",
    ),
    "the project was not named": (
        "make infra-apply",
        lose(VARIABLES),
        78,
        "copy infra/terraform.tfvars.example to it and put your project's id in",
    ),
    "the example's project was left": ("make infra-apply", use_the_example, 78, "put your project's id in"),
    "labels are broken": (PUSH, break_labels, 65, "class 9"),
    "the bucket is not there": (
        "make data DATA=flight BUCKET=gs://nowhere",
        lambda account: make_tiny_dataset(account.clone / "flight"),
        74,
        "nowhere",
    ),
    "no container engine is installed": (
        "make image push",
        lose_program("docker"),
        78,
        "neither docker nor podman was found; install Docker Engine or Podman",
    ),
    "the image was not built": ("make push", forget("built"), 78, "image job: is not here; run make image"),
    "there is no registry yet": ("make push", lose(SETTINGS), 2, "make infra-apply makes one"),
    "nobody is logged in at the registry": (
        "make push",
        lambda account: account.login.unlink(),
        78,
        "needs a login; run gcloud auth application-default login",
    ),
    "nothing was applied": ("make submit RECIPE=base", lose(SETTINGS), 78, "`make infra-apply` writes most of them to"),
    "no image is named": (
        "make submit RECIPE=base",
        lambda _account: None,
        78,
        "image: is missing, an image by digest",
    ),
    "the image is named by its tag": (
        f"make submit RECIPE=base IMAGE={IMAGE.partition('@')[0]}:latest",
        lambda _account: None,
        78,
        "image: must be an image by digest, REPOSITORY/NAME@sha256:...",
    ),
    "no pictures were pushed": (
        SUBMIT,
        lambda account: open_store(account.bucket).delete(DATASET),
        65,
        "job data push",
    ),
    "nobody is logged in": (
        f"make preflight IMAGE={IMAGE}",
        without_login,
        78,
        "there are no credentials on this machine; run `gcloud auth application-default login`",
    ),
    "the quota of GPUs is 0": (
        SUBMIT,
        no_quota,
        78,
        "GPUS_ALL_REGIONS is 0, 0 in use, 1 needed; ask for more; https://console.cloud.google.com/iam-admin/quotas",
    ),
    "an API is off": (
        SUBMIT,
        lambda account: account.project.off.add("batch"),
        78,
        "gcloud services enable batch.googleapis.com --project demo-project",
    ),
    "the image is not in the registry": (
        SUBMIT,
        lambda account: setattr(account.project, "image_bytes", None),
        78,
        "is not in the registry; make image push",
    ),
    "this account may not act as the training account": (
        SUBMIT,
        lambda account: account.project.lacking.add("iam.serviceAccounts.actAs"),
        78,
        "--role roles/iam.serviceAccountUser --project demo-project --member user:YOU",
    ),
    "the training account may not write": (
        SUBMIT,
        lambda account: account.project.policies["bucket"].clear(),
        78,
        "--role roles/storage.objectUser",
    ),
    "the VM has no quota": (VM_UP, no_quota, 78, "GPUS_ALL_REGIONS is 0, 0 in use, 1 needed; ask for more"),
    "the VM's image is named by its tag": (
        "make vm-up RECIPE=base IMAGE=job:latest",
        lambda _account: None,
        2,
        "must name an image by its digest, NAME@sha256:..., got 'job:latest'; make push prints it",
    ),
    "gcloud is not installed": (
        SUPERVISE_UP,
        lose_program("gcloud"),
        78,
        "gcloud: is not installed; get the Google Cloud CLI, https://cloud.google.com/sdk/docs/install",
    ),
}
"""Command, fault, exit code, and words of the remedy."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_stops_the_command_that_meets_it(account, fault):
    """In a project that is set up but for one fault the command ends with its exit code and the remedy; nothing is
    pushed, applied, recorded, submitted or started.
    """
    command, seed, code, remedy = FAULTS[fault]
    account.set_up()
    seed(account)
    done = account.type(command.format(bucket=account.bucket))
    assert f"Error {code}" in done.stderr
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr
    assert account.made == []


def test_without_a_fault_the_commands_make_something(account):
    """What is set up before each fault suffices: the same commands push, apply and submit."""
    account.set_up()
    make_tiny_dataset(account.clone / "flight")
    for command in ("make infra-apply", "make push", f"{SUBMIT} RUN=zebra", VM_UP, SUPERVISE_UP):
        num_made = len(account.made)
        done = account.type(command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert len(account.made) > num_made

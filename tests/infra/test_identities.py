"""The rights of each identity as Terraform applied them, all listed, and what the container is refused by them."""

import dataclasses
import json
import logging
from types import SimpleNamespace

import pytest
import yaml

from job.analysis.campaign import Bound, Campaign, Goal
from job.cloud.rights_checks import WRITES_NO_COMMAND
from job.cloud.submission import Submissions
from job.errors import StoreError
from job.runs.run import Run
from job.session.run_archive import archive_prefix, archive_run
from job.storage.open_store import open_archive, open_store
from tests.cloud.conftest import SETTINGS
from tests.support.bucket_policy import Binding, holds, judged_by
from tests.support.fault_proxy import running_proxy
from tests.support.run_records import record_run, store_weights
from tests.support.terraform import needs_terraform
from tests.unit.cloud.test_job_spec import make_submission

pytestmark = needs_terraform

BUCKET, ARCHIVE = "demo-project-yolo-train", "demo-archive"

OWN_GROUP = (
    'resource.name.extract("/instanceGroupManagers/{group}") == "" || '
    'resource.name.endsWith("/regions/us-central1/instanceGroupManagers/yolo-train-vm")'
)

RUNTIME = {
    ("project", "roles/batch.agentReporter", ""),
    ("project", "roles/logging.logWriter", ""),
    ("project", "resize a group", OWN_GROUP),
    (BUCKET, "roles/storage.objectViewer", ""),
    (BUCKET, "roles/storage.objectUser", WRITES_NO_COMMAND),
    (ARCHIVE, "roles/storage.objectCreator", ""),
    ("registry", "roles/artifactregistry.reader", ""),
    ("wandb", "roles/secretmanager.secretAccessor", ""),
}

SUBMITTER = {
    ("project", "roles/batch.jobsEditor", ""),
    ("project", "roles/compute.viewer", ""),
    ("project", "roles/logging.viewer", ""),
    ("project", "resize a group", ""),
    (BUCKET, "roles/storage.objectUser", ""),
    (ARCHIVE, "roles/storage.objectViewer", ""),
    ("registry", "roles/artifactregistry.writer", ""),
    ("runtime", "roles/iam.serviceAccountUser", ""),
    ("project", "roles/run.developer", ""),
    ("project", "make schedules", ""),
    ("supervisor", "roles/iam.serviceAccountUser", ""),
}

SUPERVISOR = {
    ("project", "roles/batch.jobsEditor", ""),
    ("project", "look at a run", ""),
    (BUCKET, "roles/storage.objectUser", ""),
    ("notify", "roles/secretmanager.secretAccessor", ""),
    ("runtime", "roles/iam.serviceAccountUser", ""),
}

ROLES = {"resize_group": "resize a group", "supervisor": "look at a run", "schedules": "make schedules"}
"""The custom roles by the names of their resources."""

PLACES = {
    "google_project_iam_member": "project",
    "google_artifact_registry_repository_iam_member": "registry",
}


@pytest.fixture(scope="module")
def rights(applied):
    """The rights that were applied, as place, role and condition, by the name of the identity."""
    shown = applied.run("terraform", "show", "-json").stdout
    made = [entry for entry in json.loads(shown)["values"]["root_module"]["resources"] if entry["mode"] == "managed"]
    names = {entry["values"]["member"]: entry["name"] for entry in made if entry["type"] == "google_service_account"}
    roles = {
        entry["values"]["id"]: ROLES[entry["name"]]
        for entry in made
        if entry["type"] == "google_project_iam_custom_role"
    }
    accounts = {entry["values"]["name"]: entry["name"] for entry in made if entry["type"] == "google_service_account"}
    secrets = {
        entry["values"]["id"]: entry["name"] for entry in made if entry["type"] == "google_secret_manager_secret"
    }
    found = {name: set() for name in names.values()}
    for entry in made:
        if "_iam_" not in entry["type"] or entry["type"] == "google_project_iam_custom_role":
            continue
        values = entry["values"]
        place = (
            PLACES.get(entry["type"])
            or accounts.get(values.get("service_account_id"))
            or secrets.get(values.get("secret_id"))
            or values["bucket"]
        )
        role = roles.get(values["role"], values["role"])
        condition = "".join(each["expression"] for each in values.get("condition") or [])
        found[names[values["member"]]].add((place, role, condition))
    return found


def test_each_identity_has_these_rights_and_no_others(rights):
    """Of each identity every right is listed here, whatever kind of resource gives it."""
    assert rights == {"runtime": RUNTIME, "submitter": SUBMITTER, "supervisor": SUPERVISOR}


@pytest.fixture(scope="module")
def buckets(emulator):
    """Both buckets of the project."""
    return [emulator.make_bucket(name) for name in (BUCKET, ARCHIVE)]


@pytest.fixture
def as_runtime(rights, emulator, buckets, monkeypatch):
    """Let stores that are opened from now on act as the account that trains, within its rights."""
    bindings = [Binding(*right) for right in rights["runtime"] if right[0] in {BUCKET, ARCHIVE}]
    with running_proxy(emulator.url) as proxy:
        proxy.answer = judged_by(bindings)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        yield proxy


@pytest.fixture
def bucket_of_a_person(emulator, buckets, monkeypatch):
    """The bucket, as one reaches it whose rights have no condition."""
    with monkeypatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
        return open_store(buckets[0])


def test_a_submission_that_the_container_writes_is_refused(bucket_of_a_person, as_runtime, tmp_path):
    """What trains can write no submission, change none and delete none, and reads those that a person made."""
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump(SETTINGS))
    person = Run(bucket_of_a_person, "zebra")
    submission = make_submission("A", "g2-standard-8", run="zebra", bucket=person.store.uri)
    assert Submissions(person).write(submission)
    container = Run(open_store(person.store.uri), "zebra")
    key = container.key("segments/0001.json")
    for change in (
        lambda: Submissions(container).write(dataclasses.replace(submission, number=2, max_usd=1e6)),
        lambda: Submissions(container).write_job(1, "of-another", "uid"),
        lambda: container.store.put(key, b"{}", overwrite=True),
        lambda: container.store.delete(key),
    ):
        with pytest.raises(StoreError, match="permission denied"):
            change()
    assert Submissions(container).list() == Submissions(person).list() == [submission]


def test_a_campaign_that_the_container_writes_is_refused(as_runtime, buckets):
    """What trains sets no goal, bound or step of a campaign, whose next run a person's machine submits within them."""
    campaign = Campaign(open_store(buckets[0]), "campaign")
    goal = Goal(target_f1=0.9, max_runs=9, max_usd=None, profile="full", dataset="tiny", weights=None, arguments={})
    with pytest.raises(StoreError, match="permission denied"):
        campaign.create(goal, Bound(run=1e6, total=1e7, usd=True))
    assert campaign.store.list("campaigns/") == []


def test_the_container_can_write_all_that_a_training_writes(as_runtime, buckets):
    """Claims, heartbeats, checkpoints, weights and the doctor's objects are written, replaced and deleted."""
    store = open_store(buckets[0])
    claim = Run(store, "gnu").claim({})
    for _ in range(2):
        claim.heartbeat({})
    for key in ("runs/gnu/checkpoints/0001-000000.a0001/state.pt", "runs/segments/run.json", "weights/yolo11n.pt",
                "machines/1790000000.unfit", "doctor/0123", "datasets/tiny/segments/a.jpg"):  # fmt: skip
        store.put(key, b"x", overwrite=True)
        store.delete(key)
    assert Run(store, "gnu").attempt_numbers() == [1]


@pytest.mark.parametrize("prefix", ["", "team/", "runs/", "team/runs/of/"])
def test_the_condition_holds_below_any_prefix(rights, prefix):
    """Submissions and campaigns are recognised also in a bucket that is used below a prefix."""
    [condition] = [condition for _, role, condition in rights["runtime"] if role == "roles/storage.objectUser"]
    objects = f"projects/_/buckets/{BUCKET}/objects/{prefix}runs/zebra"
    assert not holds(condition, f"{objects}/segments/0002.json")
    assert not holds(condition, f"{objects}/segments/0002.job.json")
    assert not holds(condition, f"{objects.removesuffix('runs/zebra')}campaigns/campaign/campaign.json")
    assert holds(condition, f"{objects}/run.json")


def test_a_finished_run_is_archived_by_an_account_that_can_only_create(as_runtime, buckets, tmp_path, caplog):
    """The container adds a run to the archive, in which it can list, read, change and delete nothing, and an attempt
    that was cut off before its record is completed by the next.
    """
    caplog.set_level(logging.INFO)
    run = record_run(tmp_path / "bucket", (0.5, 0.6))
    store_weights(run)
    request = SimpleNamespace(archive=buckets[1], workdir=tmp_path / "work")
    for _ in range(2):
        archive_run(run, run.record(), run.final(), request)
        run.store.delete(run.key("archived.json"))
    assert [record.levelname for record in caplog.records] == ["INFO"] * 2
    archive, key = open_archive(buckets[1]), f"{archive_prefix(run.record())}final.json"
    for refused in (
        lambda: open_store(buckets[1]),
        lambda: archive.put(key, b"{}", overwrite=True),
        lambda: archive.read(key),
        lambda: archive.delete(key),
    ):
        with pytest.raises(StoreError, match="permission denied"):
            refused()

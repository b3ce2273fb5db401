"""The job's specification: accepted by Batch's own message types, with the rules of an unattended run."""

import dataclasses
import hashlib
import itertools
import json
import re
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from google.cloud import batch_v1
from google.protobuf.json_format import ParseError
from pydantic import TypeAdapter, ValidationError

from job.cloud.job_spec import STOP_TIMEOUT_S, render
from job.cloud.machine_types import Provisioning, find_machine, machines
from job.cloud.settings import load_settings
from job.cloud.submission import Placement, Submission, container_args
from job.recipes.recipe import recipe_names
from job.runs.request import TrainRequest
from job.session.preemption import FINAL_LOG_S, LIMITS_S, PARENT_LIMITS_S
from job.text import validation_problems
from tests.support.fake_batch import problem_with

GOLDEN = Path(__file__).parent / "golden"

EVERY = list(itertools.product(recipe_names(), machines()))


@pytest.fixture
def submission(settings):
    """A submission of recipe A on the machine that is the default."""
    return make_submission("A", "g2-standard-8")


def make_submission(recipe: str, machine: str, **changes) -> Submission:
    """Return a run's first submission, for a recipe and a machine."""
    words = container_args(TrainRequest.parse({"recipe": recipe, "dataset": "wildlife"}), machines()[machine])
    values = {
        "run": "yolov11_wildlife2",
        "number": 1,
        "created_at": "2026-11-23T09:00:00+00:00",
        "by": "hand",
        "reason": "submitted",
        "bucket": "gs://demo-runs",
        "request": {},
        "words": [*words, "--dataset=wildlife", "--bucket=gs://demo-runs", "--run=yolov11_wildlife2"],
        "settings": load_settings({}),
        "machines": [machine],
        "placement": Placement(region="us-central1", machine=machine, provisioning=Provisioning.SPOT),
        "deadline": None,
        "max_usd": None,
        "usd_per_hour": None,
    }
    return Submission(**(values | changes))


def parsed(submission: Submission) -> batch_v1.Job:
    """Return a submission's job as Batch reads it."""
    return batch_v1.Job.from_json(json.dumps(render(submission)))


@pytest.fixture
def check(pytestconfig):
    """A function that compares with a golden file; ``pytest --write-golden`` writes it anew."""

    def compare(name: str, found: object) -> None:
        path = GOLDEN / f"{name}.json"
        text = json.dumps(found, indent=1) + "\n"
        if pytestconfig.getoption("write_golden"):
            path.write_text(text)
        assert text == path.read_text()

    return compare


@pytest.mark.parametrize("machine", machines())
def test_the_job_of_each_machine_is_the_golden_one(settings, check, machine):
    """The whole job for recipe A on each machine is the golden one."""
    check(machine, render(make_submission("A", machine)))


def test_a_process_at_its_deadline_has_the_time_for_its_last_words():
    """The engine kills the container after the process, or one that waits for it, has said and recorded what it leaves
    behind, and before a Spot machine is gone.
    """
    assert LIMITS_S[signal.SIGTERM] + FINAL_LOG_S < STOP_TIMEOUT_S < 30
    assert PARENT_LIMITS_S[signal.SIGTERM] < STOP_TIMEOUT_S


def test_the_job_of_a_machine_by_flex_start_is_the_golden_one(settings, check):
    """The whole job on an H100 that waits for its machine is the golden one."""
    placement = Placement(region="us-central1", machine="a3-highgpu-1g", provisioning=Provisioning.FLEX_START)
    check("a3-highgpu-1g-flex-start", render(make_submission("A", "a3-highgpu-1g", placement=placement)))


def test_the_command_of_each_recipe_is_the_golden_one(settings, check):
    """The container's arguments for each recipe are the golden list."""
    check("recipes", {recipe: make_submission(recipe, "g2-standard-8").words for recipe in recipe_names()})


@pytest.mark.parametrize(("recipe", "machine"), EVERY)
def test_recipe_and_machine_change_nothing_but_their_own(settings, recipe, machine):
    """The job of every recipe on every machine is that machine's golden job with that recipe's golden command, and
    Batch's message types take it.
    """
    submission = make_submission(recipe, machine)
    expected = json.loads((GOLDEN / f"{machine}.json").read_text())
    container = expected["taskGroups"][0]["taskSpec"]["runnables"][0]["container"]
    devices = ",".join(map(str, range(machines()[machine].gpus)))
    words = json.loads((GOLDEN / "recipes.json").read_text())[recipe]
    container["commands"] = [word.replace("--device=0", f"--device={devices}") for word in words]
    expected["labels"]["digest"] = submission.digest[:40]
    assert render(submission) == expected
    assert parsed(submission).task_groups[0].task_spec.runnables[0].container.commands == container["commands"]


@pytest.mark.parametrize("machine", machines())
def test_the_service_would_take_it(settings, machine):
    """Names, retries, policies and locations are within what the service accepts."""
    submission = make_submission("A", machine)
    parent, _, job_id = submission.job_name.rpartition("/jobs/")
    request = batch_v1.CreateJobRequest(
        parent=parent, job_id=job_id, job=parsed(submission), request_id=submission.request_id
    )
    assert problem_with(request) is None


def test_a_misspelt_field_would_be_noticed(submission):
    """The parse is strict: an unknown field, and a duration that is a number, are errors."""
    spec = render(submission)
    with pytest.raises(ParseError):
        batch_v1.Job.from_json(json.dumps({**spec, "logPolicy": {}}))
    spec["taskGroups"][0]["taskSpec"]["maxRunDuration"] = 3600
    with pytest.raises(ParseError):
        batch_v1.Job.from_json(json.dumps(spec))


def test_everything_but_our_fatal_codes_is_tried_again(submission):
    """One policy fails the task on 2, 65, 70, 74, 78 and Batch's time limit; preemption and the rest are retried, ten
    times.
    """
    task = parsed(submission).task_groups[0].task_spec
    [policy] = task.lifecycle_policies
    assert policy.action.name == "FAIL_TASK"
    assert set(policy.action_condition.exit_codes) == {2, 65, 70, 74, 78, 50005}
    assert task.max_retry_count == 10
    assert not task.runnables[0].ignore_exit_status


def test_there_is_one_task(submission):
    """One task on one machine, which is what a run is."""
    [group] = parsed(submission).task_groups
    assert (group.task_count, group.parallelism, group.task_count_per_node) == (1, 1, 1)


def test_the_image_is_named_by_digest(submission):
    """A tag may be moved between two attempts; a digest may not."""
    image = parsed(submission).task_groups[0].task_spec.runnables[0].container.image_uri
    assert re.search(r"@sha256:[0-9a-f]{64}$", image)


def test_the_command_needs_no_shell(submission):
    """The words follow the image's entry point one by one, and none is left to a shell."""
    container = parsed(submission).task_groups[0].task_spec.runnables[0].container
    assert container.commands[0] == "train"
    assert not container.entrypoint
    assert [word for word in container.commands if re.search(r"[$`;|&<>]", word)] == []


def test_secrets_are_named_and_not_contained(submission):
    """The W&B key is a reference to Secret Manager, and no other variable looks like a secret."""
    environment = parsed(submission).task_groups[0].task_spec.environment
    assert dict(environment.secret_variables) == {
        "WANDB_API_KEY": "projects/demo-project/secrets/wandb-api-key/versions/latest"
    }
    assert [name for name in environment.variables if re.search("KEY|TOKEN|SECRET|PASSWORD", name)] == []


def test_without_a_secret_there_is_no_variable(submission):
    """A project without W&B gets a job without its key."""
    without = dataclasses.replace(submission, settings=dataclasses.replace(submission.settings, wandb_secret=None))
    assert dict(parsed(without).task_groups[0].task_spec.environment.secret_variables) == {}


@pytest.mark.parametrize("machine", machines())
def test_loaders_have_shared_memory(settings, machine):
    """The container gets gigabytes of shared memory, as a container option, and never image streaming, which would
    drop the option.
    """
    container = parsed(make_submission("A", machine)).task_groups[0].task_spec.runnables[0].container
    assert int(re.search(r"--shm-size=(\d+)g", container.options)[1]) >= 6
    assert not container.enable_image_streaming


@pytest.mark.parametrize("machine", machines())
def test_the_task_gets_the_machine_it_is_on(settings, machine):
    """CPU and memory fill the machine with some left for the system; the defaults would be 2 cores and 2 GB."""
    resource = parsed(make_submission("A", machine)).task_groups[0].task_spec.compute_resource
    assert resource.cpu_milli == machines()[machine].vcpus * 1000
    assert 0.8 < resource.memory_mib / (machines()[machine].memory_gib * 1024) < 0.95


@pytest.mark.parametrize(("machine", "gpus", "shared_gb"), [("l4x2", 2, 36), ("a100x4", 4, 127), ("h100x8", 8, 702)])
def test_a_process_trains_on_each_gpu_of_a_machine(settings, machine, gpus, shared_gb):
    """With 2, 4 or 8 GPUs the command names each, which starts as many processes; their loaders share more memory."""
    machine = find_machine(machine)
    task = parsed(make_submission("A", machine.type)).task_groups[0].task_spec
    container = task.runnables[0].container
    assert f"--device={','.join(map(str, range(gpus)))}" in container.commands
    assert f"--shm-size={shared_gb}g" in container.options
    assert task.compute_resource.cpu_milli == machine.vcpus * 1000


@pytest.mark.parametrize(
    ("provisioning", "model", "reservation"),
    [("spot", "SPOT", ""), ("flex_start", "FLEX_START", "NO_RESERVATION"), ("on_demand", "STANDARD", "")],
)
def test_the_provisioning_model_is_explicit(submission, provisioning, model, reservation):
    """Each kind of provisioning has its model, and a flex-start machine is not one of a reservation."""
    placement = dataclasses.replace(submission.placement, provisioning=Provisioning(provisioning))
    [instance] = parsed(dataclasses.replace(submission, placement=placement)).allocation_policy.instances
    assert (instance.policy.provisioning_model.name, instance.policy.reservation) == (model, reservation)


@pytest.mark.parametrize(
    ("provisioning", "prices", "usd"),
    [
        ("flex_start", {"on_demand": 3.5}, "3.5"),
        ("flex_start", {"on_demand": 3.5, "flex_start": 2.0}, "2"),
        ("flex_start", {"spot": 1.0}, None),
        ("spot", {"on_demand": 3.5}, None),
    ],
)
def test_the_job_knows_the_price_that_the_limit_reckons_with(submission, provisioning, prices, usd):
    """The user's own price is in the job's environment; flex-start without one has that of on demand."""
    placement = Placement(region="us-central1", machine="a2-highgpu-1g", provisioning=Provisioning(provisioning))
    settings = dataclasses.replace(submission.settings, prices={"a2-highgpu-1g": prices})
    found = parsed(dataclasses.replace(submission, placement=placement, settings=settings))
    assert found.task_groups[0].task_spec.environment.variables.get("JOB_USD_PER_HOUR") == usd


@pytest.mark.parametrize("machine", machines())
def test_the_driver_is_installed_and_the_gpu_named(settings, machine):
    """`installGpuDrivers` stands beside the policy, where it works, and the accelerator is the machine's own."""
    job = parsed(make_submission("A", machine))
    [instance] = job.allocation_policy.instances
    [accelerator] = instance.policy.accelerators
    assert instance.install_gpu_drivers
    assert not accelerator.install_gpu_drivers
    assert (accelerator.type_, accelerator.count) == (machines()[machine].gpu, machines()[machine].gpus)
    assert instance.policy.machine_type == machine


def test_the_machine_has_no_external_address(submission):
    """One interface, in the private network, without an external address; the container itself may use it."""
    job = parsed(submission)
    [interface] = job.allocation_policy.network.network_interfaces
    assert interface.no_external_ip_address
    assert not job.task_groups[0].task_spec.runnables[0].container.block_external_network


def test_the_job_runs_as_the_training_account_alone(submission):
    """The service account is the one that may do no more than train."""
    account = parsed(submission).allocation_policy.service_account
    assert account.email == "trainer@demo-project.iam.gserviceaccount.com"
    assert not account.scopes


def test_locations_are_in_the_job_s_own_region(submission):
    """Newer projects take no other; any zone of the region will do."""
    moved = dataclasses.replace(
        submission,
        settings=dataclasses.replace(
            submission.settings, other_regions={"us-east1": "projects/p/regions/us-east1/subnetworks/s"}
        ),
        placement=dataclasses.replace(submission.placement, region="us-east1"),
    )
    for entry in (submission, moved):
        region = entry.job_name.split("/")[3]
        policy = parsed(entry).allocation_policy
        assert list(policy.location.allowed_locations) == [f"regions/{region}"]
        assert f"/regions/{region}/" in policy.network.network_interfaces[0].subnetwork


def test_logs_are_kept(submission):
    """Without a destination Batch keeps no logs."""
    assert parsed(submission).logs_policy.destination.name == "CLOUD_LOGGING"


def test_labels_find_the_run_again(submission):
    """Job and machines carry the run's name, in the characters that a label may have."""
    job = parsed(dataclasses.replace(submission, run="Wild_Life-2"))
    for labels in (job.labels, job.allocation_policy.labels):
        assert labels["run"] == "wild_life-2"
        assert [value for value in labels.values() if not re.fullmatch(r"[a-z0-9_-]{1,63}", value)] == []
        assert [name for name in labels if name.startswith(("goog-", "google-"))] == []


def test_durations_are_text_with_a_unit(submission):
    """A duration is a string such as 3600s, at most the 14 days that Batch runs a job for."""
    spec = render(submission)["taskGroups"][0]["taskSpec"]
    assert re.fullmatch(r"\d+s", spec["maxRunDuration"])
    assert parsed(submission).task_groups[0].task_spec.max_run_duration <= timedelta(days=14)


def test_paths_lose_the_address_of_their_api(submission):
    """Terraform's self links are taken, and Batch gets the path that it wants."""
    link = f"https://www.googleapis.com/compute/v1/{submission.settings.network}"
    linked = dataclasses.replace(submission, settings=dataclasses.replace(submission.settings, network=link))
    assert parsed(linked).allocation_policy.network == parsed(submission).allocation_policy.network


def test_machines_boot_the_image_that_the_settings_name(submission):
    """A boot image with the container inside replaces Batch's own, by its path."""
    path = "projects/demo-project/global/images/yolo-train-boot-20261126-120000"
    for named, image in [(None, "batch-cos"), (path, path), (f"https://www.googleapis.com/compute/v1/{path}", path)]:
        settings = dataclasses.replace(submission.settings, boot_image=named)
        (instance,) = parsed(dataclasses.replace(submission, settings=settings)).allocation_policy.instances
        assert instance.policy.boot_disk.image == image
        assert instance.install_gpu_drivers  # which are found in the image


@pytest.mark.parametrize("usd", [50, 50.0])
@pytest.mark.parametrize("spot", [True, False])
def test_an_older_record_is_read_and_keeps_its_digest(submission, usd, spot):
    """A record with whole dollars, without the fields of later versions, makes the same job as when it was written."""
    old = dataclasses.asdict(submission) | {"max_usd": usd, "request": {"recipe": "A"}}
    old["placement"] = {"region": "us-central1", "machine": "g2-standard-8", "spot": spot}
    old["settings"]["prices"] = {"g2-standard-8": {"spot": 1}}
    del old["max_hours"], old["settings"]["boot_image"]
    read = TypeAdapter(Submission).validate_json(json.dumps(old))
    assert read.digest == hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()
    assert read.placement.provisioning is (Provisioning.SPOT if spot else Provisioning.ON_DEMAND)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"schema": 2}, "schema: must be 1, got 2"),
        ({"deadline": "soon"}, "deadline: must be a time in ISO 8601, got 'soon'"),
        ({"request": []}, "request: must be a mapping, got []"),
        ({"max_usd": -1}, "max_usd: must be a number of at least 0, got -1"),
        ({"words": "train"}, "words: must be a list, got 'train'"),
        ({"by": "nobody"}, "by: must be one of hand, supervisor, got 'nobody'"),
        ({"more": 1}, "more: unknown key; known are run, number"),
    ],
)
def test_a_record_of_another_form_names_its_field(submission, changes, problem):
    """A field of another type, an unknown one or a newer schema is named, with what was found."""
    record = json.dumps(dataclasses.asdict(submission) | changes)
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(Submission).validate_json(record)
    [said] = validation_problems(raised.value, Submission)
    assert said.startswith(problem)


@pytest.mark.parametrize(
    "run", ["yolov11_wildlife", "Zebra", "2e967232", "a", "x" * 63, "a-_-b", "trailing-", "A" * 40 + "-" * 20]
)
def test_every_run_name_makes_a_job_id(submission, run):
    """A job's id has at most 63 lowercase letters, digits and hyphens, begins with a letter, and ends with none."""
    named = dataclasses.replace(submission, run=run, number=1234)
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", named.job_id)


def test_ids_differ_by_run_bucket_and_submission(submission):
    """Equal submissions have equal ids; another run, bucket or number has others."""
    others = [
        submission,
        dataclasses.replace(submission, run="yolov11-wildlife2"),
        dataclasses.replace(submission, run="YOLOv11_wildlife2"),
        dataclasses.replace(submission, bucket="gs://other"),
        dataclasses.replace(submission, number=2),
    ]
    assert len({entry.job_id for entry in others}) == len({entry.request_id for entry in others}) == 5
    again = dataclasses.replace(submission, created_at="2026-11-24T00:00:00+00:00")
    assert (again.job_id, again.request_id) == (submission.job_id, submission.request_id)


def test_every_machine_has_prices_or_a_reason():
    """A price has a range, a date and a source; a machine without one says why."""
    for machine in machines().values():
        assert (machine.prices is None) != (machine.no_prices is None)
        if machine.prices is not None:
            assert machine.prices.spot[0] <= machine.prices.spot[1] < machine.prices.on_demand[1]
            assert re.fullmatch(r"\d{4}-\d\d-\d\d", machine.prices.date)
            assert machine.prices.source


def test_every_machine_is_to_be_had_by_some_kind_of_provisioning_cheapest_first():
    """Kinds are in the order of their prices, and the machines of A2 and A3 alone come by flex-start."""
    order = list(Provisioning)
    for machine in machines().values():
        assert [*machine.provisioning] == sorted({*machine.provisioning}, key=order.index)
        assert (Provisioning.FLEX_START in machine.provisioning) == machine.type.startswith(("a2-", "a3-"))

"""Preflight: each fault of a project is found before anything is made, with its remedy."""

import json

import pytest
import yaml

from job.cli.app import main
from job.cloud.google_api import GoogleApi
from job.cloud.machine_types import IMAGE_CUDA
from job.cloud.rights_checks import WRITES_NO_COMMAND
from job.cloud.submission import Submissions
from job.storage.open_store import open_store
from tests.cloud.conftest import OTHER_REGION, SETTINGS
from tests.support.fake_google_project import ACCOUNT, FakeProject, binding

FAULTS = {
    "an API is off": (
        lambda project: project.off.add("batch"),
        "APIs: 1 of 7 are off: batch.googleapis.com; gcloud services enable batch.googleapis.com --project demo-",
    ),
    "no GPU in any region": (
        lambda project: project.quotas.update(GPUS_ALL_REGIONS=[0.0, 0.0]),
        "all regions: GPUS_ALL_REGIONS is 0, 0 in use, 1 needed; ask for more; https://console.cloud.google.com/iam-",
    ),
    "no Spot GPU in the region": (
        lambda project: project.region_quotas.update(PREEMPTIBLE_NVIDIA_L4_GPUS=[0.0, 0.0]),
        "us-central1: PREEMPTIBLE_NVIDIA_L4_GPUS is 0, 0 in use, 1 needed",
    ),
    "no zone of the region has machine and GPU": (
        lambda project: project.zones.update({"nvidia-l4": ["us-central1-f", "us-east4-a"]}),
        "g2-standard-8 with nvidia-l4 is in no zone of us-central1, but in none; choose another --machine",
    ),
    "the image was never pushed": (
        lambda project: setattr(project, "image_bytes", None),
        "is not in the registry; make image push",
    ),
    "the bucket is elsewhere": (
        lambda project: setattr(project, "location", "EUROPE-WEST4"),
        "is in europe-west4 and the job in us-central1, and each start pays for the way",
    ),
    "the subnetwork was deleted": (
        lambda project: project.subnetworks.update({"us-central1": None}),
        "projects/demo-project/regions/us-central1/subnetworks/yolo does not exist; make infra-apply",
    ),
    "machines do not reach Google": (
        lambda project: project.subnetworks.update({"us-central1": False}),
        "subnets update yolo --region us-central1 --project demo-project --enable-private-ip-google-access",
    ),
    "no right to make jobs": (
        lambda project: project.lacking.add("batch.jobs.create"),
        "batch.jobs.create on demo-project; gcloud projects add-iam-policy-binding demo-project --role roles/batch.job",
    ),
    "no right to act as the training account": (
        lambda project: project.lacking.add("iam.serviceAccounts.actAs"),
        "this account lacks iam.serviceAccounts.actAs on trainer@demo-project",
    ),
    "no training account": (lambda project: setattr(project, "has_account", False), "does not exist; make infra-apply"),
    "no right on objects": (
        lambda project: project.lacking.update({"storage.objects.create", "storage.objects.delete"}),
        "this account lacks storage.objects.create, storage.objects.delete on gs://",
    ),
    "training cannot report": (
        lambda project: project.policies["project"].pop(0),
        "serviceAccount:trainer@demo-project.iam.gserviceaccount.com --role roles/batch.agentReporter",
    ),
    "training cannot write": (lambda project: project.policies["bucket"].clear(), "--role roles/storage.objectUser"),
    "training cannot pull": (
        lambda project: project.policies.update(repository=[binding("roles/artifactregistry.reader", "a@b")]),
        "--role roles/artifactregistry.reader",
    ),
    "training cannot read the key": (
        lambda project: project.policies["secret"].clear(),
        "--role roles/secretmanager.secretAccessor",
    ),
    "the key was destroyed": (
        lambda project: setattr(project, "secret_state", "DESTROYED"),
        "wandb-api-key/versions/latest is destroyed; raise wandb_key_version, then make infra-apply",
    ),
    "there is no key": (
        lambda project: setattr(project, "secret_state", None),
        "wandb-api-key/versions/latest does not exist",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_stops_a_submission_before_anything_is_made(cloud, capsys, fault):
    """One fault is the one problem, with its remedy; nothing is recorded and no job is made."""
    seed, expected = FAULTS[fault]
    seed(cloud.project)
    assert cloud.submit() == 78
    said = capsys.readouterr().err
    assert "cloud: nothing was made, as the project is not ready, 1 of " in said
    assert expected in said
    assert (Submissions(cloud.run).list(), cloud.batch.jobs) == ([], {})


def test_a_registry_elsewhere_stops_a_submission(cloud, capsys, tmp_path):
    """A registry in another region is found by its own name; one of the continent is near enough."""
    image = SETTINGS["image"].removeprefix("us-central1")
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, "image": f"europe-west4{image}"}))
    assert cloud.submit() == 78
    assert "the registry is in europe-west4 and the job in us-central1" in capsys.readouterr().err
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, "image": f"us{image}"}))
    cloud.project.location = "US"
    assert main(["doctor", "--cloud"]) == 0


def test_a_boot_image_that_is_not_there_stops_a_submission(cloud, capsys, tmp_path):
    """A boot image that was deleted is found before Batch refuses it; another container inside is a warning."""
    path = "projects/demo-project/global/images/yolo-train-boot-1"
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, "boot_image": path}))
    assert cloud.submit() == 78
    assert "boot image: yolo-train-boot-1 is not there; make boot-image makes one" in capsys.readouterr().err
    for inside, said in [
        ("job@sha256:1", "has another container image inside"),
        (SETTINGS["image"], "has the container"),
    ]:
        cloud.project.boot_image = inside
        assert main(["doctor", "--cloud"]) == 0
        assert said in capsys.readouterr().out


def test_a_broken_dataset_stops_a_submission(cloud, capsys):
    """A push that was cut off is found before a machine is paid for."""
    open_store(cloud.bucket).put("datasets/half/versions/0001.begun", b"")
    open_store(cloud.bucket).put("datasets/half/data.yaml", b"names: [animal]\n")
    assert cloud.submit("--dataset", "half") == 78
    assert "dataset half: its first push was cut off" in capsys.readouterr().err
    assert cloud.batch.jobs == {}


def test_an_image_and_data_that_are_not_there_yet_hide_no_other_fault(cloud, capsys, tmp_path):
    """A fresh project is checked before anything is built or pushed."""
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, "image": None}))
    store = open_store(cloud.bucket)
    for stored in list(store.list("datasets/")):
        store.delete(stored.key)
    FAULTS["no GPU in any region"][0](cloud.project)
    assert main(["doctor", "--cloud"]) == 78
    said = capsys.readouterr().err
    assert "3 of " in said
    assert "GPUS_ALL_REGIONS is 0" in said
    assert "  - image: none is named; make image push, then IMAGE=... as it prints" in said
    assert "  - dataset: there is none in gs://" in said


def test_every_fault_is_reported_at_once(cloud, capsys):
    """All seeded faults that can be there together are listed by one command."""
    together = [
        "no GPU in any region",
        "the image was never pushed",
        "the bucket is elsewhere",
        "training cannot write",
    ]
    for fault in together:
        FAULTS[fault][0](cloud.project)
    assert main(["doctor", "--cloud"]) == 78
    said = capsys.readouterr()
    assert [fault for fault in together if FAULTS[fault][1] not in said.err] == []
    assert f"4 of {said.out.count('ok  ') + said.out.count('warn') + said.out.count('open') + 4} checks" in said.err


def test_a_submission_may_pass_the_preflight_by(cloud):
    """--no-preflight asks the project nothing."""
    FAULTS["the bucket is elsewhere"][0](cloud.project)
    cloud.script(["hold"])
    assert cloud.submit("--no-preflight") == 0
    assert cloud.project.asked == []
    assert len(cloud.batch.jobs) == 1


def test_doctor_lists_what_is_ready_and_what_only_a_machine_shows(cloud, capsys):
    """A sound project has no failure; image size and zones are shown, driver and capacity are open, lines fit."""
    assert main(["doctor", "--cloud"]) == 0
    said = capsys.readouterr().out
    assert "each machine fetches 3.24 GB" in said
    assert "g2-standard-8 with nvidia-l4 is in us-central1-a" in said
    assert "warn  dataset         tiny: was not pushed by" in said
    assert [line.split()[1] for line in said.splitlines() if line.startswith("open")] == ["driver", "capacity"]
    assert [line for line in said.splitlines() if len(line) > 80] == []
    assert {request.split()[0] for request in cloud.project.asked} == {"GET", "POST"}


def test_a_refused_question_is_a_warning(cloud, capsys):
    """An account that has only the submitter's roles submits, with a warning for each check that it may not make."""
    cloud.project.refused = {"getIamPolicy", f"b/{cloud.bucket.removeprefix('gs://')}", "versions/latest"}
    cloud.script(["hold"])
    assert cloud.submit() == 0
    said = capsys.readouterr().err
    for subject in ("regions", "training", "secret"):
        assert f"{subject}: cannot be checked, " in said


def test_spot_takes_the_quota_of_on_demand_where_it_has_none(cloud, capsys):
    """Without a quota of its own Spot counts against that of on demand, which on demand needs anyway."""
    cloud.project.region_quotas.update(PREEMPTIBLE_NVIDIA_L4_GPUS=[0.0, 0.0], NVIDIA_L4_GPUS=[1.0, 0.0])
    assert main(["doctor", "--cloud"]) == 0
    cloud.project.region_quotas.update(PREEMPTIBLE_NVIDIA_L4_GPUS=[1.0, 0.0], NVIDIA_L4_GPUS=[0.0, 0.0])
    assert main(["doctor", "--cloud", "--on-demand"]) == 78
    assert "us-central1: NVIDIA_L4_GPUS is 0, 0 in use, 1 needed" in capsys.readouterr().err


def test_the_quota_has_to_hold_all_gpus_of_a_machine(cloud, capsys):
    """A machine with four GPUs needs a quota of four, in all regions and in its own."""
    cloud.project.quotas["GPUS_ALL_REGIONS"], cloud.project.region_quotas["PREEMPTIBLE_NVIDIA_L4_GPUS"] = [3, 0], [2, 1]
    assert main(["doctor", "--cloud", "--machine", "l4x4"]) == 78
    said = capsys.readouterr().err
    assert "all regions: GPUS_ALL_REGIONS is 3, 0 in use, 4 needed" in said
    assert "us-central1: PREEMPTIBLE_NVIDIA_L4_GPUS is 2, 1 in use, 4 needed" in said


def findings_of(cloud, capsys, subject, *words):
    """Return grade and text of a subject's findings."""
    assert main(["doctor", "--cloud", "--json", *words]) == 0
    findings = json.loads(capsys.readouterr().out)
    return [(finding["grade"], finding["found"]) for finding in findings if finding["subject"] == subject]


def test_a_quota_in_use_is_waited_for_and_one_without_a_limit_suffices(cloud, capsys):
    """A run may be submitted while another one has the GPU; a limit of -1 is none."""
    cloud.project.quotas.update(GPUS_ALL_REGIONS=[1.0, 1.0])
    cloud.project.region_quotas.update(PREEMPTIBLE_NVIDIA_L4_GPUS=[-1.0, 3.0])
    (grade, everywhere), (here_grade, here), _ = findings_of(cloud, capsys, "GPU quota")
    assert (grade, here_grade) == ("warn", "ok")
    assert "GPUS_ALL_REGIONS is 1, 1 in use, 1 needed; it waits" in everywhere
    assert "PREEMPTIBLE_NVIDIA_L4_GPUS is inf, 3 in use" in here


def test_the_quota_of_on_demand_is_told_and_missed_if_there_is_a_deadline(cloud, capsys):
    """A run on Spot needs it only when it would be late."""
    told = "us-central1: NVIDIA_L4_GPUS is 0, 0 in use, 1 needed on demand"
    assert findings_of(cloud, capsys, "GPU quota")[-1] == ("ok", f"{told}, to which only a --deadline leads")
    cloud.script(["hold"])
    assert cloud.submit("--deadline", "12h") == 0
    assert f"GPU quota: {told}, where a run that is late would wait; ask for more; https" in capsys.readouterr().err
    cloud.project.region_quotas["NVIDIA_L4_GPUS"] = [1.0, 0.0]
    assert findings_of(cloud, capsys, "GPU quota")[-1] == (
        "ok",
        told.replace("is 0", "is 1").removesuffix(" on demand"),
    )
    assert len(findings_of(cloud, capsys, "GPU quota", "--machine", "h100")) == 2


def test_places_that_a_run_may_move_to_are_checked(cloud, capsys, tmp_path):
    """Quota and zones of other regions and machines are reported; a lack there is a warning, and stops nothing."""
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, "other_regions": OTHER_REGION}))
    for name in ("g2-standard-8", "nvidia-l4"):
        cloud.project.zones[name].append("us-east1-b")
    machines = ("--machine", "l4,t4")
    places = findings_of(cloud, capsys, "other places", *machines)
    assert [grade for grade, _ in places] == ["ok", "ok", "warn"]
    assert places[0][1].startswith(
        "g2-standard-8 in us-east1, Spot; us-east1: PREEMPTIBLE_NVIDIA_L4_GPUS is 8, 0 in use"
    )
    assert places[2][1] == (
        "n1-standard-8 in us-east1, Spot: a run that moves there waits in vain, no zone of us-east1 has n1-standard-8 "
        "with nvidia-tesla-t4"
    )
    cloud.project.quotas_of["us-east1"] = {"PREEMPTIBLE_NVIDIA_L4_GPUS": [0.0, 0.0]}
    assert "in vain, us-east1: PREEMPTIBLE_NVIDIA_L4_GPUS is 0, 0 in use, 1 needed" in findings_of(
        cloud, capsys, "other places", *machines)[0][1]  # fmt: skip
    assert findings_of(cloud, capsys, "regions")[-1] == (
        "warn", f"{cloud.bucket} is in us-central1, and each start of a run that moves to us-east1 pays for the way"
    )  # fmt: skip
    cloud.project.subnetworks["us-east1"] = None
    assert [grade for grade, _ in findings_of(cloud, capsys, "network")] == ["ok", "warn"]
    assert [text.split()[0] for _, text in findings_of(cloud, capsys, "price", *machines)] == ["g2-standard-8:", "that"]
    assert main(["doctor", "--vm", "--json"]) == 0
    assert "other places" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "bindings",
    [
        [{"role": "roles/storage.objectUser", "members": ["group:trainers@example.org"]}],
        [binding("roles/storage.objectUser") | {"condition": {"title": "until", "expression": "true"}}],
        [binding("roles/editor")],
    ],
)
def test_a_right_that_the_training_account_may_have_is_a_warning(cloud, capsys, bindings):
    """What a group, a condition or the role of an editor gives is not in a policy, and stops nothing."""
    cloud.project.policies["bucket"] = bindings
    found = dict(map(reversed, findings_of(cloud, capsys, "training")))
    assert [text for text, grade in found.items() if grade == "warn"] == [
        f"{ACCOUNT} may train on {cloud.bucket} only if a group, a condition or the role of an editor lets it"
    ]


def test_the_condition_of_the_project_s_own_policy_is_no_warning(cloud, capsys):
    """Training writes neither submissions nor campaigns, so that a right to write everything else suffices."""
    condition = {"expression": WRITES_NO_COMMAND}
    cloud.project.policies["bucket"] = [binding("roles/storage.objectUser") | {"condition": condition}]
    assert {grade for grade, _ in findings_of(cloud, capsys, "training")} == {"ok"}


def test_multi_regions_and_a_size_that_is_not_told_are_no_fault(cloud, capsys):
    """A dual-region of the continent is near, and a registry may leave the image's size out."""
    cloud.project.location, cloud.project.image_bytes = "NAM4", 0
    assert [grade for grade, _ in findings_of(cloud, capsys, "regions")] == ["ok"]
    assert "fetches a size that the registry does not tell" in findings_of(cloud, capsys, "image")[0][1]


def test_price_and_weights_that_are_not_there_are_warnings(cloud, capsys):
    """A machine without a price, and published weights that the bucket lacks, are named with what follows."""
    assert main(["doctor", "--cloud", "--machine", "a100", "--recipe", "base", "--json"]) == 0
    found = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert (found["price"]["grade"], found["price"]["remedy"]) == ("warn", "prices: {a2-highgpu-1g: {spot: USD}}")
    assert found["weights"]["grade"] == "warn"
    assert found["weights"]["remedy"].endswith(f".pt --bucket {cloud.bucket}")
    source = found["weights"]["found"].split()[0]
    open_store(cloud.bucket).put(source, b"weights")
    assert main(["doctor", "--cloud", "--recipe", "base", "--machine", "a100", "--json"]) == 0
    found = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert found["weights"]["grade"] == "ok"


def test_the_vm_needs_other_rights(cloud, capsys):
    """The Spot VM is started by its group, and not by a job."""
    cloud.project.lacking.add("batch.jobs.create")
    assert main(["doctor", "--vm"]) == 0
    cloud.project.lacking.add("compute.instanceGroupManagers.update")
    assert main(["doctor", "--vm"]) == 78
    assert "lacks compute.instanceGroupManagers.update on demo-project" in capsys.readouterr().err


def test_an_api_that_does_not_answer_is_tried_again_later(cloud, capsys, monkeypatch):
    """A server error is no finding: the command ends with 75."""
    monkeypatch.setattr(FakeProject, "answer", lambda *_request: (503, "unavailable"))
    assert cloud.submit() == 75
    assert "was not answered, 503; try again" in capsys.readouterr().err
    assert cloud.batch.jobs == {}


@pytest.mark.parametrize("answer", [(503, "unavailable"), (429, "Quota exceeded"), (200, ["no", "object"])])
def test_one_api_that_does_not_answer_is_a_warning(cloud, capsys, monkeypatch, answer):
    """What the other APIs answer suffices to submit; the one is named."""
    monkeypatch.setattr(cloud.project, "_serviceusage", lambda *_request: answer)
    cloud.script(["hold"])
    assert cloud.submit() == 0
    assert "APIs: cannot be checked, serviceusage services:batchGet: was not answered" in capsys.readouterr().err


def test_requests_go_to_google_without_an_emulator(monkeypatch):
    """Without the emulator's variable the host is Google's own, and credentials are needed."""
    monkeypatch.delenv("GOOGLE_API_EMULATOR_HOST", raising=False)
    asked = []

    class Session:
        def request(self, method, url, **_content):
            asked.append((method, url))
            raise SystemExit

    monkeypatch.setattr(GoogleApi, "_connected", lambda _api: Session())
    with pytest.raises(SystemExit):
        GoogleApi().get("compute.googleapis.com", "compute/v1/projects/demo")
    assert asked == [("GET", "https://compute.googleapis.com/compute/v1/projects/demo")]


def test_the_driver_that_the_image_needs_is_that_of_its_torch():
    """The image has the torch of the lock, and its CUDA is the one named here."""
    torch = pytest.importorskip("torch")
    assert int(torch.version.cuda.partition(".")[0]) == IMAGE_CUDA


def test_flex_start_takes_the_quota_of_spot(cloud, capsys):
    """A machine that waits by flex-start counts against the preemptible quota, and its own price is the one shown."""
    quotas = {"PREEMPTIBLE_NVIDIA_A100_GPUS": [0.0, 0.0], "NVIDIA_A100_GPUS": [0.0, 0.0]}
    cloud.project.region_quotas.update(quotas)
    assert main(["doctor", "--cloud", "--machine", "a100", "--flex-start"]) == 78
    said = capsys.readouterr()
    assert "us-central1: PREEMPTIBLE_NVIDIA_A100_GPUS is 0, 0 in use, 1 needed" in said.err
    assert "prices: {a2-highgpu-1g: {flex_start: USD}}" in said.out

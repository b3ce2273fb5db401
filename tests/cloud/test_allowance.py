"""The settings of the reading machine limit what a record in the bucket may ask for."""

import dataclasses
import json

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from job.cli.app import main
from job.cloud.allowance import load_allowance
from job.cloud.batch import Batch
from job.cloud.budget import Limit
from job.cloud.submission import Submission, Submissions
from job.cloud.supervisor import Supervisor
from job.errors import CorruptObjectError, RunConflictError
from job.runs.cost import usd_of
from tests.cloud.conftest import OTHER_REGION, SETTINGS
from tests.support.cli_process import wait_until
from tests.unit.cloud.test_job_spec import make_submission

EVIL = {
    "project": ("prod-payments", "project: the record has 'prod-payments', the settings here have demo-project"),
    "service_account": (
        "terraform-admin@prod.iam.gserviceaccount.com",
        "service_account: the record has 'terraform-admin@prod.iam.gserviceaccount.com'",
    ),
    "network": ("projects/prod/global/networks/default", "network: the record has 'projects/prod/global/networks"),
    "subnetwork": (
        "projects/prod/regions/us-central1/subnetworks/default",
        "subnetwork of us-central1: the record has 'projects/prod",
    ),
    "image": (f"docker.io/evil/miner@sha256:{'0' * 64}", "image: the record has 'docker.io/evil/miner@sha256"),
    "wandb_secret": ("projects/p/secrets/root-password/versions/1", "wandb_secret: the record has 'projects/p/secrets"),
    "boot_image": ("projects/prod/global/images/root", "boot_image: the record has 'projects/prod/global/images/root'"),
    "region": ("europe-west4", "region: the record has 'europe-west4', the settings here have us-central1"),
    "other_regions": (OTHER_REGION, "region: the record has 'us-east1', the settings here have us-central1"),
}
"""By setting, a value that a record must not ask for, and the refusal."""

SAME_REPOSITORY = f"us-central1-docker.pkg.dev/demo-project/yolo/other@sha256:{'1' * 64}"


@pytest.fixture
def submission(settings):
    """A submission as a person with these settings submits it."""
    return make_submission("A", "g2-standard-8", max_usd=50.0)


def with_settings(submission, **changes):
    """Return a submission with other settings."""
    return dataclasses.replace(submission, settings=dataclasses.replace(submission.settings, **changes))


def write(cloud, submission):
    """Overwrite a record, as any writer of the bucket can."""
    text = json.dumps(dataclasses.asdict(submission))
    cloud.run.store.put(cloud.run.key(f"segments/{submission.number:04d}.json"), text.encode(), overwrite=True)


def test_what_the_settings_say_is_allowed(submission):
    """A record of the same settings is obeyed; so is another image of the repository, a boot image of the project, as
    they are made anew, and a key that was renewed.
    """
    allowance = load_allowance({})
    allowance.require(submission)
    allowance.require(with_settings(submission, image=SAME_REPOSITORY))
    allowance.require(with_settings(submission, boot_image="projects/demo-project/global/images/yolo-train-boot-1"))
    renewed = submission.settings.wandb_secret.replace("latest", "9")
    allowance.require(with_settings(submission, wandb_secret=renewed))
    allowance.require(with_settings(submission, wandb_secret=None))
    link = "https://www.googleapis.com/compute/v1/projects/demo-project/global/networks/yolo"
    allowance.require(with_settings(submission, network=link))


@pytest.mark.parametrize("name", EVIL)
def test_each_setting_of_a_record_is_compared_with_the_settings(submission, name):
    """A record that differs in one setting is refused, and the difference is named."""
    value, said = EVIL[name]
    with pytest.raises(RunConflictError) as refused:
        load_allowance({}).require(with_settings(submission, **{name: value}))
    assert len(refused.value.problems) == 1
    assert said in refused.value.problems[0]


@pytest.mark.parametrize("repository", ["demo-project/yolo-evil", "demo-project/yol", "demo-project-evil/yolo", "demo"])
def test_a_repository_whose_name_begins_alike_is_another(submission, repository):
    """Images are allowed from the repository of the settings, and from none whose name extends or shortens it."""
    image = f"us-central1-docker.pkg.dev/{repository}/train@sha256:{'1' * 64}"
    for flags in ({}, {"image_repository": "us-central1-docker.pkg.dev/demo-project/yolo"}):
        with pytest.raises(RunConflictError) as refused:
            load_allowance(flags).require(with_settings(submission, image=image))
        assert [problem.partition(":")[0] for problem in refused.value.problems] == ["image"]


def test_all_differences_are_named_at_once(submission):
    """A record that differs in everything is refused once."""
    with pytest.raises(RunConflictError) as refused:
        load_allowance({}).require(with_settings(submission, **{name: value for name, (value, _) in EVIL.items()}))
    assert len(refused.value.problems) >= len(EVIL) - 2  # the problem of a foreign region includes its subnetwork


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"max_usd": 1e6},
            "limit: the record has 1000000.00 USD, the settings here have 50.00 USD, or 48 machine hours",
        ),
        ({"max_usd": None, "max_hours": 49.0}, "limit: the record has 49 machine hours"),
        ({"max_usd": None, "max_hours": 7.0, "machines": ["a3-highgpu-8g"]}, "limit: the record has 7 machine hours"),
        ({"max_usd": 50.0, "max_hours": 49.0}, "limit: the record has 50.00 USD"),
        ({"max_run_s": 14 * 24 * 3600}, "durations: the record has 10 retries of 1209600 s"),
        ({"max_retries": 11}, "durations: the record has 11 retries"),
        ({"words": ["verify", "--bucket=gs://demo-runs", "--run=yolov11_wildlife2"]}, "words: the record has 'verify"),
        ({"words": ["train", "--bucket=gs://other", "--run=yolov11_wildlife2"]}, "words: the record has 'train"),
        ({"machines": ["a4-megagpu"]}, "machine: the record has 'a4-megagpu', which is not known here"),
    ],
)
def test_limits_and_arguments_of_a_record_are_compared_with_the_settings(submission, changes, said):
    """Neither a higher limit, nor longer jobs, nor another command or machine is taken from a record."""
    with pytest.raises(RunConflictError) as refused:
        load_allowance({}).require(dataclasses.replace(submission, **changes))
    assert said in "\n".join(refused.value.problems)


def test_recorded_dollars_need_a_price(tmp_path, submission):
    """A limit in dollars is refused where a machine of the record has no price, which would make it one of hours."""
    recorded = dataclasses.replace(make_submission("A", "a3-highgpu-8g"), max_usd=20.0, usd_per_hour=20.0)
    with pytest.raises(RunConflictError) as refused:
        load_allowance({}).require(recorded)
    assert "\n".join(refused.value.problems).startswith(
        "limit: the record has 20.00 USD, and the price of a3-highgpu-8g is not known here; write `prices: "
        "{a3-highgpu-8g: {spot: USD}}` an hour to cloud.yaml"
    )
    load_allowance({}, Limit()).require(recorded)
    load_allowance({}).require(dataclasses.replace(recorded, max_usd=None, max_hours=5.0))
    prices = {"a3-highgpu-8g": {"spot": 20.0}}
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, "prices": prices}))
    load_allowance({}).require(recorded)


@pytest.mark.parametrize("given", [Limit(usd=1e7), Limit()])
def test_a_limit_of_the_command_line_takes_the_place_of_the_record_s(submission, given):
    """--max-usd and --no-limit replace the limit on record."""
    load_allowance({}, given).require(dataclasses.replace(submission, max_usd=1e6))


def test_a_price_on_record_makes_nothing_cheaper(submission):
    """The higher of the price on record and the own one counts."""
    allowance = load_allowance({})
    assert allowance.price(dataclasses.replace(submission, usd_per_hour=0.0001)) == 0.35
    assert allowance.price(dataclasses.replace(submission, usd_per_hour=None)) == 0.35
    assert allowance.price(dataclasses.replace(submission, usd_per_hour=2.0)) == 2.0
    assert usd_of([(3600, allowance.price(submission))]) == 0.35


@pytest.mark.parametrize(
    ("own_price", "recorded", "limit"),
    [
        (None, {"max_usd": 50.0, "usd_per_hour": 0.0001}, Limit(hours=48.0)),
        (None, {"max_usd": 50.0, "usd_per_hour": None}, Limit(hours=48.0)),
        (None, {"max_hours": 5.0}, Limit(hours=5.0)),
        (90.0, {"max_hours": 48.0}, Limit(usd=50.0)),
        (90.0, {"max_usd": 20.0, "usd_per_hour": 0.0001}, Limit(usd=20.0)),
    ],
)
def test_a_price_on_record_makes_no_limit_wider(tmp_path, own_price, recorded, limit):
    """A record's dollars count only where this machine knows the price, and its hours only where it does not: a limit
    of dollars for a machine with a recorded price of 0, or of hours for a dear one, would be none.
    """
    prices = {} if own_price is None else {"a3-highgpu-1g": {"spot": own_price}}
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, "prices": prices}))
    evil = make_submission("A", "a3-highgpu-1g", **recorded)
    assert load_allowance({}).limit_of(evil) == limit
    assert load_allowance({}).limit_of(dataclasses.replace(evil, machines=["a4-megagpu"])) == Limit(
        hours=recorded.get("max_hours", 48.0)
    )


FOREIGN = {
    "segments/0001.json": [
        [], b"[" * 100_000, {"deadline": "soon"}, {"created_at": "soon"}, {"max_run_s": 10**400},
        {"placement": {"region": "us-central1", "machine": "g2-standard-8", "spot": "no"}},
    ],
    "segments/0001.job.json": [[], {"name": "n"}, b"x", {"name": "n", "uid": 'x" OR logName:"'}],
    "attempts/0001.json": [
        [], {"claimed_at": "soon"}, {"host": 7}, {"price": [1]}, {"price": {"usd_per_h": "0"}},
        {"price": {"usd_per_h": -9.0}}, {"cloud_job": []},
    ],
    "attempts/0001.end.json": [
        {}, {"ended_at": "soon", "reason": "failed"}, {"ended_at": "2026-11-23T10:00:00+00:00", "exit_code": []},
        {"ended_at": "2026-11-23T10:00:00+00:00", "reason": "failed", "position": "here"},
    ],
    "attempts/0001.pulse.json": [{"x": 1}],
    "final.json": [{}, [1], {"num_epochs": "ten"}],
}  # fmt: skip
"""By its key, contents or changes of a record that nothing of ours writes."""


def test_malformed_records_are_refused(cloud, capsys):
    """With any other JSON, or none, in place of a record of the run, supervisor and status end with 74 and a message:
    never a traceback, and no action.
    """
    cloud.script(["commit 1 0", "hold"])
    assert cloud.submit() == 0
    wait_until(lambda: cloud.run.attempt_numbers() == [1])
    store = cloud.run.store
    for name, contents in FOREIGN.items():
        key = cloud.run.key(name)
        sound = store.read(key) if store.list(key) else None
        for content in contents:
            changed = content
            if isinstance(content, dict) and sound is not None and name in {"segments/0001.json", "attempts/0001.json"}:
                changed = json.loads(sound) | content
            data = changed if isinstance(changed, bytes) else json.dumps(changed or {"nothing": 1}).encode()
            store.put(key, data, overwrite=True)
            capsys.readouterr()
            assert main(["status", "zebra"]) == 74, (name, content)
            assert "zebra" in capsys.readouterr().err
            assert cloud.supervise() == 74, (name, content)
        store.delete(key)
        if sound is not None:
            store.put(key, sound)
    assert len(cloud.batch.jobs) == 1
    assert main(["status", "zebra"]) == 0


def test_the_first_submission_counts_as_made_by_hand(cloud, submission):
    """Records none of which says that a person submitted, since the first was changed, are still decided on."""
    cloud.script(["hold"])
    assert cloud.submit() == 0
    [first] = Submissions(cloud.run).list()
    write(cloud, dataclasses.replace(first, by="supervisor"))
    assert main(["status", "zebra"]) == 0


def test_the_supervisor_reckons_with_its_own_price(cloud):
    """A record that says that its machine costs next to nothing brings no run past its limit."""
    cloud.script(["hold"])
    assert cloud.submit() == 0
    [first] = Submissions(cloud.run).list()
    write(cloud, dataclasses.replace(first, usd_per_hour=0.0001))
    allowance = load_allowance({})
    [seen] = Supervisor(run=cloud.run, batch=Batch.connect(), allowance=allowance, poll_s=0).history().submissions
    assert (seen.submission.usd_per_hour, seen.usd_per_hour) == (0.0001, 0.35)


def test_settings_that_are_in_no_file_are_given_by_flags(tmp_path, capsys):
    """Without a file project and region are asked for, and flags that are no settings are refused."""
    assert main(["status", "zebra", "--bucket", "gs://b"]) == 78
    said = capsys.readouterr().err
    assert "- project: is missing" in said
    assert "- region: is missing" in said
    assert "image" not in said
    assert main(["status", "zebra", "--bucket", "gs://b", "--projct", "p"]) == 2
    assert "--projct: there is no such flag; did you mean 'project'?" in capsys.readouterr().err
    allowance = load_allowance({"project": "demo-project", "region": "us-central1"})
    found = allowance.settings
    assert (found.project, allowance.image_repositories, found.max_usd, found.max_hours) == (
        "demo-project", (), 50.0, 48.0
    )  # fmt: skip


def test_a_record_makes_the_supervisor_submit_nothing(cloud, capsys):
    """A forged next submission gets no job: no other image, account, project, price or limit."""
    cloud.script(["commit 1 0", "hold"])
    assert cloud.submit() == 0
    wait_until(lambda: cloud.run.attempt_numbers() == [1])
    [first] = Submissions(cloud.run).list()
    changes = {name: value for name, (value, _) in EVIL.items() if name not in {"region", "other_regions"}}
    evil = dataclasses.replace(with_settings(first, **changes), number=2, by="supervisor", max_usd=1e6)
    write(cloud, evil)
    assert cloud.supervise() == 65
    said = capsys.readouterr().err
    assert "project: the record has 'prod-payments'" in said
    assert len(cloud.batch.jobs) == 1
    write(cloud, with_settings(evil, project="demo-project"))
    assert cloud.supervise() == 65
    said = capsys.readouterr().err
    assert all(part in said for name, (_, part) in EVIL.items() if name in changes and name != "project")
    assert "limit: the record has 1000000.00 USD" in said
    assert cloud.supervise("--resume") == 65
    assert len(cloud.batch.jobs) == 1


def test_a_record_makes_a_repeated_submission_submit_nothing(cloud, capsys):
    """The same command finds a recorded submission without a job, and makes that only if the settings allow it."""
    cloud.script(["hold"])
    assert cloud.submit() == 0
    [first] = Submissions(cloud.run).list()
    cloud.run.store.delete(cloud.run.key("segments/0001.job.json"))
    Batch.connect()._client.delete_job(name=first.job_name)
    write(cloud, with_settings(first, image=EVIL["image"][0]))
    capsys.readouterr()
    assert cloud.submit() == 65
    assert "image: the record has 'docker.io/evil/miner" in capsys.readouterr().err
    assert cloud.batch.jobs == {}


@pytest.mark.parametrize("command", ["status", "logs", "cancel"])
def test_a_record_leads_to_no_other_project(cloud, capsys, command):
    """`status`, `logs` and `cancel` stay in the project and regions of the settings."""
    cloud.script(["hold"])
    assert cloud.submit() == 0
    [first] = Submissions(cloud.run).list()
    write(cloud, with_settings(first, project="prod-payments"))
    capsys.readouterr()
    assert main([command, "zebra"]) == 65
    assert "project: the record has 'prod-payments', the settings here have demo-project" in capsys.readouterr().err


def test_a_run_of_other_settings_can_still_be_cancelled(cloud, tmp_path, monkeypatch):
    """A run that was submitted with an account, an image or a limit that the settings no longer have is still looked at
    and cancelled, and not made again.
    """
    cloud.script(["commit 1 0", "hold"])
    assert cloud.submit("--no-limit") == 0
    wait_until(lambda: cloud.run.attempt_numbers() == [1])
    changed = {"service_account": "new@demo-project.iam.gserviceaccount.com", "image": f"a.b/c/d@sha256:{'2' * 64}"}
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, **changed}))
    assert main(["status", "zebra"]) == 0
    assert cloud.supervise() == 65
    assert main(["cancel", "zebra"]) == 0
    cloud.batch.jobs[cloud.job(1)].ended.wait()


def test_a_run_without_a_limit_gets_that_of_the_settings(cloud, submission):
    """A run of before limits were usual, or of --no-limit, is supervised within the own limit, in dollars or hours as
    its machines' prices allow, unless a person says again that there is none.
    """
    unlimited = dataclasses.replace(submission, max_usd=None)
    assert load_allowance({}).limit_of(unlimited) == Limit(usd=50.0)
    assert load_allowance({}).limit_of(dataclasses.replace(unlimited, machines=["a2-highgpu-1g"])) == Limit(hours=48.0)
    assert load_allowance({}, Limit()).limit_of(submission) == Limit()
    assert load_allowance({}).limit_of(dataclasses.replace(submission, max_usd=3.0)) == Limit(usd=3.0)
    cloud.script(["commit 1 0", "finish"])
    assert cloud.submit("--no-limit") == 0
    assert cloud.supervise() == 0


def test_a_record_of_another_run_is_not_followed(cloud, capsys):
    """A submission that was copied from another run, bucket or number would lead to the job of that one."""
    cloud.script(["hold"])
    assert cloud.submit() == 0
    [first] = Submissions(cloud.run).list()
    for changes in ({"run": "gnu"}, {"bucket": "gs://other"}):
        write(cloud, dataclasses.replace(first, **changes))
        with pytest.raises(CorruptObjectError, match="is the record of submission 1 of run"):
            Submissions(cloud.run).list()
    content = dataclasses.asdict(dataclasses.replace(first, number=3))
    cloud.run.store.put(cloud.run.key("segments/0002.json"), json.dumps(content).encode())
    assert main(["cancel", "zebra"]) == 74


@pytest.mark.parametrize(
    "changes",
    [
        {"max_retries": "ten"}, {"max_run_s": 1.5}, {"max_usd": "little"}, {"max_usd": -1}, {"words": "train"},
        {"machines": [1]}, {"by": "nobody"}, {"placement": 7}, {"settings": {"project": "p"}}, {"usd_per_hour": "0"},
        {"max_usd": float("nan")}, {"number": True},
    ],
)  # fmt: skip
def test_a_record_of_another_form_is_refused_as_one(submission, changes):
    """A field of another type is refused when the record is read, and never as a traceback later."""
    with pytest.raises(ValidationError):
        TypeAdapter(Submission).validate_json(json.dumps(dataclasses.asdict(submission) | changes))


def test_a_record_of_before_there_were_hours_is_read(submission):
    """Submissions without the newer field are read, and their digest is what their job's label says."""
    old = dataclasses.asdict(submission)
    del old["max_hours"]
    read = TypeAdapter(Submission).validate_json(json.dumps(old))
    assert read == submission
    assert read.digest == submission.digest
    assert dataclasses.replace(submission, max_hours=1.0).digest != submission.digest

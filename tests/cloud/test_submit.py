"""Commands of the cloud: what a person types, and the messages for mistakes and missing things."""

import json
import os
import re
import subprocess
import sys
import threading

import pytest
import yaml
from google.cloud import batch_v1

from job.cli.app import main
from job.cloud.batch import Batch
from job.cloud.submission import Submissions
from job.runs.run import Run
from job.runs.search import find_run
from job.storage.open_store import open_store
from tests.cloud.conftest import OTHER_REGION, SETTINGS
from tests.support.cli_process import surroundings, wait_until
from tests.support.http_server import Handler, serving


def test_submitting_twice_is_once(cloud, capsys):
    """The same command again finds the job it made, by the same id, and makes no other."""
    cloud.script(["hold"])
    assert cloud.submit() == 0
    assert cloud.submit() == 0
    assert "was submitted before" in capsys.readouterr().err
    assert len(cloud.batch.jobs) == 1


def test_submitting_twice_without_a_name_is_once(cloud):
    """A run without a name is identified by its request, before it has claimed anything in the bucket."""
    cloud.script(["hold"])
    cloud.batch.without_capacity = {"us-central1"}
    words = ["submit", "--model", "yolo11n.yaml"]
    assert main(words) == main(words) == 0
    assert len(cloud.batch.jobs) == 1
    assert main([*words, "--epochs", "3"]) == 0
    runs = {stored.key.split("/")[1] for stored in open_store(cloud.bucket).list("runs/")}
    assert runs == {"yolov11_tiny", "yolov11_tiny2"}


def test_two_submissions_at_once_make_one_job(cloud):
    """Of two machines that submit the same request at the same time, one records it and both see the same job."""
    cloud.script(["hold"])
    ends = []
    both = [threading.Thread(target=lambda: ends.append(cloud.submit())) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert (ends, len(cloud.batch.jobs)) == ([0, 0], 1)


def test_a_submission_that_was_cut_off_is_completed(cloud, monkeypatch):
    """If the job was made and the answer got lost, submitting again finds it instead of making another."""
    cloud.script(["hold"])
    with monkeypatch.context() as lost:
        lost.setattr(Submissions, "write_job", lambda *_args: None)
        assert cloud.submit() == 0
    assert Submissions(cloud.run).job_uid(1) is None
    assert cloud.submit() == 0
    assert Submissions(cloud.run).job_uid(1) is not None
    assert len(cloud.batch.jobs) == 1


def test_a_submission_that_died_before_its_job_was_made_is_completed(cloud, monkeypatch):
    """A submission is recorded before its job is made: after a death in between the same command makes that job."""
    cloud.script(["hold"])

    class DeathError(BaseException):
        """The end of the process."""

    def die(*_args):
        assert [submission.number for submission in Submissions(cloud.run).list()] == [1]
        raise DeathError

    with monkeypatch.context() as dead:
        dead.setattr(Batch, "make", die)
        with pytest.raises(DeathError):
            cloud.submit()
    recorded = Submissions(cloud.run).list()
    assert (len(recorded), cloud.batch.jobs) == (1, {})
    assert cloud.submit() == 0
    assert Submissions(cloud.run).list() == recorded
    assert cloud.job(1) == recorded[0].job_name


def test_the_newest_of_equal_submissions_is_meant(cloud):
    """Without a name the last one is found, also where names have more than one digit."""
    cloud.script(["hold"])
    names = ["yolov11_wildlife", *(f"yolov11_wildlife{number}" for number in range(2, 12))]
    for name in names:
        assert main(["submit", "--model", "yolo11n.yaml", "--run", name]) == 0
    request = Submissions(Run(open_store(cloud.bucket), names[0])).list()[0].request
    assert find_run(open_store(cloud.bucket), None, request)[0].name == names[-1]


def test_a_run_submitted_with_other_values_is_refused(cloud, capsys):
    """A name stands for one order, also before the run has begun; each difference is named."""
    cloud.script(["hold"])
    assert cloud.submit() == 0
    assert cloud.submit("--epochs", "7") == 65
    assert "train.epochs: the run has 20, asked for 7" in capsys.readouterr().err


def test_a_job_of_that_name_that_is_another_is_not_taken_over(cloud, capsys):
    """A foreign job under the id is a conflict, not a success."""
    cloud.script(["hold"])
    assert main(["render", "--model", "yolo11n.yaml", "--run", "zebra"]) == 0
    spec = json.loads(capsys.readouterr().out)
    spec["labels"]["digest"] = "of-another"
    job_id = spec["taskGroups"][0]["taskSpec"]["environment"]["variables"]["JOB_CLOUD_JOB"]
    Batch.connect().make(
        f"projects/demo-project/locations/us-central1/jobs/{job_id}", spec, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    )
    assert cloud.submit() == 65
    assert "exists and is another job" in capsys.readouterr().err


def test_what_cannot_start_costs_no_machine(cloud, capsys):
    """Missing start weights are reported before a job is made."""
    assert main(["submit", "--recipe", "A"]) == 65
    assert "start weights: there is no finished run" in capsys.readouterr().err
    assert cloud.batch.jobs == {}


def test_a_submission_that_stays_supervises(cloud, capsys, monkeypatch):
    """With --supervise the command ends with the run."""
    monkeypatch.setattr("job.cli.supervise.POLL_S", 0.02)
    cloud.script(["commit 1 0", "finish"])
    assert cloud.submit("--supervise") == 0
    assert "finish: finished after 10 epochs" in capsys.readouterr().out


def test_the_container_gets_all_arguments(cloud):
    """The arguments of the container are the person's, with run, dataset and bucket decided."""
    cloud.script(["hold"])
    assert cloud.submit("--rotate", "3", "--cos-lr", "--quarantine", "--checkpoint-every", "30") == 0
    container = cloud.batch.jobs[cloud.job(1)].job.task_groups[0].task_spec.runnables[0].container
    assert list(container.commands) == [
        *("train", "--recipe=base", "--device=0", "--checkpoint-every=30", "--model=yolo11n.yaml", "--quarantine=true"),
        *("--rotate=3", "--cos-lr=true", "--dataset=tiny", f"--bucket={cloud.bucket}", "--run=zebra"),
    ]


@pytest.mark.parametrize(("flag", "model"), [("--on-demand", "STANDARD"), ("--flex-start", "FLEX_START")])
def test_rendering_makes_nothing(settings, capsys, flag, model):
    """`job render` prints what Batch would get, without a bucket, a client or credentials."""
    words = ["render", "--recipe", "B", "--bucket", "gs://nowhere", "--machine", "a100", flag]
    assert main(words) == 0
    job = batch_v1.Job.from_json(capsys.readouterr().out)
    [instance] = job.allocation_policy.instances
    assert (instance.policy.machine_type, instance.policy.provisioning_model.name) == ("a2-highgpu-1g", model)


def test_settings_come_from_terraform_s_outputs(tmp_path, capsys):
    """The output of `terraform output -json` is enough, with the image by digest; the file and flags come before it."""
    outputs = {name: {"value": value} for name, value in SETTINGS.items() if name not in {"image", "service_account"}}
    outputs |= {
        "runtime_service_account": {"value": SETTINGS["service_account"]},
        "image_repository": {"value": "us-central1-docker.pkg.dev/demo-project/yolo"},
        "bucket": {"value": "demo-runs"},
        "alert_policies": {"value": ["not ours"]},
    }
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra" / "outputs.json").write_text(json.dumps(outputs))
    image = f"trainer@sha256:{'a' * 64}"
    assert main(["render", "--image", image]) == 0
    container = json.loads(capsys.readouterr().out)["taskGroups"][0]["taskSpec"]["runnables"][0]["container"]
    assert container["imageUri"] == f"us-central1-docker.pkg.dev/demo-project/yolo/{image}"
    assert "--bucket=gs://demo-runs" in container["commands"]
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({"service_account": "other@demo.iam.gserviceaccount.com"}))
    assert main(["render", "--image", image, "--project", "another"]) == 0
    job = json.loads(capsys.readouterr().out)
    assert job["allocationPolicy"]["serviceAccount"]["email"] == "other@demo.iam.gserviceaccount.com"
    assert "projects/another/secrets/wandb-api-key/versions/latest" in json.dumps(job)


@pytest.mark.parametrize("name", ["cloud.yaml", "infra/outputs.json"])
def test_settings_in_a_pipe_are_not_waited_for(tmp_path, capsys, name):
    """A pipe in the place of a file with settings is refused by name."""
    (tmp_path / "infra").mkdir()
    os.mkfifo(tmp_path / name)
    assert main(["render", "--bucket", "gs://b"]) == 78
    assert f"{name}: cannot be read" in capsys.readouterr().err


def test_all_missing_settings_are_reported_at_once(capsys):
    """Without settings every one of them is named, with its form."""
    assert main(["render", "--bucket", "gs://b"]) == 78
    said = capsys.readouterr().err
    for name in ("project", "region", "image", "service_account", "network", "subnetwork"):
        assert f"- {name}: is missing, " in said
    assert "- region: is missing, a region such as us-central1; pass --region, or write it to cloud.yaml" in said
    assert "wandb_secret" not in said


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"image": "us-docker.pkg.dev/p/r/trainer:latest"}, "image: must be an image by digest"),
        ({"region": "us-central1-a"}, "region: must be a region such as us-central1"),
        ({"subnetwork": "default"}, "subnetwork: must be projects/P/regions/R/subnetworks/NAME"),
        ({"region": "us-east1"}, "subnetwork: must be in the region us-east1"),
        ({"wandb_secret": "0123456789abcdef/x"}, "wandb_secret: must be projects/P/secrets/NAME"),
        ({"regoin": "us-east1"}, "regoin: there is no such setting; did you mean 'region'?"),
        (
            {"other_regions": {"us-east1": SETTINGS["subnetwork"]}},
            "other_regions: must map each region to a subnetwork in it, got {'us-east1'",
        ),
        (
            {"other_regions": {"us-east1": "default"}},
            "other_regions.us-east1: must be projects/P/regions/R/subnetworks/",
        ),
        ({"prices": {"g2-standard-9": {"spot": 1}}}, "prices.g2-standard-9: there is no such machine"),
        (
            {"prices": {"g2-standard-8": {"spot": "cheap"}}},
            "prices.g2-standard-8.spot: must be a positive number, got 'cheap'",
        ),
        (
            {"prices": {"g2-standard-8": {"sopt": 1}}},
            "prices.g2-standard-8.sopt: must be one of spot, flex_start, on_demand",
        ),
        ({"max_usd": 0}, "max_usd: must be a positive number, got 0"),
        ({"max_hours": "long"}, "max_hours: must be a positive number, got 'long'"),
    ],
)
def test_a_malformed_setting_is_refused(tmp_path, capsys, changes, part):
    """A setting that Batch or Google would refuse later is refused at once, with its form."""
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, **changes}))
    assert main(["render", "--bucket", "gs://b"]) == 78
    assert part in capsys.readouterr().err


@pytest.mark.parametrize("command", ["submit", "render"])
def test_every_wrong_flag_is_reported_at_once(settings, capsys, monkeypatch, command):
    """Limits, deadline and recipe are all checked before a request to bucket or Batch."""
    monkeypatch.setenv("JOB_BUCKET", "gs://demo-runs")
    wrong = {"max-usd": "ten", "deadline": "tomorrow", "on-demand": "perhaps", "workers": "-1", "seed": "-1"}
    assert main([command, *(f"--{name}={value}" for name, value in wrong.items())]) == 2
    said = capsys.readouterr().err
    assert [name for name in wrong if f"- --{name}: " not in said and f"- {name}: " not in said] == []


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["--machine", "a101"], 2, "--machine: there is no 'a101'; did you mean 'a100'?"),
        (["--machine", "h100", "--on-demand"], 2, "a3-highgpu-1g is to be had by Spot or flex-start only"),
        (["--flex-start"], 2, "g2-standard-8 is to be had by Spot or on demand only"),
        (["--machine", "a100", "--flex-start", "--on-demand"], 2, "contradicts --flex-start"),
        (["--deadline", "tomorrow"], 2, "--deadline: must be hours from now such as 12h"),
        (["--deadline", "2020-01-01T00:00"], 2, "--deadline: has passed"),
        (["--max-usd", "ten"], 2, "--max-usd: must be a number of dollars"),
        (["--max-usd", "0.1"], 75, "one attempt of 30 minutes on this machine may cost 0.26"),
        (["--max-usd", "9", "--machine", "a100"], 2, "write `prices: {a2-highgpu-1g: {spot: USD}}`"),
        (["--max-usd", "9", "--machine", "l4,a100"], 2, "write `prices: {a2-highgpu-1g: {spot: USD}}`"),
        (["--max-usd", "9", "--no-limit"], 2, "--max-usd: 9 and --no-limit contradict each other"),
        (["--bucket", "folder"], 2, "bucket folder: is on this machine"),
        (["--recipe", "mine.yaml"], 65, "mine.yaml: cannot be read"),
        (["--device", "0,1"], 2, "--device: names 2 devices, more than the 1 of g2-standard-8"),
        (["--machine", "l4,l4x2"], 2, "g2-standard-24 has another number of GPUs than g2-standard-8, and a run keeps"),
        (["--notify", "https://host/hook"], 2, "--notify: is for the supervisor; pass --supervise, or --notify to"),
        (["--rotat", "3"], 2, "did you mean 'rotate'?"),
        (["--epochs", "0"], 65, "epochs: must be a whole number from 1 to"),
    ],
)
def test_a_mistake_is_reported_before_anything_is_made(settings, capsys, monkeypatch, words, code, part):
    """Each kind of mistake ends with one message and the right code, on a machine without any credentials."""
    monkeypatch.setenv("JOB_BUCKET", "gs://demo-runs")
    assert main(["submit", *words]) == code
    assert part in capsys.readouterr().err


def test_files_of_this_machine_are_not_sent_to_the_cloud(settings, tmp_path, capsys, monkeypatch):
    """A recipe file and local weights, which the container does not have, are refused with what to do."""
    monkeypatch.setenv("JOB_BUCKET", "gs://demo-runs")
    (tmp_path / "mine.yaml").write_text("start: yolo11n.yaml\ntrain: {epochs: 1}\n")
    (tmp_path / "best.pt").write_bytes(b"weights")
    assert main(["submit", "--recipe", "mine.yaml"]) == 2
    assert main(["submit", "--weights", "best.pt"]) == 2
    said = capsys.readouterr().err
    assert "--recipe mine.yaml: is a file on this machine" in said
    assert "--weights best.pt: is a file on this machine" in said


@pytest.mark.parametrize(
    ("words", "settings", "worst", "limit"),
    [
        ([], {}, "this can cost $50.00 at worst, 142.9 hours of g2-standard-8", (50.0, None)),
        (["--max-usd", "9"], {}, "this can cost $9.00 at worst", (9.0, None)),
        ([], {"max_usd": 5}, "this can cost $5.00 at worst", (5.0, None)),
        (["--no-limit"], {}, "this can cost $185.76 at worst, 530.8 hours", (None, None)),
        (["--machine", "a100"], {}, "this can take 48.0 hours of a2-highgpu-1g", (None, 48.0)),
        (["--machine", "l4,a100"], {}, "the limit of the whole run is 48 machine hours", (None, 48.0)),
        (["--machine", "a100x8"], {}, "this can take 6.0 hours of a2-highgpu-8g", (None, 6.0)),
        (["--machine", "a100"], {"max_hours": 6}, "this can take 6.0 hours of a2-highgpu-1g", (None, 6.0)),
    ],
)
def test_a_submission_has_a_limit_and_prints_its_worst_cost(cloud, capsys, tmp_path, words, settings, worst, limit):
    """Without a word a run has the limit of the settings: 50 USD, or 48 hours where a price is not known; the command
    line replaces it, and the worst cost of the first job is printed before it is made.
    """
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, **settings}))
    cloud.script(["hold"])
    assert cloud.submit(*words) == 0
    assert worst in capsys.readouterr().err
    [submission] = Submissions(cloud.run).list()
    assert (submission.max_usd, submission.max_hours) == limit


def test_a_price_of_one_s_own_makes_a_limit_possible(tmp_path, capsys):
    """A machine without a price on record takes a dollar limit once cloud.yaml has its price."""
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, "prices": {"a2-highgpu-1g": {"spot": 2.0}}}))
    assert main(["render", "--bucket", "gs://b", "--machine", "a100", "--max-usd", "8"]) == 0
    task = json.loads(capsys.readouterr().out)["taskGroups"][0]["taskSpec"]
    assert (task["maxRetryCount"], task["maxRunDuration"]) == (3, "2700s")  # 4 hours for four attempts and starts


@pytest.mark.parametrize("command", ["status", "supervise", "cancel", "logs"])
def test_a_run_that_was_never_submitted_is_refused(cloud, capsys, command):
    """Asking for a run without a submission names the command that makes one."""
    assert main([command, "gnu"]) == 65
    assert "gnu" in capsys.readouterr().err


def test_status_shows_the_state_of_a_run(cloud, capsys, tmp_path):
    """The status names state, progress, cost, submissions and attempts."""
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump({**SETTINGS, "other_regions": OTHER_REGION}))
    cloud.script(["commit 3 7", "hold"])
    assert cloud.submit("--max-usd", "5", "--deadline", "20h") == 0
    wait_until(lambda: cloud.run.store.list(cloud.run.key("checkpoints/0003-000007.a0001/manifest")))
    capsys.readouterr()
    assert main(["status", "zebra"]) == 0
    said = capsys.readouterr().out
    assert "state       wait: running" in said
    assert "committed   epoch 3, batch 7, of 10 epochs" in said
    assert "used        unknown, a machine has no price, by the records of the attempts" in said
    assert re.search(r"worst       14\.3 machine hours, 5\.00 USD; limit 5\.00 USD", said)
    assert "g2-standard-8 in us-central1, Spot" in said
    assert "running" in said.splitlines()[-1]


def test_status_shows_why_a_job_waits(cloud, capsys):
    """The quota that keeps a job from its machine is named, with the page where more is asked for."""
    cloud.batch.without_capacity = {"us-central1"}
    cloud.batch.delay = (
        "VM in Managed Instance Group meets error: Batch Error: code - CODE_GCE_QUOTA_EXCEEDED, description - error "
        "count is 4, latest message example: Instance 'x' creation failed: Quota 'GPUS_PER_GPU_FAMILY' exceeded.  "
        "Limit: 0.0 in region us-central1."
    )
    assert cloud.submit() == 0
    job = cloud.batch.jobs[cloud.job(1)].job
    wait_until(lambda: len(job.status.status_events) == 2)
    assert main(["status", "zebra"]) == 0
    expected = "no machine yet: quota GPUS_PER_GPU_FAMILY is 0 in region us-central1; ask for more at https://console."
    assert expected in capsys.readouterr().out


def test_logs_are_read_page_by_page(cloud, capsys, monkeypatch):
    """The lines of the job's container come in order, whichever form an entry has, over several pages."""
    cloud.script(["hold"])
    assert cloud.submit() == 0
    uid = Submissions(cloud.run).job_uid(1)
    entries = [
        {"timestamp": "2026-11-23T09:00:00.1Z", "textPayload": "plain\n"},
        {"timestamp": "2026-11-23T09:00:01.1Z", "jsonPayload": {"message": "ours", "attempt": 1}},
    ]
    asked = []

    class LogsHandler(Handler):
        def do_POST(self):
            body = json.loads(self.body())
            asked.append(body)
            page = {"entries": entries[1:]} if "pageToken" in body else {"entries": entries[:1], "nextPageToken": "2"}
            self.respond(200, json.dumps(page).encode(), {})

    with serving(LogsHandler) as address:
        monkeypatch.setenv("GOOGLE_API_EMULATOR_HOST", address)
        capsys.readouterr()
        assert main(["logs", "zebra"]) == 0
    assert capsys.readouterr().out == "2026-11-23T09:00:00Z  plain\n2026-11-23T09:00:01Z  ours\n"
    assert f'labels.job_uid="{uid}"' in asked[0]["filter"]


@pytest.mark.parametrize(
    ("command", "missing", "part"),
    [
        (
            "submit",
            "google.cloud.batch_v1",
            "Cloud Batch: the package google.cloud.batch_v1 is missing; install the extra",
        ),
        ("submit", "grpc", "Cloud Batch: the package grpc is missing; install the extra"),
    ],
)
def test_a_missing_library_is_named_with_the_command_that_installs_it(cloud, command, missing, part):
    """Without the extra `cloud`, `submit` names the missing library, after all other checks."""
    script = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from job.cli.app import main\n"
        f"sys.exit(main([{command!r}, '--model', 'yolo11n.yaml', '--run', 'zebra']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=surroundings({}), capture_output=True, text=True, check=False
    )
    assert done.returncode == 78
    assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_everything_else_works_without_the_extra(settings, tmp_path):
    """Rendering, recipes and runs need neither the libraries of the cloud nor torch."""
    script = (
        "import sys\n"
        "for name in ('grpc', 'google.cloud.batch_v1', 'torch', 'ultralytics'): sys.modules[name] = None\n"
        "from job.cli.app import main\n"
        "sys.exit(main(['render', '--bucket', 'gs://b']) or main(['recipes', 'list']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=surroundings({}), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_submitting_needs_no_torch(cloud):
    """A laptop without torch submits, asks for the status, and looks at the run as the small image does."""
    cloud.script(["hold"])
    script = (
        "import sys\n"
        "for name in ('torch', 'ultralytics', 'wandb'): sys.modules[name] = None\n"
        "from job.cli.app import main\n"
        "sys.exit(main(['submit', '--model', 'yolo11n.yaml', '--run', 'zebra']) or main(['status', 'zebra']) or\n"
        "    main(['supervise', 'zebra', '--once']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=surroundings({}), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(cloud.batch.jobs) == 1


def test_missing_credentials_are_reported(settings, bucket, capsys):
    """Without credentials of Google the command says how to get them."""
    assert main(["submit", "--model", "yolo11n.yaml"]) == 78
    assert "gcloud auth application-default login" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "archive"), [([], "gs://demo-archive"), (["--archive", "gs://other/below"], "gs://other/below")]
)
def test_the_archive_of_the_settings_is_passed_to_the_training(settings, tmp_path, capsys, words, archive):
    """What a job trains is copied to the archive of the settings, or to that of the command line."""
    (tmp_path / "cloud.yaml").write_text(yaml.safe_dump(settings | {"archive": "gs://demo-archive"}))
    assert main(["render", "A", "--dataset", "tiny", "--bucket", "gs://b", *words]) == 0
    rendered = json.loads(capsys.readouterr().out)
    [runnable] = rendered["taskGroups"][0]["taskSpec"]["runnables"]
    given = [word for word in runnable["container"]["commands"] if word.startswith("--archive")]
    assert given == [f"--archive={archive}"]


def test_an_archive_that_the_cloud_cannot_reach_is_refused(settings, capsys):
    """A folder of this machine is no archive of a job, and another address is none at all."""
    assert main(["render", "A", "--bucket", "gs://b", "--archive", "old"]) == 2
    assert "--archive old: is on this machine, where the cloud cannot reach it" in capsys.readouterr().err
    assert main(["render", "A", "--bucket", "gs://b", "--archive", "s3://old"]) == 2
    assert "--archive: must be gs://BUCKET or a folder, got 's3://old'" in capsys.readouterr().err

"""Targets that a person types, `make vm-up`, `make down` and the rest, with a stub of gcloud."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from job.cli.app import main
from job.storage.open_store import open_store
from tests.support.cli_process import ROOT, TIMEOUT_S
from tests.support.fake_google_project import running_project
from tests.support.stub_programs import Programs
from tests.support.terminal import Terminal

DIGEST = f"sha256:{'0' * 64}"
IMAGE = f"trainer@{DIGEST}"
NEEDED = {"vm-up": ("RECIPE=A", f"IMAGE={IMAGE}"), "supervise-up": ("RUN=zebra", f"IMAGE={IMAGE}")}
"""Variables without which a target refuses."""

OUTPUTS = {
    "project": "demo-project",
    "region": "us-central1",
    "group": "yolo-train-vm",
    "vm_machine_type": "g2-standard-8",
    "image_repository": "us-central1-docker.pkg.dev/demo-project/yolo-train",
    "bucket": "gs://demo-project-yolo-train",
    "runtime_service_account": "trainer@demo-project.iam.gserviceaccount.com",
    "network": "projects/demo-project/global/networks/yolo",
    "subnetwork": "projects/demo-project/regions/us-central1/subnetworks/yolo",
    "supervisor": "yolo-train-supervisor",
    "supervisor_service_account": "supervise@demo-project.iam.gserviceaccount.com",
}

GCLOUD = """
from pathlib import Path
answers = json.loads(Path({answers!r}).read_text())
words = " ".join(sys.argv[1:])
for part, answer in answers.items():
    if part in words:
        print(answer, end="") if isinstance(answer, str) else sys.exit(answer)
"""
"""Answers a command that has a part with a text, or ends with a code."""


OTHER_ZONES = "--on-repair-allow-changing-zone"
"""A flag of gcloud 576, of July 2026, and later."""

TOKEN = "ya29.of-the-submitter"  # noqa: S105 -- made up
LOGIN = ["auth", "application-default", "print-access-token"]


class Desk:
    """A person's folder: a copy of what the targets need, with a gcloud that answers as set."""

    def __init__(self, folder):
        self.folder = folder / "project"
        self.folder.mkdir()
        shutil.copy(ROOT / "Makefile", self.folder)
        for name in ("infra/scripts", "infra/vm"):
            shutil.copytree(ROOT / name, self.folder / name)
        shutil.copytree(ROOT / "job/recipes", self.folder / "job/recipes")
        (self.folder / ".venv").mkdir()
        (self.folder / ".venv/bin").symlink_to(Path(sys.executable).parent)
        for name in ("pyproject.toml", "requirements/light.txt", ".venv/.created", ".venv/.installed-light"):
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.touch()
        self.write_outputs(OUTPUTS)
        self.programs = Programs(folder / "programs")
        self._answers = folder / "answers.json"
        self.programs.add("gcloud", GCLOUD.format(answers=str(self._answers)))
        self.answer({})

    def write_outputs(self, outputs):
        """Write what `make infra-apply` writes."""
        text = json.dumps({name: {"value": value} for name, value in outputs.items()})
        (self.folder / "infra/outputs.json").write_text(text)

    def answer(self, answers):
        """Say what gcloud answers from now on, by a part of its command line."""
        self._answers.write_text(json.dumps({"print-access-token": TOKEN, " describe ": "0\n"} | answers))

    @property
    def environment(self):
        """What make inherits, without the words of a make that started these tests."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))}
        return outside | {"PATH": self.programs.path}

    def make(self, *words, path=None):
        """Run a target."""
        return subprocess.run(
            ["make", *words],
            cwd=self.folder,
            env=self.environment | {"PATH": path or self.programs.path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    @property
    def commands(self):
        """Each command line that gcloud was given, but for its login."""
        return [words for words in self.programs.words("gcloud") if words != LOGIN]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A person's folder after `make infra-apply`, whose `make vm-up` asks no cloud first."""
    monkeypatch.setenv("NO_PREFLIGHT", "1")
    return Desk(tmp_path)


@pytest.fixture
def project(desk, emulator, monkeypatch):
    """A project and a bucket with a dataset, which `make vm-up` asks first."""
    location = emulator.make_bucket()
    desk.write_outputs(OUTPUTS | {"bucket": location})
    monkeypatch.delenv("NO_PREFLIGHT")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    open_store(location).put("datasets/tiny/data.yaml", b"names: [animal]\n")
    open_store(location).put("datasets/more/data.yaml", b"names: [animal]\n")
    with running_project() as project:
        monkeypatch.setenv("GOOGLE_API_EMULATOR_HOST", project.host)
        yield project


@pytest.fixture
def cloud_bucket(emulator, monkeypatch):
    """An empty bucket, and no cloud behind the clients of Batch."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    monkeypatch.setenv("BATCH_EMULATOR_HOST", "127.0.0.1:1")
    return emulator.make_bucket()


def bare_path(folder, *names):
    """Return a PATH on which there are only the shell's own programs and those named."""
    folder.mkdir()
    for name in ("bash", "sh", "cat", "dirname", "env", "make", "mktemp", "rm", "python3", "wc", "awk", *names):
        (folder / name).symlink_to(shutil.which(name))
    return str(folder)


@pytest.mark.parametrize(
    ("target", "tool"),
    [
        ("infra-plan", "terraform"), ("infra-apply", "terraform"), ("infra-destroy", "terraform"),
        ("infra-test", "terraform"), ("down", "gcloud"), ("vm-up", "gcloud"), ("vm-status", "gcloud"),
        ("vm-down", "gcloud"), ("supervise-up", "gcloud"), ("supervise-down", "gcloud"), ("boot-image", "gcloud"),
    ],
)  # fmt: skip
def test_a_missing_program_is_named(desk, tmp_path, target, tool):
    """A target whose program is not installed names it and where to get it, with exit code 78 and nothing else."""
    done = desk.make(target, *NEEDED.get(target, ()), path=bare_path(tmp_path / "bare"))
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(said) == 1
    assert said[0].startswith(f"{tool}: is not installed; get ")
    assert "Error 78" in done.stderr


@pytest.mark.parametrize(
    "target", ["down", "vm-up", "vm-status", "vm-down", "supervise-up", "supervise-down", "boot-image"]
)
def test_a_target_before_the_first_apply_names_that_command(desk, target):
    """Before `make infra-apply` a target says what to do, and asks gcloud nothing."""
    (desk.folder / "infra/outputs.json").unlink()
    done = desk.make(target, *NEEDED.get(target, ()))
    assert "infra/outputs.json: is not there; make infra-apply writes it" in done.stderr
    assert "Error 78" in done.stderr
    assert desk.commands == []


@pytest.mark.parametrize("target", ["infra-plan", "infra-apply", "infra-destroy"])
def test_missing_variables_of_terraform_are_reported(desk, target):
    """Without terraform.tfvars a target names the file to copy, and asks Terraform nothing."""
    desk.programs.add("terraform")
    done = desk.make(target)
    assert "copy infra/terraform.tfvars.example" in done.stderr
    assert "Error 78" in done.stderr
    assert desk.programs.words("terraform") == []


def test_vm_up_says_what_to_train_before_it_asks_for_the_machine(desk):
    """The group is given image and command first, then a machine."""
    done = desk.make("vm-up", "RECIPE=A", "RUN=zebra", f"IMAGE={IMAGE}", "ARGS=--epochs 3 --fliplr 0.5")
    assert done.returncode == 0, done.stderr
    update, resize = desk.commands[-2:]
    image = f"{OUTPUTS['image_repository']}/{IMAGE}"
    command = "train --recipe A --run zebra --epochs 3 --fliplr 0.5"
    assert update[:6] == ["compute", "instance-groups", "managed", "all-instances-config", "update", "yolo-train-vm"]
    assert update[-2] == "--metadata"
    metadata = dict(part.split("=", 1) for part in update[-1].removeprefix("^|^").split("|"))
    assert (metadata["trainer-image"], metadata["trainer-command"]) == (image, command)
    assert resize[:5] == ["compute", "instance-groups", "managed", "resize", "yolo-train-vm"]
    assert resize[-2:] == ["--size", "1"]
    assert f"job {command}" in done.stdout


def test_vm_up_lets_the_group_change_zones(desk):
    """A preempted machine may come back in another zone; an older gcloud, which cannot say so, still starts it."""
    words = ["vm-up", "RECIPE=A", f"IMAGE={IMAGE}"]
    assert desk.make(*words).returncode == 0
    allow = desk.commands[1]
    assert allow[:5] == ["compute", "instance-groups", "managed", "update", "yolo-train-vm"]
    assert allow[-2:] == [OTHER_ZONES, "YES"]
    desk.answer({OTHER_ZONES: 2})
    done = desk.make(*words)
    assert (done.returncode, desk.commands[-1][3]) == (0, "resize")
    assert "comes back in its own zone alone" in done.stderr


@pytest.mark.parametrize(
    ("words", "hours"),
    [([], 50 / 0.35), (["MAX_USD=7"], 20), (["NO_LIMIT=1"], None)],
)
def test_vm_up_has_a_limit_and_says_it(desk, words, hours):
    """The machine has a deadline: 50 USD at the high end of its price, or what MAX_USD pays for."""
    before = int(time.time())
    done = desk.make("vm-up", "RECIPE=A", f"IMAGE={IMAGE}", *words)
    assert done.returncode == 0, done.stderr
    update = desk.commands[-2][-1]
    metadata = dict(part.split("=", 1) for part in update.removeprefix("^|^").split("|"))
    assert before <= int(metadata["trainer-order"]) <= time.time()
    if hours is None:
        assert metadata["trainer-until"] == "never"
        assert "limit: none; g2-standard-8 on Spot, 0.35 USD an hour" in done.stderr
    else:
        assert int(metadata["trainer-until"]) - int(metadata["trainer-order"]) == pytest.approx(hours * 3600, abs=5)
        assert "of g2-standard-8 on Spot, 0.35 USD an hour" in done.stderr


def test_vm_up_has_a_limit_of_hours_where_the_price_is_not_known(desk):
    """A machine without a price may run for 48 hours; dollars cannot be limited there."""
    desk.write_outputs(OUTPUTS | {"vm_machine_type": "a2-highgpu-1g"})
    assert desk.make("vm-up", "RECIPE=A", f"IMAGE={IMAGE}").returncode == 0
    metadata = dict(part.split("=", 1) for part in desk.commands[-2][-1].removeprefix("^|^").split("|"))
    assert int(metadata["trainer-until"]) - int(metadata["trainer-order"]) == 48 * 3600
    done = desk.make("vm-up", "RECIPE=A", f"IMAGE={IMAGE}", "MAX_USD=9")
    assert "the price of a2-highgpu-1g is not on record" in done.stderr
    assert "Error 2" in done.stderr


def test_vm_up_needs_what_knows_the_price(desk):
    """Without the environment no machine is asked for, since its limit would be unknown."""
    (desk.folder / ".venv/bin").unlink()
    done = desk.make("vm-up", "RECIPE=A", f"IMAGE={IMAGE}")
    assert "make light makes it" in done.stderr
    assert "Error 78" in done.stderr
    assert desk.commands == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([f"IMAGE={IMAGE}"], "RECIPE must be one of A B C T base"),
        (["RECIPE=mine.yaml", f"IMAGE={IMAGE}"], "a file of your own is not in the image"),
        (["RECIPE=A"], "make push prints it"),
        (["RECIPE=A", "IMAGE=trainer:latest"], "IMAGE must name an image by its digest"),
        (["RECIPE=A", f"IMAGE={IMAGE}", "ARGS=--name a|trainer-image=other"], "must be words on one line without |"),
    ],
)
def test_vm_up_asks_for_what_is_missing(desk, words, complaint):
    """A recipe, an image or words that cannot be are refused with exit code 2 before anything is changed."""
    done = desk.make("vm-up", *words)
    assert complaint in done.stderr
    assert "Error 2" in done.stderr
    assert desk.commands == []


def test_vm_up_leaves_a_machine_alone_that_trains(desk):
    """A group that has a machine keeps it and what it trains."""
    desk.answer({" describe ": "1\n"})
    done = desk.make("vm-up", "RECIPE=A", f"IMAGE={IMAGE}")
    assert "has a machine already" in done.stderr
    assert "Error 65" in done.stderr
    assert [words for words in desk.commands if "describe" not in words] == []


def test_vm_up_asks_for_no_machine_if_the_project_is_not_ready(desk, project):
    """A fault of the project stops `make vm-up` before the group is asked; a sound project gets its machine."""
    words = ["vm-up", "RECIPE=base", f"IMAGE={IMAGE}", "ARGS=--dataset tiny"]
    project.quotas = {"GPUS_ALL_REGIONS": [0.0, 0.0]}
    done = desk.make(*words)
    assert "GPUS_ALL_REGIONS is 0, 0 in use, 1 needed" in done.stderr
    assert "Error 78" in done.stderr
    assert desk.commands == []
    project.quotas = {"GPUS_ALL_REGIONS": [1.0, 0.0]}
    project.lacking = {"batch.jobs.create"}
    done = desk.make(*words)
    assert done.returncode == 0, done.stderr
    assert desk.commands[-1][3] == "resize"


def test_vm_down_asks_for_no_machine(desk):
    """The group is resized to zero."""
    assert desk.make("vm-down").returncode == 0
    (resize,) = desk.commands
    assert resize[3:5] == ["resize", "yolo-train-vm"]
    assert resize[-2:] == ["--size", "0"]


def test_vm_status_shows_size_training_and_errors(desk):
    """The target size of the group, its machines and its last errors are all shown."""
    desk.answer(
        {" describe ": "targetSize: 1\n", "list-instances": "yolo-train-vm-x1\n", "list-errors": "NO_CAPACITY\n"}
    )
    done = desk.make("vm-status")
    assert done.returncode == 0, done.stderr
    assert all(part in done.stdout for part in ("targetSize: 1", "yolo-train-vm-x1", "NO_CAPACITY"))


SUPERVISOR = f"supervisor@{DIGEST}"
BOOT_IMAGE = "projects/demo-project/global/images/yolo-train-boot-20261126-120000"
STATE, MADE = "scheduler jobs list", "run jobs list"


def test_supervise_up_makes_job_and_schedule_and_looks_once(desk):
    """The job gets one look at the run as its command, with the settings that a submission here has; a schedule starts
    it, and so does the target, once.
    """
    own = {"prices": {"a2-highgpu-1g": {"spot": 1.5}}, "max_usd": 200, "notify": "https://example.org/secret"}
    (desk.folder / "cloud.yaml").write_text(yaml.safe_dump(own))
    done = desk.make("supervise-up", "RUN=zebra", f"IMAGE={SUPERVISOR}", "MAX_USD=7")
    assert done.returncode == 0, done.stderr
    asked, deploy, create, execute, _ = desk.commands
    assert asked[:3] == ["scheduler", "jobs", "list"]
    assert deploy[:4] == ["run", "jobs", "deploy", "yolo-train-supervisor"]
    image, account = f"{OUTPUTS['image_repository']}/{SUPERVISOR}", OUTPUTS["supervisor_service_account"]
    assert deploy[deploy.index("--image") + 1] == image
    assert deploy[deploy.index("--service-account") + 1] == account
    assert "--clear-secrets" in deploy
    schedule = "projects/demo-project/locations/us-central1/jobs/yolo-train-supervisor"
    *words, settings = deploy[deploy.index("--args") + 1].removeprefix("^|^").split("|")
    assert words == ["supervise", "zebra", "--once", f"--schedule={schedule}", "--max-usd=7"]
    assert json.loads(settings.removeprefix("--settings=")) == {
        **{
            name: OUTPUTS[name] for name in ("bucket", "project", "region", "network", "subnetwork", "image_repository")
        },
        "service_account": OUTPUTS["runtime_service_account"],
        **{name: own[name] for name in ("prices", "max_usd")},
    }
    assert create[:5] == ["scheduler", "jobs", "create", "http", "yolo-train-supervisor"]
    assert create[create.index("--uri") + 1] == f"https://run.googleapis.com/v2/{schedule}:run"
    assert create[create.index("--oauth-service-account-email") + 1] == account
    assert execute[:5] == ["run", "jobs", "execute", "yolo-train-supervisor", "--wait"]


def test_the_arguments_of_the_supervisor_are_understood(desk, cloud_bucket, capsys):
    """The command of the job is one of this program: it gets as far as the bucket, which has no such run."""
    secret = "projects/1/secrets/key/versions/7"  # noqa: S105 -- where one would be
    desk.write_outputs(OUTPUTS | {"bucket": cloud_bucket, "wandb_secret": secret, "boot_image": BOOT_IMAGE})
    assert desk.make("supervise-up", "RUN=zebra", f"IMAGE={SUPERVISOR}", "NO_LIMIT=1").returncode == 0
    deploy = desk.commands[1]
    words = deploy[deploy.index("--args") + 1].removeprefix("^|^").split("|")
    assert "--no-limit" in words
    assert BOOT_IMAGE in words[-1]
    assert main(words) == 65
    assert "zebra" in capsys.readouterr().err


def test_supervise_up_refuses_settings_that_are_wrong(desk):
    """A cloud.yaml that no submission could be made with makes no supervisor."""
    (desk.folder / "cloud.yaml").write_text("prices: {g2-standard-8: {sopt: 0.3}}\n")
    done = desk.make("supervise-up", "RUN=zebra", f"IMAGE={SUPERVISOR}")
    assert "prices.g2-standard-8.sopt: must be one of spot, flex_start, on_demand" in done.stderr
    assert "Error 78" in done.stderr
    assert desk.commands == []


def test_the_webhook_of_the_supervisor_is_a_secret(desk):
    """The job is given the address of the webhook by Secret Manager, in a certain version."""
    desk.write_outputs(OUTPUTS | {"notify_secret": "yolo-train-notify-url:3"})
    assert desk.make("supervise-up", "RUN=zebra", f"IMAGE={SUPERVISOR}").returncode == 0
    deploy = desk.commands[1]
    assert deploy[deploy.index("--set-secrets") + 1] == "JOB_NOTIFY=yolo-train-notify-url:3"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["RUN=a|b", f"IMAGE={SUPERVISOR}"], "RUN must be a name of letters, digits, - and _"),
        (["RUN=zebra"], "make supervisor-image prints it"),
        (["RUN=zebra", f"IMAGE={SUPERVISOR}", "MAX_USD=1|--no-limit"], "MAX_USD must be a number of dollars"),
        ([], "RUN is missing"),
    ],
)
def test_supervise_up_asks_for_what_is_missing(desk, words, complaint):
    """A run, an image or a limit that cannot be is refused before gcloud is asked for anything."""
    done = desk.make("supervise-up", *words)
    assert complaint in done.stderr
    assert "Error 2" in done.stderr
    assert desk.commands == []


def test_one_run_is_supervised_at_a_time(desk):
    """A schedule that is at work is left alone; one that its run's end has paused makes room."""
    desk.answer({STATE: "other\tENABLED\nyolo-train-supervisor\tENABLED\n"})
    done = desk.make("supervise-up", "RUN=zebra", f"IMAGE={SUPERVISOR}")
    assert ("make supervise-down ends that" in done.stderr, "Error 65" in done.stderr) == (True, True)
    assert len(desk.commands) == 1
    desk.answer({STATE: "yolo-train-supervisor\tPAUSED\n"})
    done = desk.make("supervise-up", "RUN=zebra", f"IMAGE={SUPERVISOR}")
    assert (done.returncode, "run zebra has ended" in done.stdout) == (0, True)  # as the schedule is paused again
    assert desk.commands[2][:4] == ["scheduler", "jobs", "delete", "yolo-train-supervisor"]


def test_a_first_look_that_fails_is_the_last(desk):
    """A supervisor that its settings or the run stop at once is not started again."""
    desk.answer({"run jobs execute": 1})
    done = desk.make("supervise-up", "RUN=zebra", f"IMAGE={SUPERVISOR}")
    assert ("there will be no other" in done.stderr, "Error 70" in done.stderr) == (True, True)
    assert desk.commands[-1][:4] == ["scheduler", "jobs", "delete", "yolo-train-supervisor"]


def test_supervise_down_deletes_what_supervise_up_made(desk):
    """Schedule and job are deleted if they are there, and those of others stay."""
    desk.answer({STATE: "other\tENABLED\nyolo-train-supervisor\tPAUSED\n", MADE: "other\nyolo-train-supervisor\n"})
    assert desk.make("supervise-down").returncode == 0
    assert [words[:4] for words in desk.commands if "delete" in words] == [
        ["scheduler", "jobs", "delete", "yolo-train-supervisor"],
        ["run", "jobs", "delete", "yolo-train-supervisor"],
    ]
    desk.answer({STATE: "other\tENABLED\n"})
    num_calls = len(desk.commands)
    assert desk.make("supervise-down").returncode == 0
    assert [words[2] for words in desk.commands[num_calls:]] == ["list", "list"]


ZONES, STATE_OF_MACHINE, SERIAL = "machine-types list", " describe ", "get-serial-port-output"
SETTINGS = 'project = "demo-project"\nboot_image = "projects/demo-project/global/images/old"\nregion = "us-central1"\n'


@pytest.fixture
def builder(desk, monkeypatch):
    """A person's folder after `make infra-apply`, whose machine for a boot image has filled its disk."""
    monkeypatch.setenv("BOOT_IMAGE_PAUSE_S", "1200")
    desk.programs.add("sleep")
    (desk.folder / "infra/terraform.tfvars").write_text(SETTINGS)
    desk.answer({ZONES: "us-central1-a\nus-central1-b\n", STATE_OF_MACHINE: "TERMINATED\n"})
    return desk


def test_a_boot_image_is_made_of_a_disk_that_a_machine_filled(builder):
    """A Spot machine of the VM's type has the container image's name in its metadata; once it is off, its disk becomes
    the boot image of the settings, and the machine is deleted.
    """
    done = builder.make("boot-image", f"IMAGE={IMAGE}")
    assert done.returncode == 0, done.stderr
    _, create, state, image, delete = builder.commands
    name = create[3]
    flags = dict(itertools.pairwise(create))
    assert create[:3] == ["compute", "instances", "create"]
    assert (flags["--zone"], flags["--machine-type"], flags["--provisioning-model"]) == (
        "us-central1-a", "g2-standard-8", "SPOT"
    )  # fmt: skip
    assert flags["--metadata"] == f"boot-image-container={OUTPUTS['image_repository']}/{IMAGE}"
    assert (flags["--image-project"], flags["--max-run-duration"]) == ("batch-custom-image", "40m")
    assert state[:4] == ["compute", "instances", "describe", name]
    assert image[:4] == ["compute", "images", "create", name]
    assert dict(itertools.pairwise(image))["--source-disk"] == name
    assert delete[:4] == ["compute", "instances", "delete", name]
    settings = (builder.folder / "infra/terraform.tfvars").read_text()
    assert settings == (
        f'project = "demo-project"\nregion = "us-central1"\nboot_image = "projects/demo-project/global/images/{name}"\n'
    )


def test_a_boot_image_is_made_where_a_machine_is_free(builder):
    """A zone without a Spot machine is followed by the next one of the region."""
    builder.answer({ZONES: "us-central1-a\nus-central1-b\n", STATE_OF_MACHINE: "TERMINATED\n", "us-central1-a ": 1})
    assert builder.make("boot-image", f"IMAGE={IMAGE}").returncode == 0
    zones = [words[words.index("--zone") + 1] for words in builder.commands if "--zone" in words]
    assert zones == ["us-central1-a", *["us-central1-b"] * 3]


@pytest.mark.parametrize(
    ("answers", "said", "code"),
    [
        ({"instances create": 1}, "no zone of us-central1 gave a Spot machine of type g2-standard-8", 75),
        ({STATE_OF_MACHINE: 1}, "the machine that fills the image was taken", 75),
        (
            {STATE_OF_MACHINE: "RUNNING\n", SERIAL: "x\nboot image: cannot be filled; line 25\n"},
            "boot image: cannot be filled; line 25\nmake boot-image: container or driver could not be put",
            70,
        ),
        ({STATE_OF_MACHINE: "RUNNING\n"}, "did not end within 40 minutes", 70),
        ({"images create": 1}, "", 1),
    ],
)
def test_a_boot_image_that_cannot_be_made_changes_no_settings(builder, answers, said, code):
    """Each failure is named; the settings stay as they are, and a machine that was made is deleted."""
    builder.answer({ZONES: "us-central1-a\n", STATE_OF_MACHINE: "TERMINATED\n"} | answers)
    done = builder.make("boot-image", f"IMAGE={IMAGE}")
    assert said in done.stderr
    assert f"Error {code}" in done.stderr
    assert (builder.folder / "infra/terraform.tfvars").read_text() == SETTINGS
    deleted = [words for words in builder.commands if "delete" in words]
    assert len(deleted) == ("instances create" not in answers)


def test_a_boot_image_needs_an_image_and_settings(builder):
    """Without a digest, or without the file that is to name the image, nothing is asked of gcloud."""
    done = builder.make("boot-image", "IMAGE=trainer:latest")
    assert ("IMAGE must name an image by its digest" in done.stderr, "Error 2" in done.stderr) == (True, True)
    (builder.folder / "infra/terraform.tfvars").unlink()
    done = builder.make("boot-image", f"IMAGE={IMAGE}")
    assert ("run this where make infra-apply runs" in done.stderr, "Error 78" in done.stderr) == (True, True)
    assert builder.commands == []


BILLED = (
    *("instance-groups managed list", "batch jobs list", "scheduler jobs list", "instances list", "disks list"),
    "addresses list",
)
"""Resources that `make down` lists."""


def test_down_proves_that_nothing_is_left(desk):
    """Where there is nothing of each kind, it says so of each, for the project that was applied."""
    done = desk.make("down")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(BILLED) + 1
    assert [any(part in " ".join(words) for words in desk.commands) for part in BILLED] == [True] * len(BILLED)
    assert all(words[words.index("--project") + 1] == "demo-project" for words in desk.commands)


@pytest.mark.parametrize("kind", BILLED)
def test_down_names_what_is_left(desk, kind):
    """One resource of any kind that is left is named, with the command that deletes it, and is a failure."""
    desk.answer({kind: "thing-1\tus-central1-a\n"})
    done = desk.make("down")
    assert "thing-1  us-central1-a" in done.stdout
    assert "1 left that cost money" in done.stderr
    assert "Error 1" in done.stderr


@pytest.mark.parametrize("target", ["down", "vm-up", "vm-status", "vm-down", "supervise-up", "supervise-down"])
def test_gcloud_acts_with_the_login_of_everything_else(desk, target):
    """Each call has the token of the application default credentials, which may impersonate the submitter; its file is
    gone afterwards, and without such a login the target says how to get one.
    """
    assert desk.make(target, *NEEDED.get(target, ())).returncode == 0
    login, *calls = desk.programs.calls("gcloud")
    files = {call["environment"].get("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE") for call in calls}
    assert (login["words"], len(files), len(calls) > 0) == (LOGIN, 1, True)
    assert not Path(files.pop()).exists()
    desk.answer({"print-access-token": 1})
    num_calls = len(desk.commands)
    done = desk.make(target, *NEEDED.get(target, ()))
    assert "run gcloud auth application-default login" in done.stderr
    assert "Error 78" in done.stderr
    assert len(desk.commands) == num_calls


TERRAFORM = """
from pathlib import Path
state = Path({folder!r})
words = sys.argv[1:]
if "apply" in words:
    tries = state / "tries"
    tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
    errors = json.loads((state / "errors").read_text())
    number = len(tries.read_text())
    if number <= len(errors):
        print("Error: " + errors[number - 1], file=sys.stderr)
        sys.exit(1)
elif "output" in words:
    print((state / "outputs").read_text())
"""


@pytest.fixture
def account(desk, tmp_path, monkeypatch):
    """A function that makes Terraform answer as a fresh account does, error after error, and applies."""
    monkeypatch.setenv("APPLY_PAUSE_S", "0")
    (desk.folder / "infra/terraform.tfvars").write_text('project = "demo-project"\n')
    (desk.folder / "infra/outputs.json").unlink()
    desk.programs.add("terraform", TERRAFORM.format(folder=str(tmp_path)))

    def apply(*errors, outputs='{"project": {"value": "demo-project"}}'):
        (tmp_path / "errors").write_text(json.dumps(errors))
        (tmp_path / "outputs").write_text(outputs)
        return desk.make("infra-apply")

    return apply


NO_METRIC = 'Cannot find metric(s) that match type = "logging.googleapis.com/user/x". ... up to 10 minutes'
NO_API = "Cloud Batch API has not been used in project demo-project before or it is disabled"


def applies(desk):
    """Return the words of each apply."""
    return [words for words in desk.programs.words("terraform") if "apply" in words]


def test_an_apply_waits_for_what_google_does_not_know_yet(desk, account):
    """New services and metrics are waited for, and what was approved once is applied again."""
    done = account(NO_API, NO_METRIC, NO_METRIC)
    assert done.returncode == 0, done.stderr
    assert [words[-1] for words in applies(desk)] == ["apply", *["-auto-approve"] * 3]
    assert done.stderr.count("Google does not know yet what was just made") == 3
    assert json.loads((desk.folder / "infra/outputs.json").read_text()) == {"project": {"value": "demo-project"}}


def test_an_apply_that_fails_leaves_the_outputs_of_what_was_made(desk, account):
    """Another error is not tried again, and endless waiting ends; outputs.json has what there is."""
    done = account("Error 403: Permission denied")
    assert ("Permission denied" in done.stderr, "Error 1" in done.stderr, len(applies(desk))) == (True, True, 1)
    assert (desk.folder / "infra/outputs.json").exists()
    done = account(*[NO_METRIC] * 99)
    assert ("Error 1" in done.stderr, len(applies(desk))) == (True, 12)


def test_an_apply_that_makes_nothing_writes_no_outputs(desk, account):
    """After a refused approval there is no file that later commands would read."""
    assert "Error 1" in account("Apply cancelled.", outputs="{}").stderr
    assert not (desk.folder / "infra/outputs.json").exists()


def test_an_apply_says_that_alerts_have_no_address(desk, account, monkeypatch):
    """Without a terminal nothing is asked, and the missing address is named, unless the environment has it."""
    assert "alert_email: is not set, so alerts show in the console only" in account().stderr
    monkeypatch.setenv("TF_VAR_alert_email", "ann@example.com")
    assert "alert_email" not in account().stderr


@pytest.mark.parametrize(("typed", "kept"), [("ann@example.com", '"ann@example.com"'), ("", "null")])
def test_an_apply_asks_once_for_the_address_of_alerts(desk, account, typed, kept):
    """On a terminal the address is asked for before anything is made, and kept, as is that there is to be none."""
    account()
    desk.programs.add("terraform", "pass", reads=False)
    for _ in range(2):
        terminal = Terminal(["make", "-C", desk.folder, "infra-apply"], desk.environment)
        terminal.press(f"{typed}\n".encode())
        terminal.process.wait(TIMEOUT_S)
        terminal.close()
    settings = (desk.folder / "infra/terraform.tfvars").read_text()
    assert settings == f'project = "demo-project"\n\nalert_email = {kept}\n'


@pytest.mark.parametrize("kind", BILLED)
def test_down_claims_nothing_that_it_could_not_ask(desk, kind):
    """A question that fails is no proof that nothing is there."""
    desk.answer({kind: 1})
    done = desk.make("down")
    assert "so nothing is proven" in done.stderr
    assert "nothing is left" not in done.stdout
    assert "Error 78" in done.stderr


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="needs gcloud")
def test_gcloud_knows_every_command(desk, tmp_path):
    """The real gcloud takes each command line for one of its own: it asks for an account, and would not for a
    command or flag that it does not know.
    """
    desk.make("vm-up", "RECIPE=A", f"IMAGE={IMAGE}")
    desk.make("supervise-up", "RUN=zebra", f"IMAGE={SUPERVISOR}")
    desk.answer({STATE: "yolo-train-supervisor\tPAUSED\n", MADE: "yolo-train-supervisor\n", "run jobs execute": 1})
    desk.make("supervise-up", "RUN=zebra", f"IMAGE={SUPERVISOR}")
    for target in ("supervise-down", "vm-status", "vm-down", "down"):
        desk.make(target)
    environment = os.environ | {"CLOUDSDK_CONFIG": str(tmp_path / "gcloud")}
    (desk.folder / "infra/terraform.tfvars").write_text(SETTINGS)
    zones = {ZONES: "us-central1-a\n"}
    desk.answer(zones | {STATE_OF_MACHINE: "RUNNING\n", SERIAL: "boot image: cannot be filled\n"})
    desk.make("boot-image", f"IMAGE={IMAGE}")
    desk.answer(zones | {STATE_OF_MACHINE: "TERMINATED\n"})
    desk.make("boot-image", f"IMAGE={IMAGE}")
    assert len(desk.commands) == 14 + 4 + 6 + 5 + 5 + 5
    commands = [words for words in desk.commands if OTHER_ZONES not in words]
    for words in [*commands, ["compute", "instances", "list", "--no-such-flag"]]:
        done = subprocess.run(
            ["gcloud", *words], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        known = "You do not currently have an active account selected" in done.stderr
        assert known is ("--no-such-flag" not in words), done.stderr

"""The boot script of the VM, run for real: a real HTTP server as Google, a stub of the engine."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field

import pytest

from job.errors import FATAL, ExitCode
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.bucket import make_bucket
from tests.support.cli_process import ROOT, TIMEOUT_S, kill, surroundings, wait_until
from tests.support.fake_google_apis import TOKEN, FakeGoogle, running_google_apis
from tests.support.fake_metadata_server import FakeMetadata, running_metadata_server
from tests.support.stub_programs import Programs
from tests.support.tiny_dataset import make_tiny_dataset

GROUP = "projects/123/regions/us-central1/instanceGroupManagers/yolo-train-vm"
IMAGE = f"us-central1-docker.pkg.dev/demo-project/yolo-train/trainer@sha256:{'0' * 64}"
COMMAND = "train --recipe A --run zebra"
SECRET = "projects/123/secrets/wandb/versions/7"  # noqa: S105 -- where one would be
KEY = "k" * 40

ENGINE = """
import time
from pathlib import Path
ends = Path(os.environ["ENGINE_ENDS"])
said, stopped = ends.with_name("said"), ends.with_name("stopped")
if sys.argv[1] == "logs":
    print(said.read_text())
elif sys.argv[1] == "stop":
    stopped.touch()
elif sys.argv[1] == "run":
    code, *rest = ends.read_text().split()
    ends.write_text(" ".join(rest))
    said.write_text("committed epoch 1: 2.1 MB in 0.1 s" if code.endswith("+") else "epoch 1/9")
    if code == "hold":
        while not stopped.exists():
            time.sleep(0.01)
        code = "75"
    if code == "job":
        image = next(number for number, word in enumerate(sys.argv) if "@sha256:" in word)
        os.execv(sys.executable, [sys.executable, "-m", "job", *sys.argv[image + 1:]])
    sys.exit(int(code.rstrip("+")))
"""
"""The engine: a container ends as the test says, with + after a commit, stays until it is stopped, or is the job
itself, as a process."""

METADATA = {
    "instance/attributes/created-by": GROUP,
    "instance/attributes/trainer-image": IMAGE,
    "instance/attributes/trainer-command": COMMAND,
    "instance/attributes/trainer-until": "never",
    "instance/attributes/trainer-order": "1790000000",
    "instance/zone": "projects/123/zones/us-central1-b",
    "instance/name": "yolo-train-vm-x1",
    "instance/service-accounts/default/token": f'{{"access_token":"{TOKEN}","expires_in":3599,"token_type":"Bearer"}}',
}


@dataclass
class Machine:
    """A machine of the group; what is set here holds from its next boot on."""

    programs: Programs
    google: FakeGoogle
    metadata: FakeMetadata
    bucket: str = "gs://weights"
    secret: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen | None = None

    def boot(self, *ends):
        """Start the script, in a process group of its own, as systemd does in a control group."""
        ends_file = self.programs.folder / "ends"
        ends_file.write_text(" ".join(map(str, ends)))
        environment = {
            "PATH": self.programs.path,
            "BUCKET": self.bucket,
            "WANDB_SECRET": self.secret,
            "ENGINE_ENDS": ends_file,
            **self.google.env,
            **self.metadata.env,
            **self.environment,
        }
        self.process = subprocess.Popen(
            ["bash", ROOT / "infra/vm/trainer.sh"],
            env=surroundings(environment),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def stop(self):
        """Send SIGTERM to all of the machine's processes, as systemd does, and return their output."""
        os.killpg(self.process.pid, signal.SIGTERM)
        return self.process.communicate(timeout=TIMEOUT_S)[1]

    def run_until_resized(self, *ends, times=1):
        """Boot, and take the machine away once its group was resized."""
        self.boot(*ends)
        granted = self.google.wait_for_resizes(len(self.google.resized) + times, TIMEOUT_S)
        os.killpg(self.process.pid, signal.SIGKILL)
        said = self.process.communicate()[1]
        assert granted, said
        return said

    @property
    def containers(self):
        """The words of each `docker run`."""
        return [words for words in self.programs.words("docker") if words[0] == "run"]

    @property
    def pauses(self):
        """Seconds of each pause of the script."""
        return [int(words[0]) for words in self.programs.words("sleep")]


@pytest.fixture
def machine(tmp_path):
    """A machine of the group, with a driver that installs and a clock that does not wait."""
    programs = Programs(tmp_path / "programs")
    programs.add("docker", ENGINE, reads=False)
    for name in ("cos-extensions", "mount", "sleep"):
        programs.add(name)
    with running_google_apis() as google, running_metadata_server(**METADATA) as metadata:
        machine = Machine(programs, google, metadata)
        yield machine
        if machine.process is not None and machine.process.poll() is None:
            kill(machine.process)


def test_a_run_is_started_again_until_it_is_finished(machine):
    """After a preemption (75), a kill (137) and an engine that failed (125) the same training is started again, and
    the group is resized to zero when it is finished.
    """
    machine.run_until_resized(75, 137, 125, 0)
    assert len(machine.containers) == 4
    assert len({tuple(words) for words in machine.containers}) == 1
    assert machine.containers[0][-8:] == [IMAGE, *COMMAND.split(), "--bucket", "gs://weights"]
    assert machine.google.resized == [f"{GROUP} 0"]


@pytest.mark.parametrize("code", sorted(FATAL))
def test_a_run_that_failed_for_good_is_not_started_again(machine, code):
    """After an exit code that trying again does not change, the group is resized to zero at once."""
    said = machine.run_until_resized(code, 0)
    assert len(machine.containers) == 1
    assert f"exit code {code}" in said


@pytest.mark.parametrize("code", [ExitCode.DEFECT, 137])
def test_a_machine_that_crashes_over_and_over_is_not_paid_for_any_longer(machine, code):
    """Eight crashes, or defects of the program, without a checkpoint end with the group resized to zero."""
    said = machine.run_until_resized(*[int(code)] * 50)
    assert len(machine.containers) == 8
    assert "giving up" in said


def test_a_run_that_gets_nowhere_is_not_tried_again_for_ever(machine):
    """Twenty ends that ask for another try (75), without a checkpoint in between, end with the group resized to zero,
    however many crashes lie between them.
    """
    said = machine.run_until_resized(*[75] * 19, 137, *[75] * 50)
    assert len(machine.containers) == 21
    assert "giving up" in said


def test_preemptions_are_no_crashes(machine):
    """An interrupted run is resumed as long as it commits: each checkpoint begins every count anew,
    and the pause.
    """
    machine.run_until_resized(*[137] * 7, "75+", *[75] * 18, "137+", *[137] * 6, "75+", *[75] * 3, 0)
    assert len(machine.containers) == 38
    assert machine.pauses[6:9] == [300, 10, 20]


def test_pauses_grow_up_to_five_minutes(machine):
    """The pause before each new try doubles, up to a bound."""
    machine.run_until_resized(*[75] * 7, 0)
    assert machine.pauses[:7] == [10, 20, 40, 80, 160, 300, 300]


def test_an_unfit_machine_is_given_back_for_another_one_once(machine):
    """After exit 78 the group is asked to make the machine anew; the next machine that is unfit as well resizes the
    group to zero, and another `make vm-up` may ask again.
    """
    assert "this machine is unfit" in machine.run_until_resized(78, 0)
    assert machine.google.recreated == [(GROUP, ["projects/123/zones/us-central1-b/instances/yolo-train-vm-x1"])]
    assert 120 in machine.pauses  # for the machine to go; it is resized only because this one stays
    assert "giving up" in machine.run_until_resized(78, 0)
    assert len(machine.google.recreated) == 1
    machine.metadata.set("instance/attributes/trainer-order", "1790000001")
    machine.run_until_resized(78, 0)
    assert len(machine.google.recreated) == 2
    assert len(machine.containers) == 3
    assert machine.google.objects == {"weights/machines/1790000000.unfit", "weights/machines/1790000001.unfit"}


def test_a_run_ends_at_its_limit(machine):
    """When the time is over that the group names, the container is asked to commit and end as by a preemption, and the
    group is resized to zero.
    """
    machine.metadata.set("instance/attributes/trainer-until", str(int(time.time()) + 2))
    said = machine.run_until_resized("hold", 0)
    assert len(machine.containers) == 1
    assert ["stop", "--time", "120", "trainer"] in machine.programs.words("docker")
    assert "the limit is reached; make vm-up resumes the run" in said


def test_a_machine_that_comes_after_the_limit_trains_nothing(machine):
    """A machine that the group got when the time was over resizes the group to zero at once."""
    machine.metadata.set("instance/attributes/trainer-until", str(int(time.time()) - 1))
    machine.run_until_resized(0)
    assert machine.containers == []


def test_a_group_of_before_there_was_a_limit_has_one(machine):
    """Where the group does not say until when it is the usual limit, and the training is started again."""
    del machine.metadata._values["instance/attributes/trainer-until"]
    machine.run_until_resized(0)
    assert len(machine.containers) == 1
    assert "USUAL_HOURS=48" in (ROOT / "infra/vm/trainer.sh").read_text()


def test_a_refused_resize_is_asked_for_again(machine):
    """A Compute API that fails for a moment (503) or refuses (403) is asked until it grants, and nothing is trained
    meanwhile.
    """
    machine.google.refusals = [503, 403, 403]
    machine.run_until_resized(0)
    assert machine.google.num_asked == 4
    assert len(machine.containers) == 1


def test_a_group_is_asked_for_zero_until_the_machine_is_gone(machine):
    """As long as the machine is there after a granted request, it asks again, and trains nothing."""
    machine.run_until_resized(0, 0, 0, times=3)
    assert len(machine.containers) == 1
    assert 120 in machine.pauses


def test_a_machine_without_a_training_goes_at_once(machine):
    """A group that was resized by hand, and does not say what to train, is resized back."""
    del machine.metadata._values["instance/attributes/trainer-image"]
    said = machine.run_until_resized()
    assert machine.containers == []
    assert "make vm-up" in said


def test_a_metadata_server_that_fails_is_no_reason_to_go(machine):
    """A failed request is repeated, and its answer not taken for absent."""
    answer, failures = machine.metadata.answer, iter(range(3))

    def fails_first(path, query):
        if next(failures, None) is not None:
            raise ConnectionAbortedError
        return answer(path, query)

    machine.metadata.answer = fails_first
    machine.run_until_resized(0)
    assert len(machine.containers) == 1


def test_the_container_has_the_gpu_and_its_driver(machine):
    """The driver is installed once a boot, before the first container, and each container gets device and files."""
    machine.run_until_resized(75, 75, 0)
    assert machine.programs.words("cos-extensions") == [["install", "gpu"]]
    assert machine.programs.words("mount") == [
        ["--bind", "/var/lib/nvidia", "/var/lib/nvidia"],
        ["-o", "remount,exec", "/var/lib/nvidia"],
    ]
    for words in machine.containers:
        assert {"/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"} <= set(words)
        assert "/var/lib/nvidia/lib64:/usr/local/nvidia/lib64:ro" in words


def test_the_job_is_told_how_long_its_image_was_pulled(machine):
    """The image is pulled before the container starts, unless it is here; an environment variable has the seconds."""
    machine.programs.add(
        "docker",
        ENGINE.replace(
            'if sys.argv[1] == "logs"', 'if sys.argv[1] == "pull":\n    sys.exit(1)\nelif sys.argv[1] == "logs"'
        ),
    )
    said = machine.run_until_resized(0)
    words = [words[0] for words in machine.programs.words("docker")]
    assert words.index("pull") < words.index("run")
    assert ["pull", "--quiet", IMAGE] in machine.programs.words("docker")
    (container,) = [call for call in machine.programs.calls("docker") if call["words"][0] == "run"]
    assert "JOB_IMAGE_PULL_S" in container["words"]
    assert container["environment"]["JOB_IMAGE_PULL_S"].isdecimal()
    assert "a copy of it may be here" in said


def test_nothing_is_trained_without_a_driver(machine):
    """A driver that cannot be installed is a crash, and no container is started for it."""
    machine.programs.add("cos-extensions", "sys.exit(1)")
    said = machine.run_until_resized(0)
    assert machine.containers == []
    assert "driver cannot be installed" in said


def test_the_registry_is_logged_in_to_with_the_machines_token(machine):
    """The engine gets the token through its standard input, for the registry of the image alone."""
    machine.programs.add("docker", ENGINE, reads=True)
    machine.run_until_resized(0)
    (login,) = [call for call in machine.programs.calls("docker") if call["words"][0] == "login"]
    assert login["words"][-1] == "https://us-central1-docker.pkg.dev"
    assert login["stdin"].strip() == TOKEN
    assert not any(TOKEN in word for words in machine.programs.words("docker") for word in words)


def test_the_key_reaches_the_container_by_its_environment_alone(machine):
    """The key of Weights & Biases is read from Secret Manager, and is on no command line."""
    machine.secret, machine.google.secrets = SECRET, {SECRET: KEY}
    said = machine.run_until_resized(0)
    (container,) = [call for call in machine.programs.calls("docker") if call["words"][0] == "run"]
    assert container["environment"]["WANDB_API_KEY"] == KEY
    assert container["words"][container["words"].index("--env") + 1] == "WANDB_API_KEY"
    assert not any(
        KEY in word for name in ("docker", "sleep") for words in machine.programs.words(name) for word in words
    )
    assert KEY not in said


def test_a_run_is_copied_to_the_archive_that_terraform_names(machine):
    """The training gets the flag ``--archive`` if Terraform has made an archive."""
    machine.environment = {"ARCHIVE": "gs://archive"}
    machine.run_until_resized(0)
    assert machine.containers[0][-4:] == ["--bucket", "gs://weights", "--archive", "gs://archive"]


@pytest.mark.parametrize("secret", ["", SECRET])
def test_a_run_is_trained_without_a_key(machine, secret):
    """Without a key, or with one that may not be read, the run is trained without tracking."""
    machine.secret = secret
    said = machine.run_until_resized(0)
    assert ["WANDB_API_KEY" in words for words in machine.containers] == [False]
    assert ("without tracking" in said) is bool(secret)


ORDER = (
    "train --recipe base --model yolo11n.yaml --epochs 2 --imgsz 64 --batch 4 --nbs 8 --plots false --workers 0 "
    "--checkpoint-every 0 --run zebra --device cpu"
)
"""Two epochs of six batches."""


def test_a_preempted_run_is_finished_by_the_next_machine_and_never_trained_again(machine, tmp_path):
    """With the real job in the container: SIGTERM commits and leaves the group alone, the next machine goes on where
    that was and resizes the group to zero, and one more machine resizes it again and trains nothing.
    """
    bucket = make_bucket(make_tiny_dataset(tmp_path / "tiny", num_train=22, num_val=4), tmp_path / "bucket")
    trace = tmp_path / "trace"
    machine.metadata.set("instance/attributes/trainer-command", ORDER)
    machine.bucket, machine.environment = bucket, {"JOB_TRACE": str(trace)}
    run = Run(open_store(bucket), "zebra")

    machine.boot("job")
    wait_until(lambda: trace.exists() and len(trace.read_text().splitlines()) >= 3, machine.process)
    said = machine.stop()
    assert machine.process.returncode == 0, said
    assert run.attempt(1).end.reason == "preempted"
    assert "committed batch" in said
    assert machine.google.num_asked == 0

    said = machine.run_until_resized("job")
    assert run.final() is not None, said
    assert "committed epoch" in said
    steps = trace.read_text().splitlines()
    assert len(steps) == len(set(steps)) == 12

    machine.run_until_resized("job")
    assert run.attempt_numbers() == [1, 2]
    assert trace.read_text().splitlines() == steps
    assert machine.google.resized == [f"{GROUP} 0"] * 2

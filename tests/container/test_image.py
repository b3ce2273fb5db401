"""The image that `make image` built, run for real; skipped without an engine or an image."""

import io
import json
import os
import shutil
import subprocess
import tarfile

import pytest

from job.runs import checkpoint
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.cli_process import ROOT, SOON_S, wait_until

ENGINE = os.environ.get("CONTAINER_ENGINE") or shutil.which("docker") or shutil.which("podman")
IMAGE = os.environ.get("IMAGE_NAME", "job")

SECRET_WORDS = (b"WANDB_API_KEY=", b"BEGIN PRIVATE KEY", b"BEGIN RSA PRIVATE KEY", b'"private_key":', b"AIza")
"""Words that precede a secret."""

SECRET_FILES = (".netrc", ".env", "pip.conf", "credentials.json", "id_rsa", "id_ed25519")
"""Where secrets are kept."""

PROGRAM = b"\x7fELF"
"""First bytes of programs and libraries, some of which search for the words themselves."""

BLOCK_BYTES = 1 << 20

DEMO = ("--recipe", "base", "--profile", "demo", "--imgsz", "64", "--plots", "false", "--workers", "0")


def engine(*words, timeout_s=280, **options):
    """Run the container engine."""
    assert ENGINE
    return subprocess.run([ENGINE, *words], capture_output=True, text=True, check=False, timeout=timeout_s, **options)


def has_image():
    """Whether there is something to test."""
    return ENGINE is not None and engine("image", "inspect", IMAGE).returncode == 0


@pytest.fixture(scope="module", autouse=True)
def _image():
    """The image, if it was built."""
    if not has_image():
        pytest.skip("there is no container engine, or no image: run make image")


@pytest.fixture
def folders(tmp_path):
    """A bucket and a working folder that every user may write."""
    for name in ("bucket", "work"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    return tmp_path


def confined(folders, *words, name=None):
    """Return the words that run the job with a read-only root, without a network, in two folders."""
    return [
        *("run", "--rm", "--read-only", "--network", "none", "--tmpfs", "/tmp", "--shm-size", "256m"),  # noqa: S108
        *(("--name", name) if name else ()),
        *("--env", "OMP_NUM_THREADS=1"),
        *("--volume", f"{folders / 'bucket'}:/bucket", "--volume", f"{folders / 'work'}:/work/work"),
        *(IMAGE, *words),
    ]


def test_it_runs_as_an_ordinary_user(folders):
    """The job is not root, and cannot become it."""
    words = confined(folders)
    words[-1:] = ["--entrypoint", "/usr/bin/id", IMAGE, "-u"]
    assert engine(*words).stdout.strip() == "10001"


def test_help_and_doctor_answer(folders):
    """The command line works, and the check of the machine passes on one without a GPU."""
    assert "job train" in engine(*confined(folders, "--help")).stdout
    examined = engine(*confined(folders, "doctor", "--bucket", "/bucket", "--json"))
    assert examined.returncode == 0, examined.stderr
    grades = {finding["subject"]: finding["grade"] for finding in json.loads(examined.stdout)}
    assert grades["torch"] == grades["ultralytics"] == grades["bucket"] == grades["disk"] == "ok"


def test_a_recipe_trains_and_a_stopped_container_loses_nothing(folders):
    """The demo trains with a read-only root and no network; stopped, the job commits and exits 75, and the same
    command finishes.
    """
    name = f"job-test-{os.getpid()}"
    words = ("train", *DEMO, "--epochs", "2", "--bucket", "/bucket", "--run", "zebra", "--checkpoint-every", "0")
    process = subprocess.Popen(
        [ENGINE, *confined(folders, *words, name=name)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    run = Run(open_store(str(folders / "bucket")), "zebra")
    wait_until(lambda: checkpoint.committed(run) != [] and steps_of(run) > 0, process)
    assert engine("stop", "--time", "60", name).returncode == 0
    said = process.communicate(timeout=SOON_S)[1]
    assert process.returncode == 75, said
    end = run.attempt(1).end
    newest = checkpoint.committed(run)[-1]
    assert (end.reason, end.position._asdict()) == ("preempted", {"epoch": newest.epoch, "batch": newest.batch})
    finished = engine(*confined(folders, *words))
    assert finished.returncode == 0, finished.stderr
    assert run.final() is not None


def steps_of(run):
    """Return the number of steps that the first attempt has reported."""
    epoch, batch = run.attempt(1).position or (0, 0)
    return epoch * 1000 + batch


@pytest.mark.full
def test_two_builds_have_the_same_layers():
    """The small image, of the supervisor, is built twice from nothing: each layer has the same bytes, and so has
    what the image says of itself.
    """
    if "podman" not in engine("--version").stdout:
        pytest.skip("Docker's builder gives the files of small layers the time of their build")
    digests = []
    for name in ("job-built-once", "job-built-twice"):
        done = subprocess.run(
            [ROOT / "docker/build.sh", name, "supervisor", "--no-cache"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        (image,) = json.loads(engine("image", "inspect", name).stdout)
        digests.append((image["RootFS"]["Layers"], image["Id"]))
    engine("image", "rm", "job-built-once", "job-built-twice")
    assert len(digests[0][0]) > 1
    assert digests[0] == digests[1]


def test_no_secret_is_in_any_layer():
    """Neither the history nor a file of any layer, removed by a later one or not, looks like a secret; what came from
    the lock by digest is judged by its name alone.
    """
    inspected = engine("image", "inspect", IMAGE).stdout + engine("history", "--no-trunc", IMAGE).stdout
    assert not [word for word in SECRET_WORDS if word.decode() in inspected]
    num_layers, names = 0, set()
    with subprocess.Popen([ENGINE, "save", IMAGE], stdout=subprocess.PIPE) as saving:
        for layer in layers(saving.stdout):
            num_layers += 1
            for member in layer:
                names.add(member.name)
                assert not member.name.endswith(SECRET_FILES), member.name
                if member.isfile() and not from_the_lock(member.name):
                    found = layer.extractfile(member).read()
                    assert found.startswith(PROGRAM) or not [word for word in SECRET_WORDS if word in found], (
                        member.name
                    )
    assert saving.returncode == 0
    assert num_layers == len(json.loads(engine("image", "inspect", IMAGE).stdout)[0]["RootFS"]["Layers"])
    assert any(name.endswith("site-packages/job/cli/app.py") for name in names)


def layers(saved):
    """Yield the layers of a saved image, each an archive to be read from its beginning to its end."""
    with tarfile.open(fileobj=saved, mode="r|", bufsize=BLOCK_BYTES) as image:
        for member in image:
            blob = io.BufferedReader(image.extractfile(member)) if member.isfile() else None
            if blob is not None and blob.peek(262)[257:262] == b"ustar":  # the others are about the image
                with tarfile.open(fileobj=blob, mode="r|", bufsize=BLOCK_BYTES) as layer:
                    yield layer


def from_the_lock(name):
    """Whether a file of the image came with one of the libraries."""
    return "/site-packages/" in name and "/site-packages/job/" not in name


def test_no_tool_for_building_is_in_it(folders):
    """Compilers and installers are absent."""
    words = confined(folders)
    script = "command -v gcc cc make git /opt/job/bin/pip; true"
    words[-1:] = ["--entrypoint", "/bin/sh", IMAGE, "-c", script]
    assert engine(*words).stdout.strip() == ""


def test_what_was_left_out_is_not_missed(folders):
    """Torch with its GPU libraries, distributed training and the compiler load without the files that were removed."""
    words = confined(folders)
    script = (
        "import ctypes, torch, torch.distributed as dist, triton, torchvision, pathlib\n"
        "import torch._inductor.compile_fx, torch._dynamo\n"
        "assert dist.is_nccl_available() and torch.version.cuda == '12.8'\n"
        "lib = pathlib.Path(torch.__file__).parent / 'lib'\n"
        "for name in ('libtorch_cuda.so', 'libtorch_cuda_linalg.so', 'libtorch_nvshmem.so'):\n"
        "    ctypes.CDLL(str(lib / name))\n"
        "print('loaded')\n"
    )
    words[-1:] = ["--entrypoint", "/opt/job/bin/python", IMAGE, "-c", script]
    done = engine(*words)
    assert "loaded" in done.stdout, done.stderr


def test_its_size_is_printed(capsys):
    """The layers' sizes are printed, largest first."""
    listed = engine("history", "--format", "{{.Size}}\t{{.CreatedBy}}", IMAGE).stdout.splitlines()
    size = json.loads(engine("image", "inspect", IMAGE).stdout)[0]["Size"]
    with capsys.disabled():
        print(f"\n{IMAGE}: {size / 1e9:.2f} GB unpacked")
        for line in listed:
            print("  " + line[:110])
    assert size < 9e9

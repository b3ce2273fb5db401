"""The scripts around the image, with stubs of the engine and the driver, without an image."""

import itertools
import re
import shutil
import subprocess
import sys

import pytest

from tests.support.cli_process import ROOT
from tests.support.stub_programs import Programs

REGISTRY_DIGEST, LOCAL_DIGEST = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"

ENGINE = f"""
from pathlib import Path
words, name = sys.argv[1:], Path(sys.argv[0]).name
if words[0] == "--version":
    print(name, "version 4.3.1")
elif words[:2] == ["image", "inspect"] and "--format" in words:
    digest = {LOCAL_DIGEST!r} if "podman" in name else {REGISTRY_DIGEST!r}
    print("other/image@sha256:" + "3" * 64)
    print(words[-1].rpartition(":")[0] + "@" + digest)
elif words == ["buildx", "version"]:
    sys.exit("buildx" not in name)
elif words[0] == "info":
    print("[[driver-type io.containerd.snapshotter.v1]]" if "store" in name else "[[Backing Filesystem extfs]]")
elif words[:2] == ["buildx", "build"]:
    print("what the engine says while it pushes")
    digests = {{"containerimage.config.digest": {LOCAL_DIGEST!r}, "containerimage.digest": {REGISTRY_DIGEST!r}}}
    Path(words[words.index("--metadata-file") + 1]).write_text(json.dumps(digests, indent=2))
elif words == ["push", "--help"]:
    print("--compression-format string", *(["--compression-level int"] if "new" in name else []))
elif words[0] == "push":
    print("what the engine says while it pushes")
    if "podman" in name:
        Path(words[words.index("--digestfile") + 1]).write_text({REGISTRY_DIGEST!r})
"""
"""Podman compresses while it pushes: the digest of the image here is not that of the registry."""

BUILDX = "docker-buildx-store"
"""A Docker that has buildx, and containerd's image store."""


@pytest.fixture
def programs(tmp_path):
    """A folder for the programs, with a gcloud that is logged in."""
    programs = Programs(tmp_path / "bin")
    programs.add("gcloud", 'print("ya29.token")')
    return programs


def script(name, *words, programs, engine="docker", where=ROOT):
    """Run one of the scripts with an engine of that name."""
    programs.add(engine, ENGINE)
    environment = {"PATH": programs.path, "CONTAINER_ENGINE": engine, "HOME": str(where)}
    command = [str(ROOT / "docker" / name), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=where)


@pytest.mark.parametrize("engine", ["docker", "podman", "new-podman", BUILDX])
def test_a_push_prints_the_digest_that_the_registry_has(programs, engine):
    """The last word of a push is what `make submit` wants as IMAGE, and nothing else is on standard output."""
    done = script("push.sh", "job", "europe-docker.pkg.dev/p/yolo", programs=programs, engine=engine)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"IMAGE=europe-docker.pkg.dev/p/yolo/job@{REGISTRY_DIGEST}\n"


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("docker", []),
        ("podman", ["--compression-format", "zstd"]),
        ("new-podman", ["--compression-format", "zstd", "--compression-level", "10"]),
    ],
)
def test_a_push_is_as_small_as_the_engine_can_make_it(programs, engine, words):
    """Layers are fetched and unpacked before each attempt on a new machine."""
    assert script("push.sh", "job", "europe-docker.pkg.dev/p/yolo", programs=programs, engine=engine).returncode == 0
    (push,) = [
        call["words"] for call in programs.calls(engine) if call["words"][0] == "push" and "--help" not in call["words"]
    ]
    assert push[1 : 1 + len(words)] == words
    assert ("--compression-format" in push) == bool(words)


def test_docker_pushes_zstd_by_buildx_where_that_finds_the_image(programs):
    """With containerd's image store the image here is pushed with other compression; else Docker pushes it as it is."""
    place = "europe-docker.pkg.dev/p/yolo"
    programs.add(BUILDX, ENGINE, reads=True)
    environment = {"PATH": programs.path, "CONTAINER_ENGINE": BUILDX, "HOME": str(ROOT)}
    subprocess.run([ROOT / "docker/push.sh", "job", place], env=environment, capture_output=True, check=True, cwd=ROOT)
    (build,) = [call for call in programs.calls(BUILDX) if call["words"][:2] == ["buildx", "build"]]
    output = build["words"][build["words"].index("--output") + 1].split(",")
    assert {"push=true", "compression=zstd", "force-compression=true"} < set(output)
    assert (build["words"][-1], build["stdin"]) == ("-", "FROM job\n")
    assert script("push.sh", "job", place, programs=programs, engine="docker-buildx").returncode == 0
    words = programs.words("docker-buildx")
    assert [call[0] for call in words if call[0] in {"push", "buildx"}] == ["buildx", "push"]


def test_a_push_logs_in_to_artifact_registry(programs):
    """The engine gets the token of the login that every other tool uses, on its standard input."""
    programs.add("docker", f"{ENGINE}\nif words[0] == 'login':\n    print(sys.stdin.read(), file=sys.stderr)")
    environment = {"PATH": programs.path, "CONTAINER_ENGINE": "docker", "HOME": str(ROOT)}
    command = [str(ROOT / "docker/push.sh"), "job", "europe-docker.pkg.dev/p/yolo"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert programs.words("gcloud") == [["auth", "application-default", "print-access-token"]]
    login = ["login", "--username", "oauth2accesstoken", "--password-stdin", "https://europe-docker.pkg.dev"]
    words = programs.words("docker")
    assert words.index(login) < next(number for number, call in enumerate(words) if call[0] == "push")
    assert "ya29.token" in done.stderr
    assert done.stdout == f"IMAGE=europe-docker.pkg.dev/p/yolo/job@{REGISTRY_DIGEST}\n"


ALLOCATOR = "import torch; print(torch.cuda.memory._snapshot()['allocator_settings']['expandable_segments'])"
"""Prints whether torch was told to let segments of a GPU's memory grow."""


def test_the_image_lets_segments_of_gpu_memory_grow():
    """The image sets a variable that torch reads, to a value by which free pieces of memory count as one."""
    text = (ROOT / "docker" / "Dockerfile").read_text()
    [(name, value)] = re.findall(r"^ +(\w*ALLOC_CONF)=(\S+)", text, re.MULTILINE)
    command = [sys.executable, "-c", ALLOCATOR]
    for settings, said in (({}, "False\n"), ({name: value}, "True\n")):
        assert subprocess.run(command, env=settings, capture_output=True, text=True, check=True).stdout == said


def test_the_supervisor_is_an_image_of_its_own(programs):
    """Its target of the Dockerfile is built, with messages as Cloud Logging takes them; it is pushed under its name."""
    stage = (ROOT / "docker" / "Dockerfile").read_text().partition(" AS supervisor\n")[2].partition("\nFROM ")[0]
    assert "LOG=json" in stage
    words = ("job-supervisor", "supervisor")
    assert script("build.sh", *words, programs=programs).returncode == 0
    build = programs.words("docker")[-1]
    assert (build[0], build[build.index("--target") + 1]) == ("build", "supervisor")
    done = script("push.sh", "job-supervisor", "europe-docker.pkg.dev/p/yolo", "supervisor", programs=programs)
    assert done.stdout == f"IMAGE=europe-docker.pkg.dev/p/yolo/supervisor@{REGISTRY_DIGEST}\n"


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_podman_gives_every_file_of_a_build_the_time_of_the_dockerfile(programs, engine):
    """A layer of the same content is the same layer whenever it was built; Docker has no such flag."""
    (epoch,) = re.findall(r"^ARG SOURCE_DATE_EPOCH=(\d+)$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE)
    assert script("build.sh", "job", programs=programs, engine=engine).returncode == 0
    words = programs.words(engine)[-1]
    flags = dict(itertools.pairwise(words))
    assert flags.get("--timestamp") == (epoch if engine == "podman" else None)


def test_a_push_without_a_login_says_how_to_get_one(programs):
    """Before anything is pushed the missing credentials are named."""
    programs.add("gcloud", "sys.exit(1)")
    done = script("push.sh", "job", "europe-docker.pkg.dev/p/yolo", programs=programs)
    assert (done.returncode, "run gcloud auth application-default login" in done.stderr) == (78, True)
    assert [call for call in programs.words("docker") if call[0] == "push"] == []


def test_a_push_needs_to_know_where(programs, tmp_path):
    """Without a repository, and without the outputs of Terraform, it ends with 2 and names them."""
    shutil.copytree(ROOT / "docker", tmp_path / "project" / "docker")
    programs.add("docker", ENGINE)
    done = subprocess.run(
        [str(tmp_path / "project" / "docker" / "push.sh"), "job", ""],
        env={"PATH": programs.path, "CONTAINER_ENGINE": "docker"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "REPOSITORY is missing" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("engine", "gpu"), [("docker", ["--gpus", "all"]), ("podman", ["--device", "nvidia.com/gpu=all"])]
)
def test_a_gpu_of_the_machine_is_given_to_the_container(programs, tmp_path, engine, gpu):
    """Each engine is asked in its own way, and only where the driver answers."""
    words = ("train", "--recipe", "A", "--bucket", "bucket")
    programs.add("nvidia-smi", "sys.exit(9)")
    assert script("run.sh", "job", *words, programs=programs, engine=engine, where=tmp_path).returncode == 0
    without = programs.calls(engine)[-1]["words"]
    assert not {"--gpus", "nvidia.com/gpu=all"} & set(without)
    assert without[-5:] == ["train", "--recipe", "A", "--bucket", "/bucket"]
    assert f"{tmp_path / 'bucket'}:/bucket" in without
    programs.add("nvidia-smi")
    assert script("run.sh", "job", *words, programs=programs, engine=engine, where=tmp_path).returncode == 0
    given = programs.calls(engine)[-1]["words"]
    assert given[given.index(gpu[0]) : given.index(gpu[0]) + 2] == gpu


def mounts_of(words):
    """Return source and target of each mount, with whether it is to be read only."""
    given = [dict.fromkeys(word.split(",")) for name, word in itertools.pairwise(words) if name == "--mount"]
    return [tuple(field.partition("=")[2] or field for field in mount if field != "type=bind") for mount in given]


def test_a_prediction_reads_its_pictures_and_writes_its_results(programs, tmp_path):
    """The pictures are mounted to be read only, the place of the results to be written; what is in a bucket, or is not
    there, stays as it is.
    """
    (tmp_path / "my flight").mkdir()
    words = ("predict", "zebra", "my flight", "--out", "found", "--bucket", "gs://b/p", "--device", "cpu")
    assert script("run.sh", "job", *words, programs=programs, where=tmp_path).returncode == 0
    found = programs.calls("docker")[-1]["words"]
    assert mounts_of(found) == [
        (f"{tmp_path}/my flight", f"/host{tmp_path}/my flight", "readonly"),
        (f"{tmp_path}/found", f"/host{tmp_path}/found"),
    ]
    inside = [f"/host{tmp_path}/my flight", "--out", f"/host{tmp_path}/found", "--bucket", "gs://b/p"]
    assert found[-9:] == ["predict", "zebra", *inside, "--device", "cpu"]
    assert (tmp_path / "found").is_dir()
    words = ("predict", "zebra", "gs://b/flight", "--out", "gs://b/found", "--bucket", "gs://b/p")
    assert script("run.sh", "job", *words, programs=programs, where=tmp_path).returncode == 0
    assert programs.calls("docker")[-1]["words"][-7:] == [*words]
    words = ("predict", "zebra", "nowhere", "--out", "gs://b/found")
    assert script("run.sh", "job", *words, programs=programs, where=tmp_path).returncode == 0
    assert programs.calls("docker")[-1]["words"][-5:] == [*words]
    assert not (tmp_path / "nowhere").exists()


def test_several_pictures_keep_their_names(programs, tmp_path):
    """Files are mounted one by one under their paths, so that the job names them as it does without the image."""
    for name in ("a/1.jpg", "b/1.jpg", "zebra"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    words = ("predict", "zebra", "a/1.jpg", "b/1.jpg", "--out", "gs://b/found", "--draw")
    assert script("run.sh", "job", *words, programs=programs, where=tmp_path).returncode == 0
    found = programs.calls("docker")[-1]["words"]
    assert [target for _, target, _ in mounts_of(found)] == [f"/host{tmp_path}/{name}/1.jpg" for name in "ab"]
    assert found[-7:] == [
        *("predict", "zebra", f"/host{tmp_path}/a/1.jpg", f"/host{tmp_path}/b/1.jpg"),
        *("--out", "gs://b/found", "--draw"),
    ]


@pytest.mark.parametrize("variable", ["WANDB_API_KEY", "JOB_NOTIFY"])
def test_a_key_is_passed_on_by_its_name(programs, tmp_path, variable):
    """The value of a key, or of the address of a webhook, is in no list of processes."""
    programs.add("docker", ENGINE)
    environment = {"PATH": programs.path, "CONTAINER_ENGINE": "docker", variable: "secret-of-mine"}
    command = [str(ROOT / "docker" / "run.sh"), "job", "--help"]
    assert subprocess.run(command, env=environment, check=False, cwd=tmp_path).returncode == 0
    words = programs.calls("docker")[-1]["words"]
    assert words[words.index("--env") + 1] == variable
    assert not any("secret-of-mine" in word for word in words)


def test_without_an_engine_a_message_names_it(tmp_path):
    """Without docker and podman a message names them, with exit code 78."""
    for name in ("build.sh", "push.sh", "run.sh"):
        done = subprocess.run(
            [str(ROOT / "docker" / name), "job", "repository"],
            env={"PATH": "/usr/bin:/bin", "CONTAINER_ENGINE": "no-such-engine"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, "no-such-engine, which is not here" in done.stderr) == (78, True)

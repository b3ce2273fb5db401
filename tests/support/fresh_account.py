"""A clean clone of the repository, and a new account of Google's as a person meets both, on a machine with little else.

Stubs of gcloud, Docker and Terraform behave like the real ones before their first use: nobody is logged in, no image is
built, the registry denies a push without a login, and Google does not know a new metric at once.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from job.storage.open_store import open_store
from tests.support.cli_process import ROOT, TIMEOUT_S
from tests.support.fake_batch import FakeBatch
from tests.support.fake_google_project import ACCOUNT, PROJECT, REGION, FakeProject
from tests.support.recording_checkout import LEVELS
from tests.support.stub_programs import Programs

DIGEST = f"sha256:{'1' * 64}"
IMAGE = f"{REGION}-docker.pkg.dev/{PROJECT}/yolo-train/job@{DIGEST}"

TOOLS = (
    *(
        "awk",
        "bash",
        "cat",
        "cp",
        "cut",
        "date",
        "dirname",
        "env",
        "find",
        "git",
        "grep",
        "head",
        "ls",
        "make",
        "mkdir",
    ),
    *("mktemp", "mv", "python3", "rm", "sed", "sh", "sleep", "sort", "tail", "touch", "tr", "uname", "wc"),
)
"""Programs of a machine besides those that a chapter of the documentation asks for."""

VARIABLES, SETTINGS, DATASET = "infra/terraform.tfvars", "infra/outputs.json", "datasets/wildlife/data.yaml"

OUTPUTS = {
    "project": PROJECT,
    "region": REGION,
    "image_repository": f"{REGION}-docker.pkg.dev/{PROJECT}/yolo-train",
    "runtime_service_account": ACCOUNT,
    "network": f"projects/{PROJECT}/global/networks/yolo",
    "subnetwork": f"projects/{PROJECT}/regions/{REGION}/subnetworks/yolo",
    "group": "yolo-train-vm",
    "vm_machine_type": "g2-standard-8",
    "supervisor": "yolo-train-supervisor",
    "supervisor_service_account": f"supervise@{PROJECT}.iam.gserviceaccount.com",
}
"""What Terraform prints, but for the bucket."""

STATE = """
from pathlib import Path
words = sys.argv[1:]
login, built, registry, applied, known = (
    Path(os.environ["HOME"], name)
    for name in (".config/gcloud/application_default_credentials.json", "built", "registry", "applied", "known")
)
def done(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
"""

CREDENTIALS = json.dumps({"type": "authorized_user", "client_id": "", "client_secret": "", "refresh_token": ""})
"""What a login writes."""

GCLOUD = """
if words == ["auth", "application-default", "login"]:
    done(login)
    login.write_text({credentials!r})
elif "print-access-token" in words:
    print("ya29.token") if login.exists() else sys.exit("ERROR: Your default credentials were not found.")
elif "describe" in words:
    print(0)
"""

DOCKER = """
if words[0] == "--version":
    print("Docker version 28.0.0")
elif words[0] == "build":
    done(built)
elif words[0] == "login":
    done(registry) if sys.stdin.read() else sys.exit("Error: no password")
elif words[0] == "push" and not registry.exists():
    sys.exit("denied: Unauthenticated request.")
elif words[:2] == ["image", "inspect"] and not built.exists():
    sys.exit("Error: no such image")
elif "--format" in words:
    print(words[-1].rpartition(":")[0] + "@{digest}")
"""

TERRAFORM = """
if "apply" in words and not login.exists():
    sys.exit("Error: could not find default credentials")
elif "apply" in words and not known.exists():
    done(known)
    sys.exit("Error: Error creating AlertPolicy: googleapi: Error 404: Cannot find metric(s) that match type")
elif "apply" in words:
    done(applied)
elif "output" in words:
    print({outputs!r} if applied.exists() else "{{}}")
"""


class FreshAccount:
    """The clone, its owner's home and programs, and the services that its commands are led to."""

    def __init__(self, clone: Path, bucket: str, project: FakeProject, batch: FakeBatch) -> None:
        self.clone, self.bucket, self.project, self.batch = clone, bucket, project, batch
        self.home = Path(os.environ["HOME"])
        self.services = project.env | {"BATCH_EMULATOR_HOST": batch.host}
        """Variables that lead clients to the fake services; without them they ask Google."""

        self.programs = Programs(self.home / "programs")
        self.outputs = {name: {"value": value} for name, value in {**OUTPUTS, "bucket": bucket}.items()}
        bodies = {
            "gcloud": GCLOUD.format(credentials=CREDENTIALS),
            "docker": DOCKER.replace("{digest}", DIGEST),
            "terraform": TERRAFORM.format(outputs=json.dumps(self.outputs, indent=2)),
        }
        for name, body in bodies.items():
            self.programs.add(name, STATE + body)
        tools = self.home / "tools"
        tools.mkdir()
        for name in TOOLS:
            (tools / name).symlink_to(shutil.which(name) or "")
        self._path = os.pathsep.join(map(str, (self.programs.folder, clone / ".venv/bin", tools)))
        for left in (VARIABLES, SETTINGS):
            (clone / left).unlink(missing_ok=True)

    def set_up(self) -> None:
        """Bring about what the chapter's commands leave behind before the submission."""
        self.login.parent.mkdir(parents=True, exist_ok=True)
        self.login.write_text(CREDENTIALS)
        for name in ("built", "registry", "applied", "known"):
            (self.home / name).touch()
        shutil.copy(self.clone / "infra/terraform.tfvars.example", self.clone / VARIABLES)
        self.name_project()
        (self.clone / SETTINGS).write_text(json.dumps(self.outputs, indent=2))
        open_store(self.bucket).put(DATASET, b"names: [animal]\n")

    @property
    def login(self) -> Path:
        """The application default credentials."""
        return self.home / ".config/gcloud/application_default_credentials.json"

    def name_project(self) -> None:
        """Put the project's id into the copy of Terraform's example."""
        variables = self.clone / VARIABLES
        variables.write_text(variables.read_text().replace("my-project-123", PROJECT))

    def type(self, command: str) -> "subprocess.CompletedProcess[str]":
        """Execute a command as a person does who has this clone, this home and these programs only."""
        return in_shell(command, self.clone, PATH=self._path, HOME=str(self.home), APPLY_PAUSE_S="0", **self.services)

    @property
    def made(self) -> list[str]:
        """Whatever was made or changed by commands: pushes, resources, objects of a run, jobs."""
        calls = [("docker", "push"), ("terraform", "apply"), *(("gcloud", verb) for verb in CHANGES)]
        made = [
            f"{program} {verb}" for program, verb in calls for words in self.programs.words(program) if verb in words
        ]
        made += [stored.key for stored in open_store(self.bucket).list("") if stored.key != DATASET]
        made += [request for request in self.project.asked if not re.match(READING, request)]
        return [*made, *self.batch.jobs]


CHANGES = ("create", "delete", "deploy", "execute", "resize", "update")
"""Verbs of gcloud."""

READING = r"GET|POST \S+(:testIamPermissions|:getIamPolicy)$"


def make_clone(folder: Path) -> Path:
    """Copy what git has of this repository, or would take, into a folder, with the environment of these tests."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():  # or it was deleted here
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(Path(sys.executable).parent)
    for stamp in (".created", *(f".installed-{level}" for level in LEVELS)):
        (folder / ".venv" / stamp).touch()
    return folder


def in_shell(command: str, clone: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Execute a command in a clone, whose own code it runs, with the environment's libraries."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))}
    path = os.pathsep.join([str(clone / "programs"), str(clone / ".venv/bin"), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-c", command],
        cwd=clone,
        env=outside | {"PATH": path, "PYTHONPATH": str(clone)} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

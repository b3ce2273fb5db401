"""A managed job of SkyPilot on this machine: nodes that share nothing but the bucket and the network.

Each node runs the task's own shell command with SkyPilot's variables, in an empty folder with an empty home, and is
recovered with all others, never alone. Its ``docker`` starts the job as a container would: with the variables that are
passed to it and those of the image, and without a GPU.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.cli_process import ROOT, free_port

TASK = ROOT / "infra/skypilot/train.yaml"

ADDRESS = "127.0.0.1"
"""Of every node."""

STOP_S = 25.0
"""From SIGTERM to SIGKILL when a container is stopped, by the task's command."""

IMAGE = f"us-central1-docker.pkg.dev/demo-project/yolo/job@sha256:{'0' * 64}"

DOCKER = """\
#!{python}
import os, re, sys
words = sys.argv[1:]
at = words.index({image!r})
passed = [name for option, name in zip(words[:at], words[1:at]) if option == "--env"]
job = words[at + 1 :]
devices = job.index("--device") + 1
job[devices] = re.sub("[0-9]+", "cpu", job[devices])
environment = {environment!r} | {{name: os.environ[name] for name in passed}}
os.execve({python!r}, [{python!r}, "-m", "job", *job], environment)
"""


@dataclass(eq=False)
class Node:
    """A machine: every process that has its home."""

    process: subprocess.Popen[bytes]
    home: Path

    def kill(self) -> None:
        """Kill all of its processes at once, also those in process groups of their own, as a machine that vanishes."""
        while left := self._processes():
            for number in left:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Stop its container, then take the machine."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        self.kill()

    def _processes(self) -> list[int]:
        found, mark = [], os.fsencode(f"HOME={self.home}")
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # it has ended, or is another user's
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found


class ManagedJob:
    """Nodes that are started together, and together again.

    Args:
        folder: For the disks of nodes, and what they say: ``LAUNCH-RANK.log``.
        num_nodes: Nodes of each launch.
        envs: Variables of the task.
        environment: What the image has besides.
        files: What the image has in its working folder.
    """

    def __init__(
        self,
        folder: Path,
        num_nodes: int,
        envs: Mapping[str, str],
        environment: Mapping[str, str],
        files: tuple[Path, ...] = (),
    ) -> None:
        self.folder, self.num_nodes, self.environment, self.files = folder, num_nodes, environment, files
        self.task = yaml.safe_load(TASK.read_text())
        self.envs = {**self.task["envs"], **envs, "IMAGE": IMAGE}
        self.recovered_codes = self.task["resources"]["job_recovery"]["recover_on_exit_codes"]
        self.num_launches = 0
        self.nodes: list[Node] = []

    def launch(self) -> None:
        """Start the task on new machines."""
        self.num_launches += 1
        port = free_port()  # stands in for the usual one of a machine of its own
        self.nodes = [self._start(rank, {**self.environment, "MASTER_PORT": port}) for rank in range(self.num_nodes)]

    def kill(self) -> None:
        """Take away all that is left of its nodes."""
        for node in self.nodes:
            node.kill()

    def _start(self, rank: int, environment: Mapping[str, str]) -> Node:
        name = f"{self.num_launches}-{rank}"
        disk = self.folder / name
        home, programs = disk / "home", disk / "programs"
        for folder in (disk, home, programs):
            folder.mkdir()
        for file in self.files:
            shutil.copy(file, disk)
        bare = {"HOME": str(home), "PATH": os.environ["PATH"]}
        image = {**bare, "PYTHONPATH": str(ROOT), "LOG": "json", **environment}
        docker = programs / "docker"
        docker.write_text(DOCKER.format(python=sys.executable, image=IMAGE, environment=image))
        docker.chmod(0o755)
        sky = {
            "SKYPILOT_NUM_NODES": str(self.num_nodes),
            "SKYPILOT_NODE_RANK": str(rank),
            "SKYPILOT_NODE_IPS": "\n".join([ADDRESS] * self.num_nodes),
            "SKYPILOT_NUM_GPUS_PER_NODE": "1",
        }
        with (self.folder / f"{name}.log").open("wb") as said:
            process = subprocess.Popen(
                ["bash", "-c", self.task["run"]],
                cwd=disk,
                env={**bare, "PATH": f"{programs}:{bare['PATH']}", **self.envs, **sky},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        return Node(process, home)


@contextmanager
def running_job(job: ManagedJob) -> Iterator[ManagedJob]:
    """Start a job, and end it."""
    job.launch()
    try:
        yield job
    finally:
        job.kill()

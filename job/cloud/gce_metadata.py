"""Metadata server of a Google Cloud machine: machine type, Spot or not, and notice of preemption.

Honours ``GCE_METADATA_HOST`` as Google's own libraries do.
"""

import contextlib
import http.client
import os
from dataclasses import dataclass
from pathlib import Path

HEADERS = {"Metadata-Flavor": "Google"}
INSTANCE = "/computeMetadata/v1/instance/"

POLL_S = 30
"""Seconds for which the server holds a request open while nothing changes."""

CONNECT_S = 3


class MetadataError(Exception):
    """The metadata server cannot be reached, or the host is none."""


@dataclass(frozen=True, slots=True)
class MetadataServer:
    """One server, by ``host`` or ``host:port``; every request raises `MetadataError` if it is not answered."""

    host: str

    @classmethod
    def find(cls) -> "MetadataServer | None":
        """Return the server of this machine, or None if it is no machine of Google Cloud."""
        named = os.environ.get("GCE_METADATA_HOST") or os.environ.get("GCE_METADATA_ROOT")
        if named:
            return cls(named)
        try:
            product = Path("/sys/class/dmi/id/product_name").read_text(encoding="utf-8")
        except OSError:
            return None
        return cls("metadata.google.internal") if product.startswith("Google") else None

    def preempted(self) -> tuple[bool, str]:
        """Return whether the machine has been given notice, and the state's tag for `wait`."""
        return self._read_flag("preempted")

    def wait(self, tag: str) -> tuple[bool, str]:
        """Return the notice and its tag once the state changed, or after `POLL_S`."""
        return self._read_flag(f"preempted?wait_for_change=true&timeout_sec={POLL_S}&last_etag={tag}", POLL_S)

    def machine_type(self) -> str:
        """Return the type of this machine, such as ``g2-standard-8``."""
        return self._ask("machine-type")[0].rpartition("/")[2]

    def is_spot(self) -> bool:
        """Return whether this machine may be preempted."""
        return self._read_flag("scheduling/preemptible")[0]

    def _read_flag(self, path: str, held_s: float = 0) -> tuple[bool, str]:
        answer, tag = self._ask(path, held_s)
        return answer == "TRUE", tag

    def _ask(self, path: str, held_s: float = 0) -> tuple[str, str]:
        try:  # by address: no proxy is ever asked
            with contextlib.closing(http.client.HTTPConnection(self.host, timeout=held_s + CONNECT_S)) as connection:
                connection.request("GET", INSTANCE + path, headers=HEADERS)
                answer = connection.getresponse()
                text = answer.read().decode().strip()
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise MetadataError(f"metadata server {self.host}: cannot be reached, {error}") from error
        if answer.status != http.HTTPStatus.OK or answer.headers.get("Metadata-Flavor") != "Google":
            raise MetadataError(f"metadata server {self.host}: answers {answer.status}, and not as Google's does")
        return text, answer.headers.get("ETag") or "0"

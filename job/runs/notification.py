"""Notification: one JSON POST to a webhook, at the end of a run or at a decision of its supervisor.

Guarantees that a server that fails or hangs costs a bounded time and one warning, and that the webhook's address, which
is a secret, stands in no message, record or representation. Sends no credentials and follows no redirect.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Annotated, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pydantic import BeforeValidator, Field

from job import __version__
from job.background import Background
from job.log import one_line
from job.runs.flags import Options
from job.runs.records import now
from job.text import as_json

log = logging.getLogger(__name__)

NOTIFY = "JOB_NOTIFY"
"""Environment variable of the webhook's address."""

SCHEMA = 1
"""Of the JSON; raised by a field that is removed or gets another meaning."""

TIMEOUT_S = 5.0
"""Longest time that a notification takes."""

MAX_LENGTH = 1000
"""Characters of a text in the JSON."""


class _NoRedirect(HTTPRedirectHandler):
    """Makes a redirect an error, as it would become a GET of another address."""

    def redirect_request(self, *_: Any) -> None:  # noqa: ANN401 -- as the library's
        """Return no further request."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A server that takes notifications."""

    url: str = field(repr=False)

    @classmethod
    def parse(cls, value: object) -> "Webhook":
        """Return the webhook of an address; raises a `ValueError` that does not show it."""
        if isinstance(value, Webhook):
            return value
        if not isinstance(value, str) or not _is_address(value):
            raise ValueError(
                f"must be http://... or https://... without user and password, also in {NOTIFY}; what was found is not "
                "shown, as it may be a secret"
            )
        return cls(value)

    @property
    def host(self) -> str:
        """The part of the address that is no secret."""
        return urlsplit(self.url).hostname or ""

    def send(self, event: Mapping[str, object], within_s: float = TIMEOUT_S) -> None:
        """POST an event as JSON; log a warning unless the server takes it within so many seconds."""
        failure = ["no time is left for it"]
        if within_s > 0:
            failure = [f"it did not answer within {within_s:.3g} s"]
            body = as_json({"schema": SCHEMA, "at": now(), **_cut(event)})

            def post() -> None:
                failure[0] = self._post(body, within_s)

            thread = Background("notification", post)  # the limit of a socket holds for each of its reads, not for all
            thread.start()
            thread.join(within_s)
        if failure[0]:
            log.warning(
                "notification to %s: was not delivered, %s; the run is not affected, check --notify or %s",
                *(self.host, failure[0], NOTIFY),
            )

    def _post(self, body: bytes, within_s: float) -> str:
        """Return why the server did not take it; empty if it did."""
        headers = {"Content-Type": "application/json", "User-Agent": f"job/{__version__}"}
        request = Request(self.url, body, headers, method="POST")  # noqa: S310 -- `parse` checks the scheme
        try:
            build_opener(_NoRedirect).open(request, timeout=within_s).close()
        except HTTPError as error:
            error.close()
            return f"it answered {error.code}"
        except URLError as error:
            return one_line(str(error.reason))
        except OSError as error:
            return one_line(str(error))
        except (HTTPException, ValueError) as error:  # their words may be the server's, or the address
            return type(error).__name__
        return ""


Notify = Annotated[Webhook, BeforeValidator(Webhook.parse)]


class NotifyOption(Options):
    """The webhook of a run."""

    notify: Notify | None = Field(
        default_factory=lambda: os.environ.get(NOTIFY) or None,
        validate_default=True,
        description=f"Address that gets a JSON POST at the end; {NOTIFY}, which keeps it secret, if left out.",
    )


def _is_address(text: str) -> bool:
    if not text.isascii() or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        is_complete = bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is none
        return False
    return is_complete and parts.scheme in {"http", "https"} and "@" not in parts.netloc


def _cut(event: Mapping[str, object]) -> dict[str, object]:
    return {name: value[:MAX_LENGTH] if isinstance(value, str) else value for name, value in event.items()}

"""Client of Google's REST APIs: one request with this machine's credentials, where a client library is not worth it.

Guarantees that every error is a `JobError` with its remedy. ``GOOGLE_API_EMULATOR_HOST`` names another server for all
APIs, whose paths begin with the API's host, as the variables of that kind do for Google's other clients.
"""

import contextlib
import json
import os
from http import HTTPStatus
from typing import Any

import google.auth
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from requests import Session
from requests.exceptions import RequestException

from job.errors import CloudError, MachineError, TransientCloudError

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TIMEOUT_S = 60

EMULATOR = "GOOGLE_API_EMULATOR_HOST"


class RefusedError(CloudError):
    """An API's refusal: ``status`` is that of HTTP, ``detail`` its words."""

    def __init__(self, subject: str, status: int, detail: str) -> None:
        super().__init__(f"{subject}: is refused, {status} {detail}; this account needs the right that it names")
        self.status, self.detail = status, detail


class GoogleApi:
    """Google's REST APIs, by host and path; every request raises `CloudError` if it is not answered."""

    def __init__(self) -> None:
        self._emulator = os.environ.get(EMULATOR)
        self._session: Session | None = Session() if self._emulator else None

    def get(self, host: str, path: str, **query: object) -> dict[str, Any]:
        """Return the answer to a GET, such as of ``compute.googleapis.com`` and ``compute/v1/projects/P``."""
        return self._request("GET", host, path, params=query)

    def post(self, host: str, path: str, body: object) -> dict[str, Any]:
        """Return the answer to a POST with a JSON body."""
        return self._request("POST", host, path, json=body)

    def _request(self, method: str, host: str, path: str, **content: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON
        url = f"http://{self._emulator}/{host}/{path}" if self._emulator else f"https://{host}/{path}"
        subject = f"{host.removesuffix('.googleapis.com')} {path.rpartition('/')[2]}"
        try:
            response = self._connected().request(method, url, timeout=TIMEOUT_S, **content)
        except RequestException as error:
            raise TransientCloudError(f"{subject}: was not answered, {error}; try again") from error
        except GoogleAuthError as error:
            raise MachineError(
                f"Google Cloud: the credentials are not accepted, {error}; run `gcloud auth application-default login`"
            ) from error
        status = response.status_code
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            raise TransientCloudError(f"{subject}: was not answered, {status}; try again")
        if not response.ok:
            raise RefusedError(subject, status, _words_of(response.text))
        with contextlib.suppress(ValueError):
            if isinstance(answer := response.json(), dict):
                return answer
        raise TransientCloudError(f"{subject}: was not answered by JSON, so not by Google; see what is in between")

    def _connected(self) -> Session:
        if self._session is None:
            try:
                credentials, _ = google.auth.default(scopes=[SCOPE])
            except DefaultCredentialsError as error:
                why = "there are no credentials on this machine; run `gcloud auth application-default login`"
                raise MachineError(f"Google Cloud: {why}") from error
            self._session = AuthorizedSession(credentials)
        return self._session


def _words_of(text: str) -> str:
    """Return the message of an error's body, on one line."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text)["error"]["message"])
    return " ".join(text.split())

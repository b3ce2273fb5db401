"""Log lines of a Batch job from Cloud Logging, in the order of their time.

Knows nothing of runs. Uses google-auth's session, as the client library would bring a second stack of gRPC packages for
this one call.
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import google.auth
from google.auth.exceptions import DefaultCredentialsError
from google.auth.transport.requests import AuthorizedSession
from requests.exceptions import RequestException

from job.errors import CloudError, MachineError, TransientCloudError

ENDPOINT = "https://logging.googleapis.com/v2/entries:list"
SCOPE = "https://www.googleapis.com/auth/logging.read"
PAGE_SIZE = 1000
TIMEOUT_S = 60

Query = dict[str, str | int | list[str]]


def read_lines(project: str, uid: str) -> Iterator[str]:
    """Yield the log lines of a job's container with their time, oldest first; raises `CloudError`."""
    try:
        credentials, _ = google.auth.default(scopes=[SCOPE])
    except DefaultCredentialsError as error:
        raise MachineError(
            "Cloud Logging: there are no credentials on this machine; run `gcloud auth application-default login`"
        ) from error
    session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]  # google-auth has no types
    body: Query = {
        "resourceNames": [f"projects/{project}"],
        "filter": f'logName="projects/{project}/logs/batch_task_logs" AND labels.job_uid="{uid}"',
        "orderBy": "timestamp asc",
        "pageSize": PAGE_SIZE,
    }
    while True:
        page = _post(session, body, project)
        for entry in page.get("entries", []):
            payload = entry.get("jsonPayload") or {}  # the job's own lines are JSON with the key `message`
            text = str(entry.get("textPayload") or payload.get("message") or payload)
            yield f"{entry['timestamp'][:19]}Z  {text.rstrip()}"
        if not page.get("nextPageToken"):
            return
        body["pageToken"] = page["nextPageToken"]


def _post(session: AuthorizedSession, body: Query, project: str) -> dict[str, Any]:
    try:
        response = session.post(ENDPOINT, json=body, timeout=TIMEOUT_S)
    except RequestException as error:
        raise TransientCloudError(f"logs of {project}: were not answered, {error}; try again") from error
    if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise TransientCloudError(f"logs of {project}: were not answered, {response.status_code}; try again")
    if not response.ok:
        raise CloudError(
            f"logs of {project}: cannot be read, {response.status_code} {response.text.strip()}; this account needs "
            "roles/logging.viewer"
        )
    return dict(response.json())

"""Log lines of a Batch job from Cloud Logging, in the order of their time.

Knows nothing of runs. Uses google-auth's session, as the client library would bring a second stack of gRPC packages for
this one call.
"""

from collections.abc import Iterator

from job.cloud.google_api import GoogleApi

PAGE_SIZE = 1000

Query = dict[str, str | int | list[str]]


def read_lines(project: str, uid: str) -> Iterator[str]:
    """Yield the log lines of a job's container with their time, oldest first; raises `CloudError`."""
    api = GoogleApi()
    body: Query = {
        "resourceNames": [f"projects/{project}"],
        "filter": f'logName="projects/{project}/logs/batch_task_logs" AND labels.job_uid="{uid}"',
        "orderBy": "timestamp asc",
        "pageSize": PAGE_SIZE,
    }
    while True:
        page = api.post("logging.googleapis.com", "v2/entries:list", body)
        for entry in page.get("entries", []):
            payload = entry.get("jsonPayload") or {}  # the job's own lines are JSON with the key `message`
            text = str(entry.get("textPayload") or payload.get("message") or payload)
            yield f"{entry['timestamp'][:19]}Z  {text.rstrip()}"
        if not page.get("nextPageToken"):
            return
        body["pageToken"] = page["nextPageToken"]

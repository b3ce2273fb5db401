"""Schedule: the Cloud Scheduler job that starts a supervisor every few minutes, paused at the end of supervision.

A schedule that cannot be paused is one warning: it starts the supervisor again, which tries again.
"""

import logging

from job.cloud.google_api import GoogleApi
from job.errors import CloudError, MachineError

log = logging.getLogger(__name__)

HOST = "cloudscheduler.googleapis.com"


def pause(name: str | None) -> None:
    """Pause a schedule, ``projects/P/locations/R/jobs/NAME``, if there is one."""
    if name is None:
        return
    try:
        GoogleApi().post(HOST, f"v1/{name}:pause", {})
    except (CloudError, MachineError) as error:
        log.warning("%s; the schedule is not paused, `make supervise-down` ends it", error)
    else:
        log.info("schedule %s: paused, supervision has ended", name.rpartition("/")[2])

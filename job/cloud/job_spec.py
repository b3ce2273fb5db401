"""Cloud Batch's job specification of a submission: values in, values out.

Guarantees retries after preemption, an image by digest, a secret by reference, no external address and kept logs. Knows
nothing of Batch's client; a test has Batch's message types parse the result.
"""

import re

from job.cloud.budget import usd_per_hour
from job.cloud.machine_types import Provisioning, machines
from job.cloud.prices import USD_PER_HOUR
from job.cloud.settings import path_of
from job.cloud.submission import Submission
from job.errors import FATAL_HERE, TIME_LIMIT

FAILS_THE_TASK = sorted([*FATAL_HERE, TIME_LIMIT])
"""Exit codes that Batch does not retry: fatal ones, one that needs another machine, and a hang."""

BOOT_IMAGE = "batch-cos"
"""Batch's default for containers, named explicitly; its driver suits the image's CUDA 12. The settings may name an
image of `make boot-image`, which is made from the same system.
"""

BOOT_DISK_GB = 100
STOP_TIMEOUT_S = 29
"""Stop timeout of the container, within the 30 seconds that a Spot machine has left; a process that leaves at its
deadline, 25 s after SIGTERM, still has to say and record that.
"""

MEMORY_PART = 7 / 8
"""Container's share of the memory; the rest is for the operating system and Batch's agent."""

SHARED_MEMORY_PART = 3 / 8
"""Share of the memory for loaders, which pass images in shared memory; Docker's default is 64 MB."""


PROVISIONING: dict[Provisioning, dict[str, str]] = {
    Provisioning.SPOT: {"provisioningModel": "SPOT"},
    Provisioning.FLEX_START: {"provisioningModel": "FLEX_START", "reservation": "NO_RESERVATION"},
    Provisioning.ON_DEMAND: {"provisioningModel": "STANDARD"},
}
"""Fields of the instance policy; a flex-start machine cannot be one of a reservation."""


def render(submission: Submission) -> dict[str, object]:
    """Return the job's specification in the JSON form of ``batch_v1.Job``."""
    settings, placement, machine = submission.settings, submission.placement, machines()[submission.placement.machine]
    run = re.sub(r"[^a-z0-9_-]", "-", submission.run.lower())[:63]  # the characters and the length of a label
    labels = {"app": "yolo-train", "run": run, "segment": f"{submission.number:04d}"}
    container = {
        "imageUri": settings.image,
        "commands": submission.words,  # after the image's entry point, without a shell
        "options": f"--shm-size={int(machine.memory_gib * SHARED_MEMORY_PART)}g --stop-timeout={STOP_TIMEOUT_S}",
    }
    task = {
        "runnables": [{"displayName": "train", "container": container}],
        "environment": _environment(submission, machine.type),
        "computeResource": {
            "cpuMilli": str(machine.vcpus * 1000),
            "memoryMib": str(int(machine.memory_gib * MEMORY_PART * 1024)),
        },
        "maxRetryCount": submission.max_retries,
        "maxRunDuration": f"{submission.max_run_s}s",
        # One policy: these codes fail at once, and every other one is retried. A list of codes to retry would miss
        # those of a preempted container that loses the race with its machine.
        "lifecyclePolicies": [{"action": "FAIL_TASK", "actionCondition": {"exitCodes": FAILS_THE_TASK}}],
    }
    instance = {
        # Beside the policy: inside it the field is ignored.
        "installGpuDrivers": True,
        "blockProjectSshKeys": True,
        "policy": {
            "machineType": machine.type,
            **PROVISIONING[placement.provisioning],
            "accelerators": [{"type": machine.gpu, "count": str(machine.gpus)}],
            "bootDisk": {
                "image": path_of(settings.boot_image) or BOOT_IMAGE,
                "type": machine.boot_disk,
                "sizeGb": str(BOOT_DISK_GB),
            },
        },
    }
    network = {
        "network": path_of(settings.network),
        "subnetwork": path_of(settings.subnetworks[placement.region]),
        "noExternalIpAddress": True,
    }
    return {
        "labels": labels | {"digest": submission.digest[:40]},
        "taskGroups": [{"taskCount": "1", "parallelism": "1", "taskCountPerNode": "1", "taskSpec": task}],
        "allocationPolicy": {
            # The region that the job is in, any of its zones: Batch takes no other.
            "location": {"allowedLocations": [f"regions/{placement.region}"]},
            "labels": labels,
            "serviceAccount": {"email": settings.service_account},
            "instances": [instance],
            "network": {"networkInterfaces": [network]},
        },
        "logsPolicy": {"destination": "CLOUD_LOGGING"},
    }


def _environment(submission: Submission, machine_type: str) -> dict[str, object]:
    """Return the variables of a container; a secret is named, and read on the machine."""
    settings, provisioning = submission.settings, submission.placement.provisioning
    variables = {"JOB_CLOUD_JOB": submission.job_id, "PYTHONUNBUFFERED": "1"}
    price = settings.prices.get(machine_type, {}).get(provisioning)
    if provisioning is Provisioning.FLEX_START:  # on the machine it looks like on demand
        price = usd_per_hour(settings.prices, machine_type, provisioning)
    if price is not None:  # else the job looks its machine up
        variables[USD_PER_HOUR] = f"{price:g}"
    if settings.wandb_secret is None:
        return {"variables": variables}
    return {"variables": variables, "secretVariables": {"WANDB_API_KEY": settings.wandb_secret}}

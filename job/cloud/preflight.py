"""Preflight: whether a project can take a submission, asked before anything is made.

Guarantees that nothing is made, changed or paid for. A question that is refused, or not answered while others are, is a
warning, and facts that only a running machine shows are listed as open.
"""

from collections.abc import Callable, Iterator

from job.cloud.capacity_checks import check_other_places, check_quota, check_zones
from job.cloud.findings import Finding
from job.cloud.google_api import GoogleApi, RefusedError
from job.cloud.project_checks import (
    Asked,
    check_apis,
    check_boot_image,
    check_content,
    check_image,
    check_network,
    check_price,
    check_regions,
    open_questions,
)
from job.cloud.rights_checks import check_own_rights, check_runtime_rights, check_secret
from job.errors import TransientCloudError
from job.runs.records import InitialWeights
from job.storage.object_store import Store

CHECKS: dict[str, Callable[[GoogleApi, Asked], Iterator[Finding]]] = {
    "APIs": check_apis,
    "GPU quota": check_quota,
    "zones": check_zones,
    "other places": check_other_places,
    "image": check_image,
    "boot image": check_boot_image,
    "regions": check_regions,
    "network": check_network,
    "own rights": check_own_rights,
    "training": check_runtime_rights,
    "secret": check_secret,
}
"""Checks by the subject of a refusal."""


def examine_project(asked: Asked, store: Store, dataset: str | None, start: InitialWeights | None) -> list[Finding]:
    """Check project and bucket for a submission of a dataset, from start weights if they are known.

    Raises `TransientCloudError` if no question is answered, `MachineError` without credentials.
    """
    api, findings, unanswered = GoogleApi(), list[Finding](), list[TransientCloudError]()
    for subject, check in CHECKS.items():
        try:
            findings += check(api, asked)
        except RefusedError as error:
            findings.append(Finding(subject, "warn", f"cannot be checked, {error}"))
        except TransientCloudError as error:
            unanswered.append(error)
            findings.append(Finding(subject, "warn", f"cannot be checked, {error}"))
    if unanswered and len(unanswered) == len(findings):
        raise unanswered[0]
    return [*findings, *check_content(store, dataset, start), *check_price(asked), *open_questions(asked)]

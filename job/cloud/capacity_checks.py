"""Checks of capacity before a submission: GPU quotas and zones, of the first place and of those a run may move to.

Guarantees that nothing is made, changed or paid for. A check raises `RefusedError` if this account may not make it.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from job.cloud.findings import Finding
from job.cloud.google_api import GoogleApi
from job.cloud.machine_types import Machine, Provisioning, machines
from job.cloud.project_checks import COMPUTE, Asked


def check_quota(api: GoogleApi, asked: Asked) -> Iterator[Finding]:
    """Check the GPU quotas of the project, and of the region by the kind of provisioning, against the machine."""
    machine, region = asked.machine, asked.settings.region
    everywhere = _free(api.get(COMPUTE, _project(asked)))
    yield _quota(asked, "all regions", ["GPUS_ALL_REGIONS"], everywhere)
    here = _free(api.get(COMPUTE, f"{_project(asked)}/regions/{region}"))
    yield _quota(asked, region, _metrics(machine, asked.provisioning), here)
    if asked.provisioning is not Provisioning.ON_DEMAND and Provisioning.ON_DEMAND in machine.provisioning:
        yield _quota_on_demand(asked, here)


def _quota_on_demand(asked: Asked, here: dict[str, tuple[float, float]]) -> Finding:
    """Tell the region's quota of on demand, which a run needs only if it has a deadline."""
    finding = _quota(asked, asked.settings.region, [asked.machine.quota], here)
    if finding.grade != "fail":
        return finding
    found = f"{finding.found.partition(';')[0]} on demand"
    if asked.has_deadline:
        return replace(finding, grade="warn", found=f"{found}, where a run that is late would wait; ask for more")
    return Finding("GPU quota", "ok", f"{found}, to which only a --deadline leads")


def check_other_places(api: GoogleApi, asked: Asked) -> Iterator[Finding]:
    """Check quota and zones of the places that the run may move to: what is lacking there is a warning."""
    quotas: dict[str, dict[str, tuple[float, float]]] = {}
    zones: dict[str, set[str]] = {}
    for place in asked.other_places:
        machine, region = machines()[place.machine], place.region
        if region not in quotas:
            quotas[region] = _free(api.get(COMPUTE, f"{_project(asked)}/regions/{region}"))
        if machine.type not in zones:
            zones[machine.type] = _zones_of(api, asked, machine)
        quota = _quota(asked, region, _metrics(machine, place.provisioning), quotas[region])
        here = any(zone.startswith(f"{region}-") for zone in zones[machine.type])
        if here and quota.grade != "fail":
            yield replace(quota, subject="other places", found=f"{place}; {quota.found}")
            continue
        lack = quota.found if here else f"no zone of {region} has {machine.type} with {machine.gpu}"
        found = f"{place}: a run that moves there waits in vain, {lack}"
        remedy = quota.remedy if here else "leave the machine out of --machine, or the region out of other_regions"
        yield Finding("other places", "warn", found, remedy)


def _project(asked: Asked) -> str:
    return f"compute/v1/projects/{asked.settings.project}"


def _metrics(machine: Machine, provisioning: Provisioning) -> list[str]:
    """Return the quotas that a machine counts against: the first, or where it is 0 the second."""
    if provisioning is Provisioning.ON_DEMAND:
        return [machine.quota]
    return [f"PREEMPTIBLE_{machine.quota}", machine.quota]


def _free(resource: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return limit and usage by metric; a negative limit is none."""
    quotas = {
        quota["metric"]: (quota.get("limit", 0.0), quota.get("usage", 0.0)) for quota in resource.get("quotas", [])
    }
    return {metric: (limit if limit >= 0 else math.inf, used) for metric, (limit, used) in quotas.items()}


def _quota(asked: Asked, where: str, metrics: list[str], known: dict[str, tuple[float, float]]) -> Finding:
    """Judge the quota of a place by the first metric, or by a later one if that suffices instead.

    Spot and flex-start count against a quota of their own, or where there is none against that of on demand. A quota
    that suffices and is in use is waited for. Machines of one run have the same number of GPUs.
    """
    needed, project = asked.machine.gpus, asked.settings.project
    remedy = f"https://console.cloud.google.com/iam-admin/quotas?project={project}"
    if metrics[0] not in known:
        return Finding("GPU quota", "warn", f"{metrics[0]} is not listed in {where}, so it is not known here", remedy)
    for number, metric in enumerate(metrics):
        limit, used = known.get(metric, (0.0, 0.0))
        if limit - used >= needed and (number == 0 or known[metrics[0]][0] == 0):
            return Finding("GPU quota", "ok", f"{where}: {metric} is {limit:g}, {used:g} in use, {needed} needed")
    limit, used = known[metrics[0]]
    found = f"{where}: {metrics[0]} is {limit:g}, {used:g} in use, {needed} needed"
    if limit >= needed:
        return Finding("GPU quota", "warn", f"{found}; it waits until they are free", remedy)
    return Finding("GPU quota", "fail", f"{found}; ask for more", remedy)


def check_zones(api: GoogleApi, asked: Asked) -> Iterator[Finding]:
    """Check that a zone of the region has machine type and GPU."""
    machine, region = asked.machine, asked.settings.region
    zones = _zones_of(api, asked, machine)
    here = sorted(zone for zone in zones if zone.startswith(f"{region}-"))
    if here:
        yield Finding("zones", "ok", f"{machine.type} with {machine.gpu} is in {', '.join(here)}")
    else:
        others = sorted({zone.rpartition("-")[0] for zone in zones})
        found = f"{machine.type} with {machine.gpu} is in no zone of {region}, but in {', '.join(others) or 'none'}"
        yield Finding("zones", "fail", found, "choose another --machine, or apply infra/ in another region")


def _zones_of(api: GoogleApi, asked: Asked, machine: Machine) -> set[str]:
    """Return the zones that have machine type and GPU."""
    types = _zones_with(api, asked, "machineTypes", machine.type)
    return types & _zones_with(api, asked, "acceleratorTypes", machine.gpu)


def _zones_with(api: GoogleApi, asked: Asked, kind: str, name: str) -> set[str]:
    """Return the zones that have a resource of a name."""
    zones: set[str] = set()
    query = {"filter": f'name="{name}"', "returnPartialSuccess": "true"}
    while True:
        page = api.get(COMPUTE, f"{_project(asked)}/aggregated/{kind}", **query)
        zones |= {scope.removeprefix("zones/") for scope, held in page.get("items", {}).items() if held.get(kind)}
        if not page.get("nextPageToken"):
            return zones
        query["pageToken"] = page["nextPageToken"]

"""Checks of permissions before a submission: those of this account, and those of the account that trains.

This account's are tested by the APIs. Those of the training account are read from the policies of the project and of
each resource: one that it may have through a group, under a condition or as an editor is a warning, and one from above
the project is not seen. A check raises `RefusedError` if this account may not make it.
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from job.cloud.findings import Finding
from job.cloud.google_api import GoogleApi, RefusedError
from job.cloud.project_checks import REGISTRY, STORAGE, Asked
from job.runs.run import SUBMISSIONS

PROJECTS = "cloudresourcemanager.googleapis.com"
IDENTITIES = "iam.googleapis.com"
SECRETS = "secretmanager.googleapis.com"

OF_ROAD = {
    "batch": ["batch.jobs.create", "batch.jobs.get", "batch.tasks.get"],
    "vm": ["compute.instanceGroupManagers.get", "compute.instanceGroupManagers.update"],
}

OBJECTS = [f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list")]

IN_PROJECT = ("roles/batch.agentReporter", "roles/logging.logWriter")
"""Roles of the training account in the project: or Batch never learns that its machine is there, and logs are lost."""


def check_own_rights(api: GoogleApi, asked: Asked) -> Iterator[Finding]:
    """Check that this account may make the job, act as the training account, and write to the bucket."""
    project, account = asked.settings.project, asked.settings.service_account
    wanted = OF_ROAD[asked.road]
    held = api.post(PROJECTS, f"v1/projects/{project}:testIamPermissions", {"permissions": wanted})
    lacking = _lacking(wanted, held)
    role = "roles/batch.jobsEditor" if asked.road == "batch" else "roles/compute.instanceAdmin.v1"
    yield _right("project", project, lacking, f"gcloud projects add-iam-policy-binding {project} --role {role}")
    if asked.road == "batch":
        yield _act_as(api, project, account)
    answer = api.get(STORAGE, f"storage/v1/b/{asked.bucket}/iam/testPermissions", permissions=OBJECTS)
    remedy = f"gcloud storage buckets add-iam-policy-binding gs://{asked.bucket} --role roles/storage.objectUser"
    yield _right("bucket", f"gs://{asked.bucket}", _lacking(OBJECTS, answer), remedy)


def _act_as(api: GoogleApi, project: str, account: str) -> Finding:
    wanted, domain = ["iam.serviceAccounts.actAs"], ".iam.gserviceaccount.com"
    if account.endswith(domain):
        project = account.partition("@")[2].removesuffix(domain)
    # By its project: with the wildcard `-` an account that does not exist is answered 403, as one that is not shown.
    path = f"v1/projects/{project}/serviceAccounts/{account}:testIamPermissions"
    try:
        lacking = _lacking(wanted, api.post(IDENTITIES, path, {"permissions": wanted}))
    except RefusedError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return Finding("act-as", "fail", f"{account} does not exist", "make infra-apply")
    remedy = f"gcloud iam service-accounts add-iam-policy-binding {account} --role roles/iam.serviceAccountUser"
    return _right("act-as", account, lacking, f"{remedy} --project {project}")


BUCKET_ROLES = ("roles/storage.objectUser", "roles/storage.objectAdmin", "roles/storage.admin")
REGISTRY_ROLES = tuple(f"roles/artifactregistry.{name}" for name in ("reader", "writer", "repoAdmin", "admin"))
SECRET_ROLES = ("roles/secretmanager.secretAccessor", "roles/secretmanager.admin")

OBEYED = (f"/runs/{{run}}/{SUBMISSIONS}", "/campaigns/{campaign}/")
"""Keys of records that a person's machine obeys, as templates of IAM's ``extract``."""

WRITES_NO_COMMAND = " && ".join(f'resource.name.extract("{key}") == ""' for key in OBEYED)
"""Condition under which the training account writes to the bucket by infra/identities.tf; no training needs more."""

WITH_CONDITIONS = {"options.requestedPolicyVersion": 3}
"""Query for a policy that names its conditions: older versions rename their roles."""

SEVERAL = ("group:", "domain:", "principalSet:", "all")
"""Beginnings of members that may include an account."""


def check_runtime_rights(api: GoogleApi, asked: Asked) -> Iterator[Finding]:
    """Check that the account that trains may report, use the bucket, pull the image and read the key."""
    project, account = asked.settings.project, asked.settings.service_account
    of_project = api.post(PROJECTS, f"v1/projects/{project}:getIamPolicy", {"options": {"requestedPolicyVersion": 3}})
    for role in IN_PROJECT if asked.road == "batch" else IN_PROJECT[1:]:
        yield _role(account, project, f"gcloud projects add-iam-policy-binding {project}", (role,), of_project)
    bucket = f"gs://{asked.bucket}"
    of_bucket = api.get(STORAGE, f"storage/v1/b/{asked.bucket}/iam", optionsRequestedPolicyVersion=3)
    add = f"gcloud storage buckets add-iam-policy-binding {bucket}"
    yield _role(account, bucket, add, BUCKET_ROLES, of_project, of_bucket)
    if image := asked.image:
        path = "projects/{project}/locations/{location}/repositories/{repository}".format_map(image.groupdict())
        add = f"gcloud artifacts repositories add-iam-policy-binding {path}"
        policy = api.get(REGISTRY, f"v1/{path}:getIamPolicy", **WITH_CONDITIONS)
        yield _role(account, f"the registry {image['repository']}", add, REGISTRY_ROLES, of_project, policy)
    if secret := asked.settings.wandb_secret:
        path = secret.partition("/versions/")[0]
        name = path.rpartition("/")[2]
        add = f"gcloud secrets add-iam-policy-binding {name} --project {project}"
        policy = api.get(SECRETS, f"v1/{path}:getIamPolicy", **WITH_CONDITIONS)
        yield _role(account, f"the secret {name}", add, SECRET_ROLES, of_project, policy)


def check_secret(api: GoogleApi, asked: Asked) -> Iterator[Finding]:
    """Check that the version of the W&B key exists and is enabled."""
    secret = asked.settings.wandb_secret
    if secret is None:
        return
    name = secret.partition("/secrets/")[2]
    remedy = "raise wandb_key_version, then make infra-apply"
    try:
        state = api.get(SECRETS, f"v1/{secret}").get("state")
    except RefusedError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        yield Finding("secret", "fail", f"{name} does not exist", remedy)
        return
    if state == "ENABLED":
        yield Finding("secret", "ok", f"{name} is enabled")
    else:
        yield Finding("secret", "fail", f"{name} is {str(state).lower()}", remedy)


def _lacking(wanted: list[str], held: dict[str, Any]) -> list[str]:
    return [permission for permission in wanted if permission not in held.get("permissions", [])]


def _right(subject: str, where: str, lacking: list[str], remedy: str) -> Finding:
    if not lacking:
        return Finding(subject, "ok", f"this account has its rights on {where}")
    found = f"this account lacks {', '.join(lacking)} on {where}"
    return Finding(subject, "fail", found, f"{remedy} --member user:YOU")


def _holds(binding: dict[str, Any]) -> bool:
    """Whether a binding has no condition, or one that training meets."""
    condition = binding.get("condition")
    return not condition or condition.get("expression") == WRITES_NO_COMMAND


def _role(account: str, where: str, add: str, wanted: tuple[str, ...], *policies: dict[str, Any]) -> Finding:
    """Judge whether a policy gives an account one of the roles by its own name; `add` is the command that does."""
    member = f"serviceAccount:{account}"
    bindings = [binding for policy in policies for binding in policy.get("bindings", [])]
    own = [binding for binding in bindings if member in binding.get("members", [])]
    if found := {binding["role"] for binding in own if _holds(binding)} & {*wanted, "roles/owner"}:
        return Finding("training", "ok", f"{account} has {min(found)} on {where}")
    remedy = f"{add} --member {member} --role {wanted[0]}"
    may = [*own, *(each for each in bindings if any(name.startswith(SEVERAL) for name in each.get("members", [])))]
    if {binding["role"] for binding in may} & {*wanted, "roles/owner", "roles/editor"}:
        how = "if a group, a condition or the role of an editor lets it"
        return Finding("training", "warn", f"{account} may train on {where} only {how}", remedy)
    return Finding("training", "fail", f"{account} has no role on {where} that lets it train", remedy)

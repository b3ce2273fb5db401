"""``job doctor``: checks whether this machine, or with ``--cloud`` the project, can train."""

from collections.abc import Sequence
from dataclasses import asdict

from pydantic import Field

from job.cli.command import command
from job.cli.options import MACHINE_HELP, CloudOptions, DeviceOption, JsonOption, ProvisioningOptions
from job.cloud.findings import Finding, is_fit, require_fitness
from job.cloud.machine_types import Machine, Provisioning, find_machines
from job.cloud.settings import WITHOUT_IMAGE, Settings, load_settings
from job.errors import UsageError
from job.recipes.recipe import Profile, load_recipe
from job.runs.lineage import find_start
from job.runs.records import InitialWeights
from job.runs.request import TrainRequest, WorkersOption
from job.storage.object_store import Store
from job.storage.open_store import open_store

UNREADY = "cloud: nothing was made, as the project is not ready"


class DoctorOptions(ProvisioningOptions, CloudOptions, DeviceOption, WorkersOption, JsonOption):
    """Flags of ``job doctor``."""

    bucket: str | None = Field(
        None, description="gs://BUCKET/PREFIX or a folder; JOB_BUCKET if left out; without one it is not checked."
    )
    recipe: str | None = Field(
        None,
        description="Check memory of GPU and machine, or start weights, for it too; --exact takes A if left out.",
    )
    profile: Profile | None = Field(
        None, description="full or demo. If left out: full, or demo for --exact where no GPU's driver is."
    )
    exact: bool = Field(
        default=False,
        description="Train a few steps of the recipe twice, the second time with a kill, and compare every bit.",
    )
    device: str = Field("", description="cpu, or the number of a GPU, for --exact; chosen if left out.")
    cloud: bool = Field(default=False, description="Check the project instead of this machine, before `job submit`.")
    vm: bool = Field(default=False, description="Check the project for the Spot VM of `make vm-up` instead.")
    machine: str = Field("l4", description=MACHINE_HELP)
    dataset: str | None = Field(None, description="The dataset in the bucket; the only one if left out.")


@command(DoctorOptions, "job doctor --recipe A --exact --bucket gs://my-bucket")
def doctor(options: DoctorOptions) -> None:
    """Print one line for each check.

    With --exact a few steps of training prove that this machine resumes a killed training exactly: kernels are
    deterministic, and weights, EMA and optimizer are equal in every bit. Exit code 78 says that a check failed.
    """
    if options.cloud or options.vm:
        if options.exact:
            raise UsageError("--exact: is of this machine, --cloud and --vm are of the project; pass one of them")
        _examine_cloud(options)
        return
    from job.session.doctor import DRIVER, examine

    name = options.recipe or ("A" if options.exact else None)
    profile: Profile = options.profile or ("full" if DRIVER.exists() or not options.exact else "demo")
    recipe = load_recipe(name, profile) if name else None
    if options.exact and recipe is not None:
        recipe.require_exact()
    store = open_store(options.location) if options.location else None
    findings = examine(options.workdir, recipe, store, options.workers)
    if options.exact and recipe is not None and is_fit(findings):
        from job.session.exactness_check import check_exactness

        findings += check_exactness(recipe, options.workdir, options.device, options.workers)
    _print(options, findings)


def examine_cloud(
    settings: Settings,
    machines: Sequence[Machine],
    store: Store,
    dataset: str | None,
    start: InitialWeights | None,
    *,
    provisioning: Provisioning,
    has_deadline: bool = False,
    on_batch: bool = True,
) -> list[Finding]:
    """Check the project for a submission, with acceptable machines, best first."""
    from job.cloud.preflight import examine_project
    from job.cloud.project_checks import Asked

    if not store.uri.startswith("gs://"):
        raise UsageError(f"bucket {store.uri}: is on this machine, where the cloud cannot reach it; pass gs://BUCKET")
    asked = Asked(
        settings=settings,
        machines=tuple(machines),
        provisioning=provisioning,
        has_deadline=has_deadline,
        bucket=store.uri.removeprefix("gs://").partition("/")[0],
        road="batch" if on_batch else "vm",
    )
    return examine_project(asked, store, dataset, start)


def _examine_cloud(options: DoctorOptions) -> None:
    settings = load_settings(options.settings, WITHOUT_IMAGE)
    machines = find_machines(options.machine)
    store = options.store()
    dataset, start = options.dataset, None
    if options.recipe is not None:
        request = TrainRequest.parse(
            {"recipe": options.recipe, "profile": options.profile or "full", "dataset": dataset}
        )
        start = find_start(store, request, None)
    options.require_offered(machines)
    findings = examine_cloud(
        settings, machines, store, dataset, start, provisioning=options.provisioning, on_batch=not options.vm
    )
    _print(options, findings, UNREADY)


def _print(options: DoctorOptions, findings: Sequence[Finding], *unfit: str) -> None:
    options.print([asdict(finding) for finding in findings], map(str, findings))
    require_fitness(findings, *unfit)

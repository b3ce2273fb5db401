"""``job doctor``: checks whether this machine can train."""

from dataclasses import asdict

from pydantic import Field

from job.cli.command import command
from job.cli.options import BucketOption, DeviceOption, JsonOption
from job.recipes.recipe import Profile, load_recipe
from job.runs.flags import WorkdirOption
from job.runs.request import WorkersOption
from job.session.doctor import DRIVER, examine, is_fit, require_fitness
from job.storage.open_store import open_store


class DoctorOptions(BucketOption, WorkdirOption, WorkersOption, DeviceOption, JsonOption):
    """Flags of ``job doctor``."""

    bucket: str | None = Field(
        None, description="gs://BUCKET/PREFIX or a folder; JOB_BUCKET if left out; without one it is not checked."
    )
    recipe: str | None = Field(
        None, description="Check memory of GPU and machine for this recipe too; --exact takes A if left out."
    )
    profile: Profile | None = Field(
        None, description="full or demo. If left out: full, or demo for --exact where no GPU's driver is."
    )
    exact: bool = Field(
        default=False,
        description="Train a few steps of the recipe twice, the second time with a kill, and compare every bit.",
    )
    device: str = Field("", description="cpu, or the number of a GPU, for --exact; chosen if left out.")


@command(DoctorOptions, "job doctor --recipe A --exact --bucket gs://my-bucket")
def doctor(options: DoctorOptions) -> None:
    """Print one line for each check.

    With --exact a few steps of training prove that this machine resumes a killed training exactly: kernels are
    deterministic, and weights, EMA and optimizer are equal in every bit. Exit code 78 says that a check failed.
    """
    name = options.recipe or ("A" if options.exact else None)
    profile: Profile = options.profile or ("full" if DRIVER.exists() or not options.exact else "demo")
    recipe = load_recipe(name, profile) if name else None
    store = open_store(options.location) if options.location else None
    findings = examine(options.workdir, recipe, store, options.workers)
    if options.exact and recipe is not None and is_fit(findings):
        from job.session.exactness_check import check_exactness

        findings += check_exactness(recipe, options.workdir, options.device, options.workers)
    options.print([asdict(finding) for finding in findings], map(str, findings))
    require_fitness(findings)

"""Allowance: the limits of this machine's settings for recorded submissions.

Every writer of the bucket, the training container among them, can write a submission. Guarantees that no job is looked
up, cancelled or read outside of the settings' project and regions, and that none is made with another account, network,
image repository or secret than theirs, or beyond their limit. Knows neither bucket nor Batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from job.cloud.budget import Limit, Prices, require_price, usd_per_hour
from job.cloud.machine_types import machines
from job.cloud.settings import IMAGE, NAMES, checked_settings
from job.cloud.submission import MAX_RETRIES, MAX_RUN_S, Submission
from job.errors import RunConflictError, UsageError
from job.text import nearest

FLAGS = [*NAMES, "image_repository"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Limits of a recorded submission."""

    project: str
    subnetworks: Mapping[str, str | None]
    """Subnetworks by region, the main region first."""

    image_repositories: tuple[str, ...]
    service_account: str | None
    network: str | None
    wandb_secret: str | None
    prices: Prices
    max_usd: float
    max_hours: float
    """Machine hours of a run, if a price is not known."""

    given: Limit | None = None
    """Limit of the command line; replaces the limits above and the recorded one."""

    def limit(self, machine_types: list[str], *, spot: bool) -> Limit:
        """Return the limit of a new run: dollars if each of its machines has a price, else hours.

        Raises:
            UsageError: If dollars were given, and a machine has no price.
        """
        if self.given is not None:
            if self.given.usd is not None:
                for type_ in machine_types:
                    require_price(self.prices, type_, spot=spot)
            return self.given
        known = all(usd_per_hour(self.prices, type_, spot=spot) is not None for type_ in machine_types)
        return Limit(usd=self.max_usd) if known else Limit(hours=self.max_hours)

    def limit_of(self, submission: Submission) -> Limit:
        """Return the limit of a recorded run: the command line's, or else one in dollars or hours as `limit` has it.

        Its unit follows the prices of this machine's settings, as a recorded price could be far too low; its amount
        follows the record.
        """
        if self.given is not None:
            return self.given
        types, spot = {*submission.machines, submission.placement.machine}, submission.placement.spot
        if all(type_ in machines() and usd_per_hour(self.prices, type_, spot=spot) is not None for type_ in types):
            return Limit(usd=self.max_usd if submission.max_usd is None else submission.max_usd)
        return Limit(hours=self.max_hours if submission.max_hours is None else submission.max_hours)

    def require_place(self, submission: Submission) -> None:
        """Check that a recorded submission's job is in the project and regions of the settings.

        Raises:
            RunConflictError: If it is not; names every difference.
        """
        _refuse(submission, self._problems_of_place(submission))

    def require(self, submission: Submission) -> None:
        """Check that a recorded submission asks for nothing that the settings do not allow.

        Raises:
            RunConflictError: If it does; names every difference.
            UsageError: If dollars were given, and its machine has no price.
        """
        settings = submission.settings
        problems = self._problems_of_place(submission)
        problems += _differences("service_account", settings.service_account, self.service_account)
        problems += _differences("network", _path(settings.network), _path(self.network))
        problems += _differences("wandb_secret", _secret(settings.wandb_secret), _secret(self.wandb_secret))
        for region, subnetwork in {settings.region: settings.subnetwork, **settings.other_regions}.items():
            if region in self.subnetworks:
                name = f"subnetwork of {region}"
                problems += _differences(name, _path(subnetwork), _path(self.subnetworks[region]))
        fits = any(settings.image.startswith(f"{repository}/") for repository in self.image_repositories)
        if not fits or not IMAGE.fullmatch(settings.image):
            here = " or ".join(self.image_repositories) or "none"
            problems.append(
                f"image: the record has {settings.image!r}, the settings here take images of {here}, by digest"
            )
        if submission.words[:1] != ["train"] or submission.words[-2:] != [
            f"--bucket={submission.bucket}",
            f"--run={submission.run}",
        ]:
            problems.append(f"words: the record has {' '.join(submission.words)!r}, which do not train this run")
        unknown = [type_ for type_ in [submission.placement.machine, *submission.machines] if type_ not in machines()]
        problems += [f"machine: the record has {type_!r}, which is not known here" for type_ in unknown]
        if submission.max_retries > MAX_RETRIES or submission.max_run_s > MAX_RUN_S:
            problems.append(
                f"durations: the record has {submission.max_retries} retries of {submission.max_run_s} s, at most "
                f"{MAX_RETRIES} of {MAX_RUN_S} s are made"
            )
        problems += self._problems_of_limit(Limit(submission.max_usd, submission.max_hours))
        _refuse(submission, problems)
        self.limit([submission.placement.machine], spot=submission.placement.spot)

    def price(self, submission: Submission) -> float | None:
        """Return the dollars an hour of a submission's machine: the higher of the price on record and the one here."""
        placement = submission.placement
        here = usd_per_hour(self.prices, placement.machine, spot=placement.spot)
        known = [price for price in (submission.usd_per_hour, here) if price is not None]
        return max(known) if known else None

    def _problems_of_place(self, submission: Submission) -> list[str]:
        problems = _differences("project", submission.settings.project, self.project)
        regions = [submission.placement.region, submission.settings.region, *submission.settings.other_regions]
        here = " and ".join(self.subnetworks)
        return problems + [
            f"region: the record has {region!r}, the settings here have {here}"
            for region in dict.fromkeys(regions)
            if region not in self.subnetworks
        ]

    def _problems_of_limit(self, recorded: Limit) -> list[str]:
        fits = (recorded.usd or 0.0) <= self.max_usd and (recorded.hours or 0.0) <= self.max_hours
        if self.given is not None or fits:  # a submission without a limit has that of the settings
            return []
        usual = f"{Limit(usd=self.max_usd)}, or {Limit(hours=self.max_hours)} where a price is not known"
        return [
            f"limit: the record has {recorded}, the settings here have {usual}; --max-usd or --no-limit replace both"
        ]


def load_allowance(flags: Mapping[str, str | None], given: Limit | None = None) -> Allowance:
    """Return the allowance of the settings; a missing setting other than project and region allows none of its kind.

    Args:
        flags: Of the command line, by the names of settings.
        given: Limit of the command line.

    Raises:
        UsageError: If a flag is no setting.
        MachineError: If a setting is missing or malformed; lists every problem.
    """
    for name in flags:
        if name not in FLAGS:
            raise UsageError(f"--{name.replace('_', '-')}: there is no such flag{nearest(name, FLAGS)}")
    found = checked_settings(flags, required=("project", "region"))
    image = found["image"]
    repositories = (found["image_repository"], image and image.partition("@")[0].rpartition("/")[0])
    return Allowance(
        project=found["project"],
        subnetworks={found["region"]: found["subnetwork"], **found["other_regions"]},
        image_repositories=tuple(dict.fromkeys(repository for repository in repositories if repository)),
        service_account=found["service_account"],
        network=found["network"],
        wandb_secret=found["wandb_secret"],
        prices=found["prices"],
        max_usd=found["max_usd"],
        max_hours=found["max_hours"],
        given=given,
    )


def _differences(name: str, recorded: str | None, here: str | None) -> list[str]:
    if recorded is None or recorded == here:
        return []
    return [f"{name}: the record has {recorded!r}, the settings here have {here or 'none'}"]


def _refuse(submission: Submission, problems: list[str]) -> None:
    if problems:
        raise RunConflictError(
            f"run {submission.run}: submission {submission.number} as recorded in {submission.bucket} is not what this "
            "machine's settings allow; if the settings are wrong correct cloud.yaml or pass them, else find out who "
            "wrote the record, and submit under another --run",
            problems,
        )


def _path(name: str | None) -> str | None:
    """Return a resource's path without the address of an API, which Terraform's self links have."""
    return name and name[name.find("projects/") :]


def _secret(name: str | None) -> str | None:
    """Return a secret without its version: a key that was renewed is the same secret."""
    return name and name.partition("/versions/")[0]

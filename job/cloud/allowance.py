"""Allowance: the limits of this machine's settings for recorded submissions.

Every writer of the bucket can write a submission; the training container lacks the right. Guarantees that
no job is looked up, cancelled or read outside of the settings' project and regions, and that none is made with another
account, network, image repository or secret than theirs, or beyond their limit. Knows neither bucket nor Batch.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from job.cloud.budget import Limit, require_price, usd_per_hour
from job.cloud.machine_types import Provisioning, machines
from job.cloud.settings import IMAGE, LocalSettings, local_settings, path_of
from job.cloud.submission import MAX_RETRIES, MAX_RUN_S, Submission
from job.errors import RunConflictError
from job.text import counted


@dataclass(frozen=True, slots=True)
class Allowance:
    """Limits of a recorded submission."""

    settings: LocalSettings
    """Of this machine."""

    given: Limit | None = None
    """Limit of the command line; replaces those of the settings and the recorded one."""

    @property
    def image_repositories(self) -> tuple[str, ...]:
        """Repositories of images that may train."""
        image = self.settings.image
        named = (self.settings.image_repository, image and image.partition("@")[0].rpartition("/")[0])
        return tuple(dict.fromkeys(repository for repository in named if repository))

    def limit(self, machine_types: list[str], provisioning: Provisioning) -> Limit:
        """Return the limit of a new run: dollars if each of its machines has a price, else hours."""
        prices = self.settings.prices
        if self.given is not None:
            if self.given.usd is not None:
                for type_ in machine_types:
                    require_price(prices, type_, provisioning)
            return self.given
        known = all(usd_per_hour(prices, type_, provisioning) is not None for type_ in machine_types)
        return Limit(usd=self.settings.max_usd) if known else Limit(hours=self._hours(machine_types))

    def limit_of(self, submission: Submission) -> Limit:
        """Return the limit of a recorded run: the command line's, or else one in dollars or hours as `limit` has it.

        Its unit follows the prices of this machine's settings, as a recorded price could be far too low; its amount
        follows the record. Hours in place of recorded dollars are for display: `require` refuses such a record.
        """
        if self.given is not None:
            return self.given
        types = {*submission.machines, submission.placement.machine}
        if types <= machines().keys() and self.limit([*types], submission.placement.provisioning).usd is not None:
            return Limit(usd=self.settings.max_usd if submission.max_usd is None else submission.max_usd)
        return Limit(hours=self._hours(types) if submission.max_hours is None else submission.max_hours)

    def require_place(self, submission: Submission) -> None:
        """Raise `RunConflictError`, with every difference, unless the job's project and regions are those here."""
        _refuse(submission, self._problems_of_place(submission))

    def require(self, submission: Submission) -> None:
        """Raise `RunConflictError`, with every difference, if a submission asks for what the settings do not allow.

        If dollars were given, and its machine has no price, the error is a `UsageError`.
        """
        recorded, here = submission.settings, self.settings
        problems = [
            *self._problems_of_place(submission),
            *_differences("service_account", recorded.service_account, here.service_account),
            *_differences("network", path_of(recorded.network), path_of(here.network)),
            *_differences("boot_image", *self._boot_images(recorded.boot_image)),
            *_differences("wandb_secret", _secret(recorded.wandb_secret), _secret(here.wandb_secret)),
        ]
        for region, subnetwork in recorded.subnetworks.items():
            if region in here.subnetworks:
                own = path_of(here.subnetworks[region])
                problems += _differences(f"subnetwork of {region}", path_of(subnetwork), own)
        fits = any(recorded.image.startswith(f"{repository}/") for repository in self.image_repositories)
        if not fits or not IMAGE.fullmatch(recorded.image):
            own = " or ".join(self.image_repositories) or "none"
            problems.append(
                f"image: the record has {recorded.image!r}, the settings here take images of {own}, by digest"
            )
        words, end = submission.words, [f"--bucket={submission.bucket}", f"--run={submission.run}"]
        if words[:1] != ["train"] or words[-2:] != end:
            problems.append(f"words: the record has {' '.join(words)!r}, which do not train this run")
        problems += [
            f"machine: the record has {type_!r}, which is not known here"
            for type_ in [submission.placement.machine, *submission.machines]
            if type_ not in machines()
        ]
        if submission.max_retries > MAX_RETRIES or submission.max_run_s > MAX_RUN_S:
            problems.append(
                f"durations: the record has {counted(submission.max_retries, 'retry', 'retries')} of "
                f"{submission.max_run_s} s, at most {MAX_RETRIES} of {MAX_RUN_S} s are made"
            )
        limit = Limit(submission.max_usd, submission.max_hours)  # without one, that of the settings holds
        hours = self._hours({submission.placement.machine, *submission.machines})
        fits = (limit.usd or 0.0) <= here.max_usd and (limit.hours or 0.0) <= hours
        if self.given is None and not fits:
            usual = f"{Limit(usd=here.max_usd)}, or {Limit(hours=hours)} where a price is not known"
            problems.append(
                f"limit: the record has {limit}, the settings here have {usual}; --max-usd or --no-limit replace both"
            )
        problems += self._problems_of_price(submission)
        _refuse(submission, problems)
        self.limit([submission.placement.machine], submission.placement.provisioning)

    def price(self, submission: Submission) -> float | None:
        """Return the dollars an hour of a submission's machine: the higher of the price on record and the one here."""
        placement = submission.placement
        here = usd_per_hour(self.settings.prices, placement.machine, placement.provisioning)
        return max((price for price in (submission.usd_per_hour, here) if price is not None), default=None)

    def _hours(self, machine_types: Collection[str]) -> float:
        """Return the machine hours of the settings, which are those of one GPU, for the largest of the machines."""
        return self.settings.max_hours / max(
            (machines()[type_].gpus for type_ in machine_types if type_ in machines()), default=1
        )

    def _boot_images(self, recorded: str | None) -> tuple[str | None, str | None]:
        """Return a recorded boot image and the one here, as paths; any of this project's own counts as the one here."""
        path, here = path_of(recorded), path_of(self.settings.boot_image)
        own = path and re.fullmatch(f"projects/{self.settings.project}/global/images/[a-z][a-z0-9-]*", path)
        return path, path if own else here

    def _problems_of_price(self, submission: Submission) -> list[str]:
        """Return the machines without a price here, if the limit is one of recorded dollars, which needs prices."""
        if self.given is not None or submission.max_usd is None:
            return []
        prices, provisioning = self.settings.prices, submission.placement.provisioning
        return [
            f"limit: the record has {Limit(usd=submission.max_usd)}, and the price of {type_} is not known here; write "
            f"`prices: {{{type_}: {{{provisioning}: USD}}}}` an hour to cloud.yaml, supervise where it has them, or "
            "pass --no-limit"
            for type_ in dict.fromkeys([submission.placement.machine, *submission.machines])
            if type_ in machines() and usd_per_hour(prices, type_, provisioning) is None
        ]

    def _problems_of_place(self, submission: Submission) -> list[str]:
        recorded, here = submission.settings, self.settings.subnetworks
        regions = dict.fromkeys([submission.placement.region, *recorded.subnetworks])
        return _differences("project", recorded.project, self.settings.project) + [
            f"region: the record has {region!r}, the settings here have {' and '.join(here)}"
            for region in regions
            if region not in here
        ]


def load_allowance(flags: Mapping[str, object], given: Limit | None = None) -> Allowance:
    """Return the allowance of `local_settings`; what is missing there but project and region is allowed none."""
    return Allowance(local_settings(flags), given)


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


def _secret(name: str | None) -> str | None:
    """Return a secret without its version: a key that was renewed is the same secret."""
    return name and name.partition("/versions/")[0]

"""Machine types with GPUs, as data: hardware and prices.

Guarantees that a price carries its date and source; a machine without one says why. Knows nothing of runs.
"""

import functools
from enum import StrEnum
from importlib import resources
from typing import Annotated

import yaml
from pydantic import BeforeValidator, ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from job.errors import UsageError
from job.text import nearest

OLDEST_DRIVER = {12: 525, 13: 580}
"""Oldest driver branch of each major version of CUDA, by NVIDIA's minor-version compatibility."""

IMAGE_CUDA = 12
"""Major version of CUDA of the image's torch."""


class Provisioning(StrEnum):
    """How a machine is provisioned, cheapest first."""

    SPOT = "spot"
    FLEX_START = "flex_start"
    """Dynamic Workload Scheduler: waits for a machine, which is not preempted and runs for seven days at most."""

    ON_DEMAND = "on_demand"

    @property
    def words(self) -> str:
        """The kind, for people."""
        return {self.SPOT: "Spot", self.FLEX_START: "flex-start", self.ON_DEMAND: "on demand"}[self]


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Prices:
    """Dollars an hour, from low to high."""

    spot: tuple[float, float]
    flex_start: tuple[float, float] | None = None
    on_demand: tuple[float, float]
    date: Annotated[str, BeforeValidator(str)]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Machine:
    """One machine type."""

    type: str
    """Google's name for it."""

    called: str
    """A short name."""

    gpu: str
    """Google's name for the accelerator."""

    gpus: int = 1
    quota: str
    """Compute Engine's quota of its GPUs on demand; that of Spot and flex-start has the prefix ``PREEMPTIBLE_``."""

    vcpus: int
    memory_gib: int

    boot_disk: str = "pd-balanced"
    """Compute Engine's type of the boot disk."""

    provisioning: tuple[Provisioning, ...] = (Provisioning.SPOT, Provisioning.ON_DEMAND)
    """How it is available, cheapest first."""

    prices: Prices | None = None
    no_prices: str | None = None
    """Why no price is on record."""

    def usd_per_hour(self, provisioning: Provisioning) -> float | None:
        """Return the high end of the dollars an hour, or None if no price is on record."""
        if self.prices is None:
            return None
        found: tuple[float, float] | None = getattr(self.prices, provisioning)
        return None if found is None else found[1]


@functools.cache
def machines() -> dict[str, Machine]:
    """Return every machine by its type."""
    loaded = yaml.safe_load(resources.files("job.cloud").joinpath("machine_types.yaml").read_text(encoding="utf-8"))
    entries = {type_: {"type": type_, **entry} for type_, entry in loaded.items()}
    return TypeAdapter(dict[str, Machine]).validate_python(entries)


def find_machine(name: str) -> Machine:
    """Return a machine by its type or short name; raises `UsageError` if there is none."""
    by_name = {name: machine for machine in machines().values() for name in (machine.called, machine.type)}
    if name in by_name:
        return by_name[name]
    raise UsageError(f"--machine: there is no {name!r}{nearest(name, [*by_name])}; choose of {', '.join(by_name)}")


def find_machines(names: str) -> list[Machine]:
    """Return the machines of a list with commas; raises `UsageError` unless they have the same number of GPUs.

    It is the number of a run's processes, which stays the same.
    """
    found = [find_machine(name.strip()) for name in names.split(",")]
    for machine in found:
        if machine.gpus != found[0].gpus:
            raise UsageError(
                f"--machine: {machine.type} has another number of GPUs than {found[0].type}, and a run keeps its "
                "number of processes; name machines with as many"
            )
    return found

"""The machines that a run can be sent to, as data: what they have and what they cost.

Guarantees that a price carries its date and source; a machine without one says why. Knows nothing of runs.
"""

import functools
from dataclasses import dataclass
from importlib import resources

import yaml

from job.errors import UsageError
from job.text import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What an hour costs, in dollars, from low to high."""

    spot: tuple[float, float]
    on_demand: tuple[float, float]
    date: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine type with one GPU."""

    type: str
    """Google's name for it."""

    called: str
    """A short name."""

    gpu: str
    """Google's name for the accelerator."""

    vcpus: int
    memory_gib: int
    gpu_memory_gib: int
    on_demand: bool
    """Whether it can be had without Spot."""

    prices: Prices | None
    no_prices: str | None
    """Why there are none."""

    def usd_per_hour(self, *, spot: bool) -> float | None:
        """Return the high end of what an hour costs, or nothing if that is not known."""
        if self.prices is None:
            return None
        return (self.prices.spot if spot else self.prices.on_demand)[1]


@functools.cache
def machines() -> dict[str, Machine]:
    """Return every machine by its type."""
    loaded = yaml.safe_load(resources.files("job.cloud").joinpath("machine_types.yaml").read_text(encoding="utf-8"))
    return {type_: _machine(type_, dict(entry)) for type_, entry in loaded.items()}


def find_machine(name: str) -> Machine:
    """Return a machine by its type or short name.

    Raises:
        UsageError: If there is none.
    """
    for machine in machines().values():
        if name in {machine.type, machine.called}:
            return machine
    names = [name for machine in machines().values() for name in (machine.called, machine.type)]
    raise UsageError(f"--machine: there is no {name!r}{nearest(name, names)}; choose of {', '.join(names)}")


def _machine(type_: str, entry: dict[str, object]) -> Machine:
    prices = entry.pop("prices", None)
    defaults = {"on_demand": True, "no_prices": None}
    return Machine(type=type_, prices=_prices(prices) if prices else None, **(defaults | entry))  # type: ignore[arg-type]  # the package's own file, tested


def _prices(entry: object) -> Prices:
    assert isinstance(entry, dict)  # noqa: S101 -- as above
    return Prices(
        spot=tuple(entry["spot"]),
        on_demand=tuple(entry["on_demand"]),
        date=str(entry["date"]),
        source=entry["source"],
    )

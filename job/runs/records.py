"""Records of a run in the bucket."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

SCHEMA = 1


RECORDS = ("start", "pulse", "stop", "end")
"""What may be recorded of an attempt beside its claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What a run is, frozen when it is created (``run.json``)."""

    run: str
    created_at: str
    request: dict[str, Any]
    """What was asked for: recipe, profile, start, dataset and every training argument."""

    recipe_digest: str
    expect: dict[str, list[float | None]]
    start: dict[str, Any]
    """Lineage: which weights the run started from, and how much of them was taken over."""

    dataset: dict[str, Any]
    """Name and digest of the data, and how many files were set aside."""

    facts: dict[str, Any]
    """What was decided during set-up and never changes: optimizer, precision, threads."""

    environment: dict[str, Any]
    """What else decides the last bits: device, driver, versions of libraries."""

    wandb_id: str
    schema: int = SCHEMA

    def require_form(self) -> None:
        """Check the fields that a search among many runs reads.

        Raises:
            KeyError: If something is missing.
            TypeError: If it is of another type.
        """
        request, dataset = self.request, self.dataset
        texts = [*(request[name] for name in ("recipe", "profile", "start", "dataset"))]
        texts += [dataset["name"], dataset["digest"], request["model"] or ""]
        parts = [request["train"], self.facts, self.expect, self.environment, self.start["point"]]
        if not (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(part, dict) for part in parts)
            and isinstance(request["train"]["epochs"], int)
            and {type(request[name]) for name in ("new_classes", "quarantine")} == {bool}
            and isinstance(dataset["set_aside"], list)
            and request["profile"] in {"full", "demo"}
        ):
            raise TypeError("a field has another type")


def differences(existing: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> list[str]:
    """Say how two requests differ, one sentence for each key."""
    found: list[str] = []
    for key in [*existing, *(key for key in asked if key not in existing)]:
        old, new = existing.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: the run has {old!r}, asked for {new!r}")
    return found


def now() -> str:
    """Return the time as text, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")

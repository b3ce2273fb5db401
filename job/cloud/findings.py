"""Findings: results of checks, each with its grade and its remedy, and the error that failed ones make together."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from job.errors import MachineError
from job.text import NUM_COLUMNS

Grade = Literal["ok", "warn", "fail", "open"]
"""``open``: no check can tell before a machine runs."""

INDENT = 22


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    subject: str
    grade: Grade
    found: str
    remedy: str = ""
    """A command or a page, on lines of its own, so that it can be copied."""

    def __str__(self) -> str:
        text = f"{self.grade:4}  {self.subject:14}  {self.found}"
        lines = textwrap.wrap(
            text, NUM_COLUMNS, subsequent_indent=" " * INDENT, break_long_words=False, break_on_hyphens=False
        )
        return "\n".join([*lines, *([f"      {self.remedy}"] if self.remedy else [])])

    @property
    def problem(self) -> str:
        """Subject, what was found and the remedy, on one line."""
        return f"{self.subject}: {self.found}" + (f"; {self.remedy}" if self.remedy else "")


def require_fitness(findings: Sequence[Finding], unfit: str = "machine: unfit for training") -> None:
    """Raise `MachineError` with every reason if a check failed."""
    failed = [finding.problem for finding in findings if finding.grade == "fail"]
    if failed:
        raise MachineError(f"{unfit}, {len(failed)} of {len(findings)} checks failed", failed)


def judged(subject: str, is_good: bool, found: str, advice: str) -> Finding:  # noqa: FBT001 -- the verdict
    """Return a finding that is ok, or a warning with advice."""
    return Finding(subject, "ok" if is_good else "warn", found if is_good else f"{found}; {advice}")


def is_fit(findings: Sequence[Finding]) -> bool:
    """Whether no check failed."""
    return all(finding.grade != "fail" for finding in findings)

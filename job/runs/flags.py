"""Flags as typed fields: parses text, and reports every problem of a command line at once.

A field's description is its help text, its default the flag's default. Knows no command and no parser.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from job.errors import JobError, RecipeError, UsageError

YEAR_S = 365 * 24 * 3600
"""Longest accepted duration; timeouts of the system end not far above."""


class Problem(ValueError):  # noqa: N818 -- an error of one field, which `Options.parse` turns into one to raise
    """A validator's error that is a complete message, with its own exit code."""

    def __init__(self, error: JobError) -> None:
        super().__init__(str(error))
        self.error = error


class Options(BaseModel):
    """Flags of one command.

    Raises:
        UsageError: From `parse`, if a flag is wrong; has every problem.
        RecipeError: From `parse`, if only the recipe or its training arguments are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    positional: ClassVar[tuple[str, ...]] = ()
    """Fields that need no flag."""

    left_out: ClassVar[frozenset[str]] = frozenset()
    """Inherited flags that this command does not have."""

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> Self:
        """Read text, or values, by the flags' names."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            problems = [_explained(details) for details in error.errors(include_url=False)]
        if len(problems) == 1:
            raise problems[0]
        lines = [line for problem in problems for line in problem.problems or (problem.message,)]
        kind = UsageError if any(isinstance(problem, UsageError) for problem in problems) else RecipeError
        raise kind(f"command line: {len(lines)} problems", lines)

    @classmethod
    def flags(cls) -> dict[str, FieldInfo]:
        """Return the fields by the flags' names: the command's own first, then those of each group."""
        names = dict.fromkeys(name for base in cls.__mro__ for name in inspect.get_annotations(base))
        fields = {name: cls.model_fields[name] for name in names if name in cls.model_fields}
        flags = {field.alias or name: field for name, field in fields.items()}
        return {name: field for name, field in flags.items() if name not in cls.left_out}

    def args(self, names: Iterable[str]) -> list[str]:
        """Return the flags of these fields that were given and differ from the defaults."""
        fields = type(self).model_fields
        values = {name: getattr(self, name) for name in names if name in self.model_fields_set}
        given = {fields[name].alias or name: value for name, value in values.items() if value != fields[name].default}
        return as_args({name: _as_text(value) for name, value in given.items()})


def as_args(flags: Mapping[str, str]) -> list[str]:
    """Return flags as arguments of a command line."""
    return [f"--{name.replace('_', '-')}={text}" for name, text in flags.items()]


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _explained(details: Mapping[str, Any]) -> JobError:
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, Problem):
        return cause.error
    flag = str(details["loc"][0]).replace("_", "-")
    return UsageError(f"--{flag}: {cause or details['msg']}")


def reads(reader: Callable[[str], Any]) -> BeforeValidator:
    """Let a field be read from text; a value that is not text is taken as it is."""

    def read(value: object) -> Any:  # noqa: ANN401 -- the field's type
        try:
            return reader(value) if isinstance(value, str) else value
        except UsageError as error:
            raise Problem(error) from error

    return BeforeValidator(read)


def _read_switch(text: str) -> bool:
    folded = text.casefold()
    if folded in {"true", "yes", "1"}:
        return True
    if folded in {"false", "no", "0"}:
        return False
    raise ValueError(f"must be true or false, got {text!r}; leave the value out to mean true")


def _read_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= YEAR_S:
        raise ValueError(f"must be a number of seconds from 0 to {YEAR_S}, which is a year, got {text!r}")
    return seconds


def whole_number(minimum: int = 1, maximum: int = 1_000_000) -> BeforeValidator:
    """Let a field be read as a whole number within a range."""

    def read(text: str) -> int:
        number = int(text) if re.fullmatch(r"\d{1,12}", text) else -1
        if not minimum <= number <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}, got {text!r}")
        return number

    return reads(read)


Switch = Annotated[bool, reads(_read_switch)]
"""A flag that needs no value: ``--dry-run``, or ``--dry-run=false``."""

Seconds = Annotated[float, reads(_read_seconds)]


class WorkdirOption(Options):
    """The folder on this machine."""

    workdir: Annotated[Path, reads(lambda text: Path(text).resolve())] = Field(
        default_factory=lambda: Path("work").resolve(),
        description="A folder on this machine for data and files in transit; work if left out.",
    )

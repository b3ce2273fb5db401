"""Flags as typed fields: reads text, and reports every problem of a command line at once.

A field's description is its help text, its default the flag's default. Knows no command and no parser.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from job.errors import JobError, RecipeError, UsageError
from job.storage.paths import expanded
from job.text import counted, describe_type, shown

YEAR_S = 365 * 24 * 3600
"""Longest accepted duration; timeouts of the system end not far above."""


class Problem(ValueError):  # noqa: N818 -- an error of one field, which `Options.parse` turns into one to raise
    """A validator's error that is a complete message, with its own exit code."""

    def __init__(self, error: JobError) -> None:
        super().__init__(str(error))
        self.error = error


class Options(BaseModel):
    """Flags of one command. `parse` raises a `UsageError` with all problems, or a `RecipeError` for a recipe alone."""

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
            found = [cls._explained(details) for details in error.errors(include_url=False)]
            problems = list({str(problem): problem for problem in found}.values())  # one for each type of a field
        if len(problems) == 1:
            raise problems[0]
        lines = [line for problem in problems for line in problem.problems or (problem.message,)]
        kind = UsageError if any(isinstance(problem, UsageError) for problem in problems) else RecipeError
        raise kind(f"command line: {counted(len(lines), 'problem')}", lines)

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
        return as_args(given)

    @classmethod
    def _explained(cls, details: Mapping[str, Any]) -> JobError:
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, Problem):
            return cause.error
        name = str(details["loc"][0])
        field = {**cls.model_fields, **cls.flags()}[name]
        wanted = field.title or describe_type(field.annotation, field.metadata)
        hint = "; leave the value out to mean true" if field.annotation is bool else ""
        problem = cause or f"must be {wanted}, got {shown(details['input'])}{hint}"
        return UsageError(f"--{name.replace('_', '-')}: {problem}")


def as_args(flags: Mapping[str, object]) -> list[str]:
    """Return flags as arguments of a command line."""
    args = []
    for name, value in flags.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        args.append(f"--{name.replace('_', '-')}={f'{value:.15g}' if isinstance(value, float) else text}")
    return args


def reads(reader: Callable[[str], object]) -> BeforeValidator:
    """Let a field be read from text by a function; a value that is not text is taken as it is."""

    def read(value: object) -> object:
        try:
            return reader(value) if isinstance(value, str) else value
        except UsageError as error:
            raise Problem(error) from error

    return BeforeValidator(read)


Count = Annotated[int, Field(ge=1, le=1_000_000)]

Seconds = Annotated[float, Field(ge=0, le=YEAR_S, title=f"a number of seconds from 0 to {YEAR_S}, which is a year")]


class WorkdirOption(Options):
    """The folder on this machine."""

    workdir: Annotated[Path, reads(lambda text: expanded(text).resolve())] = Field(
        default_factory=lambda: Path("work").resolve(),
        description="A folder on this machine for data and files in transit; work if left out.",
    )

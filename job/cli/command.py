"""Command: a function, its flags as a model, and parsing by Fire.

Guarantees that a command runs only after all of its arguments are parsed, and that text stays text: Fire alone calls a
function before it rejects a mistyped flag, and turns a run called 2e967232 into infinity.
"""

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any, TypeVar

from job.errors import UsageError
from job.recipes.arguments import ALIASES, DEFAULTS, read_argument
from job.runs.flags import Options
from job.text import nearest

FLAG = re.compile(r"--?(?P<flag>[a-zA-Z][\w-]*)(?:=(?P<value>.*))?", re.DOTALL)

ASSIGNMENT = re.compile(r"(?P<flag>[a-zA-Z_]\w*)=(?P<value>.*)", re.DOTALL)
"""``lr0=0.01``, the form of Ultralytics' command line."""

ARGUMENTS_FIELD = "arguments"
"""The field of a model whose command takes training arguments as flags."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the command line."""

    function: Callable[[Any], None]
    """Takes the options, and raises a `JobError` if it fails; its docstring is the help below the summary."""

    options: type[Options]
    example: str

    @property
    def takes_arguments(self) -> bool:
        """Whether training arguments are flags as well."""
        return ARGUMENTS_FIELD in self.options.flags()

    @property
    def signature(self) -> Signature:
        """The command's arguments for Fire; all are optional, since `read` names what is missing."""
        parameters = []
        for name, field in self.options.flags().items():
            if name == ARGUMENTS_FIELD:
                parameters.append(Parameter(name, Parameter.VAR_KEYWORD))
            elif name not in self.options.positional:
                parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=None))
            elif str(field.annotation).startswith("tuple"):
                parameters.append(Parameter(name, Parameter.VAR_POSITIONAL))
            else:
                parameters.append(Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=None))
        return Signature(sorted(parameters, key=lambda parameter: parameter.kind))

    def read(self, prog: str, args: Sequence[str]) -> Callable[[], None]:
        """Parse the arguments after the command's name, and return the call that runs it; raises `UsageError`."""
        import fire
        from fire.decorators import SetParseFn

        signature = self.signature
        given: dict[str, object] = {}

        def understand(*plain: str, **flags: str) -> None:
            bound = signature.bind(*plain, **flags).arguments
            given.update((name, value) for name, value in bound.items() if value is not None)

        vars(understand)["__signature__"] = signature
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # Fire prints its own help
                fire.Fire(SetParseFn(str)(understand), command=self._canonical(prog, args), name=prog)
        except fire.core.FireExit as error:
            message = error.trace.elements[-1].ErrorAsStr()
            raise UsageError(f"{prog}: {message}; see `{prog} --help`") from error
        missing = [
            name.upper() if name in self.options.positional else _as_flag(name)
            for name, field in self.options.flags().items()
            if field.is_required() and name not in given
        ]
        if missing:
            verb = "are" if len(missing) > 1 else "is"
            raise UsageError(f"{prog}: {' and '.join(missing)} {verb} missing; see `{prog} --help`")
        return lambda: self.function(self.options.parse(given))

    def _canonical(self, prog: str, args: Sequence[str]) -> list[str]:
        """Return arguments with each flag as ``--name=value``, after those that are no flags, or raise `UsageError`."""
        left, plain, flags = list(args), [], {}
        while left:
            arg = left.pop(0)
            if set(arg) <= {"-"}:
                raise UsageError(f"{prog}: {arg!r} is not understood; see `{prog} --help`")
            match = FLAG.fullmatch(arg) or ASSIGNMENT.fullmatch(arg)
            if match is None:
                plain.append(arg)
                continue
            name, value = self._in_full(match["flag"].replace("-", "_")), match["value"]
            if value is None and left and not FLAG.fullmatch(left[0]):
                value = left.pop(0)
            if value is None and self._is_switch(name):
                value = "true"
            flag = _as_flag(name)
            if not self._knows(name):
                raise self._unknown(prog, arg, flag)
            if not value:
                raise UsageError(f"{prog}: {flag} has no value; see `{prog} --help`")
            if flag in flags:
                raise UsageError(f"{prog}: {flag} is given twice; leave one of them out")
            flags[flag] = value
        kinds = {parameter.kind for parameter in self.signature.parameters.values()}
        num_taken = sum(_as_flag(name) not in flags for name in self.options.positional)
        too_many = [] if Parameter.VAR_POSITIONAL in kinds else plain[num_taken:]
        if too_many:
            raise UsageError(f"{prog}: {too_many[0]!r} is not understood; see `{prog} --help`")
        return [*plain, *(f"{flag}={value}" for flag, value in flags.items())]

    def _unknown(self, prog: str, arg: str, flag: str) -> UsageError:
        """Return the error for an argument that names a flag which does not exist."""
        hint = nearest(flag.lstrip("-"), [known.replace("_", "-") for known in self.options.flags()])
        if arg.startswith("-"):
            return UsageError(f"{flag}: there is no such flag{hint or f'; see `{prog} --help`'}")
        hint = hint or f"; if it is a path, write ./{arg}"
        return UsageError(f"{prog}: {arg!r} is read as the flag {flag}, which does not exist{hint}")

    def _in_full(self, name: str) -> str:
        """Return the flag that a letter abbreviates; Fire refuses one that several flags begin with."""
        found = [flag for flag in self.options.flags() if flag[0] == name and flag != ARGUMENTS_FIELD]
        return found[0] if len(found) == 1 else name

    def _knows(self, name: str) -> bool:
        """Return whether there can be such a flag."""
        flags = self.options.flags()
        return self.takes_arguments or name in flags or name in {flag[0] for flag in flags}

    def _is_switch(self, name: str) -> bool:
        """Return whether a flag needs no value; an unknown flag counts as one, and Fire rejects it later."""
        if name in self.options.flags():
            return self.options.flags()[name].annotation is bool
        if not self.takes_arguments or name not in {*DEFAULTS, *ALIASES}:
            return True
        return name in DEFAULTS and read_argument(name, "true") is True


def _as_flag(name: str) -> str:
    return f"--{name.replace('_', '-')}" if len(name) > 1 else f"-{name}"


AnyOptions = TypeVar("AnyOptions", bound=Options)


def command(options: type[AnyOptions], example: str) -> Callable[[Callable[[AnyOptions], None]], Command]:
    """Make a function that takes options a command; its help shows the example, a command line that works."""
    return lambda function: Command(function, options, example)

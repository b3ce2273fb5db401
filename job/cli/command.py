"""Command: a function, its flags as a model, and parsing by Fire.

Guarantees that a command runs only after all of its arguments are parsed, and that text stays text: Fire alone calls a
function before it rejects a mistyped flag, and turns a run called 2e967232 into infinity.
"""

import contextlib
import inspect
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


class Invocation:
    """A parsed command that has not run; without public members, so that Fire cannot call any."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the command line."""

    function: Callable[[Any], None]
    """Takes the options."""

    options: type[Options]
    example: str

    @property
    def takes_arguments(self) -> bool:
        """Whether training arguments are flags as well."""
        return ARGUMENTS_FIELD in self.options.flags()

    @property
    def signature(self) -> Signature:
        """The command's signature, for a function that Fire can call."""
        kinds: dict[str, Any] = dict.fromkeys(self.options.flags(), Parameter.KEYWORD_ONLY)
        if self.takes_arguments:
            kinds[ARGUMENTS_FIELD] = Parameter.VAR_KEYWORD
        for name in self.options.positional:
            many = str(self.options.flags()[name].annotation).startswith("tuple")
            kinds[name] = Parameter.VAR_POSITIONAL if many else Parameter.POSITIONAL_OR_KEYWORD
        parameters = []
        for name, field in self.options.flags().items():
            kind = kinds[name]
            starred = kind in {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}
            default = Parameter.empty if field.is_required() or starred else None
            parameters.append(Parameter(name, kind, default=default))
        return Signature(sorted(parameters, key=lambda parameter: parameter.kind))

    def read(self, spoken: str, words: Sequence[str]) -> Callable[[], None]:
        """Parse the arguments after the command's name, and return the call that runs it.

        Raises:
            UsageError: If they cannot be parsed.
            RecipeError: If the recipe or a training argument is wrong.
        """
        import fire
        from fire.decorators import SetParseFn

        signature = self.signature

        def understand(*args: str, **flags: str) -> Invocation:
            given = {
                name: value for name, value in signature.bind(*args, **flags).arguments.items() if value is not None
            }
            return Invocation(lambda: self.function(self.options.parse(given)))

        vars(understand)["__signature__"] = signature
        complaint = io.StringIO()
        try:
            with contextlib.redirect_stderr(complaint):  # no code of ours runs in here, so all output is Fire's
                parsed = fire.Fire(
                    SetParseFn(str)(understand),
                    command=self._canonical(spoken, words),
                    name=spoken,
                    serialize=lambda _result: None,
                )
        except fire.core.FireExit as error:
            said = error.trace.elements[-1].ErrorAsStr() if error.trace.HasError() else complaint.getvalue()
            raise UsageError(self._explain(spoken, said)) from error
        if not isinstance(parsed, Invocation):
            raise UsageError(f"{spoken}: not understood; see `{spoken} --help`")
        call: Callable[[], None] = parsed._call  # noqa: SLF001 -- not public, as Fire would offer it
        return call

    def _canonical(self, spoken: str, words: Sequence[str]) -> list[str]:
        """Return words with each flag as ``--name=value``.

        Raises:
            UsageError: If a flag has no value and needs one, or is given twice.
        """
        left, done, seen = list(words), [], set()
        while left:
            word = left.pop(0)
            if set(word) == {"-"}:
                raise UsageError(f"{spoken}: {word!r} is not understood; see `{spoken} --help`")
            match = FLAG.fullmatch(word) or ASSIGNMENT.fullmatch(word)
            if match is None:
                done.append(word)
                continue
            name, value = match["flag"].replace("-", "_"), match["value"]
            if value is None and left and not FLAG.fullmatch(left[0]):
                value = left.pop(0)
            if value is None and self._is_switch(name):
                value = "true"
            flag = f"--{name.replace('_', '-')}" if len(name) > 1 else f"-{name}"
            if not value:
                raise UsageError(f"{spoken}: {flag} has no value; see `{spoken} --help`")
            if name in seen:
                raise UsageError(f"{spoken}: {flag} is given twice; leave one of them out")
            seen.add(name)
            done.append(f"{flag}={value}")
        return done

    def _is_switch(self, name: str) -> bool:
        """Return whether a flag needs no value; an unknown flag counts as one, and Fire rejects it later."""
        if name in self.options.flags():
            return self.options.flags()[name].annotation is bool
        if not self.takes_arguments or name not in {*DEFAULTS, *ALIASES}:
            return True
        return name in DEFAULTS and read_argument(name, "true") is True

    def _explain(self, spoken: str, said: str) -> str:
        """Turn Fire's output into one message with the remedy."""
        if match := re.search(r"Could not consume arg: (\S+)", said):
            if not match[1].startswith("-"):
                return f"{spoken}: {match[1]!r} is not understood; see `{spoken} --help`"
            flag = match[1].partition("=")[0]
            hint = nearest(flag.lstrip("-"), [name.replace("_", "-") for name in self.options.flags()])
            return f"{flag}: there is no such flag{hint or f'; see `{spoken} --help`'}"
        if match := re.search(r"no value for the required argument: (\w+)", said):
            return f"{spoken}: {match[1].upper()} is missing; see `{spoken} --help`"
        if match := re.search(r"Missing required flags?: \{?'?(\w+)", said):
            return f"{spoken}: --{match[1].replace('_', '-')} is missing; see `{spoken} --help`"
        return f"{spoken}: {' '.join(said.split())}; see `{spoken} --help`"


AnyOptions = TypeVar("AnyOptions", bound=Options)


def command(options: type[AnyOptions], example: str) -> Callable[[Callable[[AnyOptions], None]], Command]:
    """Make a function that takes options a command.

    Args:
        options: Its flags.
        example: A command line that works, for its help.
    """
    return lambda function: Command(function, options, example)


def details_of(command: Command) -> str:
    """Return what a command's docstring says to its users: all but the first line and the errors."""
    doc = inspect.getdoc(command.function) or ""
    return doc.partition("\n\n")[2].partition("Raises:\n")[0].strip()

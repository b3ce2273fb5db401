"""Help texts of commands, from their models; Fire's own help opens a pager and lists its internals."""

import textwrap
from collections.abc import Sequence
from inspect import Parameter

from pydantic.fields import FieldInfo

from job.cli.command import ARGUMENTS_FIELD, Command, details_of
from job.text import NUM_COLUMNS


def command_help(spoken: str, summary: str, command: Command) -> str:
    """Return the help of a command: description, flags with defaults, example."""
    positional = {
        name: f"{name.upper()}{'...' if parameter.kind is Parameter.VAR_POSITIONAL else ''}"
        for name, parameter in command.signature.parameters.items()
        if name in command.options.positional
    }
    usage = [
        label if command.options.flags()[name].is_required() else f"[{label}]" for name, label in positional.items()
    ]
    flags = command.options.flags()
    described = [(positional[name], flags[name]) for name in positional]
    described += [
        (f"--{name.replace('_', '-')}", field)
        for name, field in flags.items()
        if name not in positional and name != ARGUMENTS_FIELD
    ]
    paragraphs = [
        " ".join([spoken, *usage, "[FLAGS]"]),
        _filled(summary),
        *(_filled(part) for part in details_of(command).split("\n\n") if part),
        "\n".join(_described(described)),
    ]
    if command.takes_arguments:
        paragraphs.append(
            _filled("Further flags: any training argument of Ultralytics, such as --epochs 50 --hsv-s 0.8.")
        )
    return "\n\n".join([*paragraphs, "Example:\n  " + command.example])


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), NUM_COLUMNS, break_on_hyphens=False)


def _described(flags: Sequence[tuple[str, FieldInfo]]) -> list[str]:
    width = max((len(label) for label, _ in flags), default=0) + 4
    lines = []
    for label, field in flags:
        text = (field.description or "") + _default(field)
        first = f"  {label}".ljust(width)
        lines += textwrap.wrap(
            text, NUM_COLUMNS, initial_indent=first, subsequent_indent=" " * width, break_on_hyphens=False
        )
    return lines


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return " Required."
    default = None if field.default_factory else field.default
    if default in (None, "", ()) or default is False:
        return ""
    return f" Default: {default:g}." if isinstance(default, float) else f" Default: {default}."

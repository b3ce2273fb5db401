"""Help texts of commands, from their models; Fire's own help opens a pager and lists its internals."""

import inspect
import textwrap
from inspect import Parameter

from pydantic.fields import FieldInfo

from job.cli.command import ARGUMENTS_FIELD, Command
from job.text import NUM_COLUMNS, definitions


def command_help(prog: str, summary: str, command: Command) -> str:
    """Return the help of a command: description, flags with defaults, example."""
    flags, parameters = command.options.flags(), command.signature.parameters
    usage, described = [], {}
    for name in command.options.positional:
        label = f"{name.upper()}{'...' if parameters[name].kind is Parameter.VAR_POSITIONAL else ''}"
        usage.append(label if flags[name].is_required() else f"[{label}]")
        described[label] = _description(flags[name])
    named = {name: field for name, field in flags.items() if name not in {*command.options.positional, ARGUMENTS_FIELD}}
    described |= {f"--{name.replace('_', '-')}": _description(field) for name, field in named.items()}
    doc = inspect.getdoc(command.function) or ""
    details = doc.partition("\n\n")[2]
    paragraphs = [
        " ".join([prog, *usage, *(["[FLAGS]"] if named else [])]),
        _filled(summary),
        *(_filled(part) for part in details.split("\n\n") if part),
        *(["\n".join(definitions(described))] if described else []),
    ]
    if command.takes_arguments:
        paragraphs.append(
            _filled("Further flags: any training argument of Ultralytics, such as --epochs 50 --hsv-s 0.8.")
        )
    return "\n\n".join([*paragraphs, "Example:\n  " + command.example])


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), NUM_COLUMNS, break_on_hyphens=False)


def _description(field: FieldInfo) -> str:
    text = field.description or ""
    if field.is_required():
        return f"{text} Required."
    default = None if field.default_factory else field.default
    if default in (None, "", ()) or default is False:
        return text
    return f"{text} Default: {default:g}." if isinstance(default, float) else f"{text} Default: {default}."

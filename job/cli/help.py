"""Help for the command line, made from the commands' docstrings; Fire's own opens a pager and lists its internals."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from job.text import nearest

Commands = dict[str, Any]
"""Commands by name; a group is a dictionary of its own."""

ABOUT = """\
Trains YOLO detectors on machines that can vanish. The same command starts a run, continues it, or says that it is
finished.
"""

EXIT_CODES = """\
Exit codes: 0 finished or paused, 1 defect of the program, 2 usage, 65 bad recipe, data or conflicting run,
70 training failed, 74 bucket or output refused, 75 try again, 78 machine unfit
"""


def find_help(commands: Commands, words: list[str]) -> str | None:
    """Return the help that a command line asks for, or nothing if it asks for something else."""
    path, found = _walk(commands, words)
    rest = words[len(path) :]
    if "--help" in rest or "-h" in rest or (isinstance(found, dict) and not rest):
        return _group_help(path, found) if isinstance(found, dict) else _command_help(path, found)
    return None


def explain_misuse(commands: Commands, words: list[str], said: str) -> str:
    """Turn what Fire says of a command line into one message with what to do."""
    path, found = _walk(commands, words)
    spoken = " ".join(["job", *path])
    if isinstance(found, dict):
        word = words[len(path)] if len(words) > len(path) else ""
        hint = nearest(word, list(found)) or f"; there are {', '.join(found)}"
        return f"{spoken}: there is no command {word!r}{hint}"
    if match := re.search(r"Could not consume arg: (\S+)", said):
        word = match[1]
        hint = nearest(word, _flags(found)) if word.startswith("-") else ""
        return f"{spoken}: {word!r} is not understood{hint or f'; see `{spoken} --help`'}"
    if match := re.search(r"no value for the required argument: (\w+)", said):
        return f"{spoken}: {match[1].upper()} is missing; see `{spoken} --help`"
    if match := re.search(r"Missing required flags?: \{?'?(\w+)", said):
        return f"{spoken}: --{match[1].replace('_', '-')} is missing; see `{spoken} --help`"
    return f"{spoken}: {' '.join(said.split())}; see `{spoken} --help`"


def _walk(commands: Commands, words: list[str]) -> tuple[list[str], Any]:
    """Follow the words that name a group or a command."""
    found: Any = commands
    path: list[str] = []
    for word in words:
        if not isinstance(found, dict) or word not in found:
            break
        found = found[word]
        path.append(word)
    return path, found


def _group_help(path: list[str], group: Commands) -> str:
    rows = list(_rows(path, group))
    width = max(len(call) for call, _ in rows)
    lines = [ABOUT] if not path else []
    lines += [f"  {call:{width}}  {first_line}" for call, first_line in rows]
    lines += ["", "Every command explains itself with --help."]
    return "\n".join(lines if path else [*lines, EXIT_CODES.rstrip()])


def _rows(path: list[str], group: Commands) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, entry in group.items():
        if isinstance(entry, dict):
            rows += _rows([*path, name], entry)
        else:
            doc = inspect.getdoc(entry) or ""
            rows.append((" ".join(["job", *path, name, *_positionals(entry)]), doc.splitlines()[0]))
    return rows


def _command_help(path: list[str], command: Callable[..., Any]) -> str:
    doc, _, arguments = (inspect.getdoc(command) or "").partition("\nArgs:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, flags=re.MULTILINE)  # not those with a star
    positionals = {name for name, parameter in _parameters(command).items() if _is_positional(parameter)}
    labels = {name: name.upper() if name in positionals else f"--{name.replace('_', '-')}" for name, _ in entries}
    width = max(map(len, labels.values()), default=0)
    lines = [" ".join(["job", *path, *_positionals(command), "[FLAGS]"]), "", doc.strip(), ""]
    for name, text in entries:
        first, *more = text.split("\n")
        lines.append(f"  {labels[name]:{width}}  {first}")
        lines += [f"  {'':{width}}  {line.strip()}" for line in more]
    return "\n".join(lines)


def _parameters(command: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(command).parameters)


def _is_positional(parameter: inspect.Parameter) -> bool:
    named = parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and parameter.default is inspect.Parameter.empty
    return named or parameter.kind is inspect.Parameter.VAR_POSITIONAL


def _positionals(command: Callable[..., Any]) -> list[str]:
    return [_called(parameter) for parameter in _parameters(command).values() if _is_positional(parameter)]


def _called(parameter: inspect.Parameter) -> str:
    """Name a positional argument: RUN, or RUNS... if there may be several."""
    return parameter.name.upper() + ("..." if parameter.kind is inspect.Parameter.VAR_POSITIONAL else "")


def _flags(command: Callable[..., Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in _parameters(command)]

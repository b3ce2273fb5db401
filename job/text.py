"""Text: units, tables of 80 columns, did-you-mean, JSON, limited YAML, pydantic's errors as messages."""

import difflib
import json
import re
import shlex
import shutil
import sysconfig
import textwrap
import types
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import Enum
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import yaml

from job.errors import message_of

if TYPE_CHECKING:
    from pydantic import ValidationError

MINUTE, HOUR, DAY = 60, 3600, 86_400

NUM_COLUMNS, NUM_LABEL = 80, 12
"""Columns of a terminal, and of a paragraph's label."""

COMMAND = re.compile(r"\s*(\S*/)?(job|make) ")
"""Begins a line that is a command."""

QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")

CONTINUED, HELD = " \\", "\0"
"""End of a command's line that goes on in the next, and a space that no line is broken at."""


def seconds_between(earlier: str, later: str) -> float:
    """Return the seconds from one recorded time to another; 0 if a clock was set back in between."""
    return max(0.0, round((datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds(), 3))


def clock(time: str) -> str:
    """Show a recorded time to the second, in UTC."""
    return time[:19].replace("T", " ")


def duration(seconds: float) -> str:
    """Show a time in its two largest units: ``8.4 s``, ``3 min 20 s``, ``5 h 07 min``."""
    if round(seconds, 1) < MINUTE:
        return f"{seconds:.1f} s"
    if round(seconds) < HOUR:
        return "{} min {:02d} s".format(*divmod(round(seconds), MINUTE))
    return "{:,} h {:02d} min".format(*divmod(round(seconds / MINUTE), MINUTE))


def ago(time: str, at: str) -> str:
    """Show how long before `at` a recorded time was, in its largest unit: ``5 min ago``, ``6 days ago``."""
    seconds = int(seconds_between(time, at))
    for unit, unit_s in (("days", DAY), ("h", HOUR), ("min", MINUTE)):
        if seconds >= unit_s * (2 if unit_s == DAY else 1):
            return f"{seconds // unit_s} {unit} ago"
    return f"{seconds} s ago"


def dollars(usd: float) -> str:
    """Show an amount in dollars, with as many digits as small amounts need: ``$12.40``, ``$0.0031``."""
    return f"${usd:,.2f}" if usd == 0 or usd >= 1 else f"${usd:.4f}"


def percent(share: float) -> str:
    """Show a share of 1: ``68.3 %``."""
    return f"{100 * share:.1f} %"


def table(rows: Sequence[Sequence[str]], *, right: Collection[int] = (), wrap: int | None = None) -> list[str]:
    """Return the lines of a table: `rows` of equal length, with the heading, in columns two spaces apart.

    Columns in `right` are aligned to the right; cells beyond the first column are wrapped at a width of `wrap`.
    """
    if wrap is not None:
        wrapped = ([[row[0]], *(textwrap.wrap(cell, wrap) for cell in row[1:])] for row in rows)
        rows = [line for cells in wrapped for line in zip_longest(*cells, fillvalue="")]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:{'>' if number in right else '<'}{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def labelled(label: str, text: str) -> list[str]:
    """Return a paragraph behind its label; a word too long for a line, such as a path, is not broken."""
    return textwrap.wrap(
        text,
        NUM_COLUMNS,
        initial_indent=f"{label:{NUM_LABEL - 1}} ",
        subsequent_indent=" " * NUM_LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [label]


def fitted(line: str, width: int = NUM_COLUMNS) -> list[str]:
    """Return a line of a message in lines of a terminal, the further ones indented.

    A word that is longer, such as a path, is not broken, nor what stands in backquotes. A line that is a command is
    continued by backslashes, so that it can be copied.
    """
    if len(line) <= width:
        return [line]
    is_command = COMMAND.match(line) is not None
    held = re.sub(QUOTED if is_command else r"`[^`]*`", lambda match: match[0].replace(" ", HELD), line)
    lines = textwrap.wrap(
        held,
        width - len(CONTINUED) * is_command,
        subsequent_indent=" " * (len(line) - len(line.lstrip()) + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
    ends = [CONTINUED * is_command] * (len(lines) - 1) + [""]
    return [f"{part.replace(HELD, ' ')}{end}" for part, end in zip(lines, ends, strict=True)]


def definitions(entries: Mapping[str, str]) -> list[str]:
    """Return the lines of a list of names, each with its text beside it."""
    width = max(map(len, entries), default=0) + 4
    lines = []
    for name, text in entries.items():
        first = f"  {name}".ljust(width)
        lines += textwrap.wrap(
            text, NUM_COLUMNS, initial_indent=first, subsequent_indent=" " * width, break_on_hyphens=False
        )
    return lines


def command_line(label: str, command: str) -> list[str]:
    """Return a shell command behind its label, continued by backslashes so that it can be copied."""
    lines = textwrap.wrap(
        as_found(command), NUM_COLUMNS - NUM_LABEL - 2, break_long_words=False, break_on_hyphens=False
    )
    continued = [f"{line} \\" for line in lines[:-1]] + lines[-1:]
    return [f"{label:{NUM_LABEL - 1}} {continued[0]}", *(f"{'':{NUM_LABEL}}  {line}" for line in continued[1:])]


def as_found(command: str) -> str:
    """Return a command of the job with the path of its program, if a shell does not find that by its name."""
    program, here = Path(sysconfig.get_path("scripts"), "job"), Path.cwd()
    if not command.startswith("job ") or shutil.which("job") or not program.exists():
        return command
    shown = program.relative_to(here) if program.is_relative_to(here) else program
    return shlex.quote(str(shown)) + command.removeprefix("job")


MAX_BYTES = 1_000_000
TOO_LARGE = f"it is larger than {MAX_BYTES / 1e6:g} MB"

MAX_VALUES = 200_000
"""Values repeated by aliases count each time."""

MAX_NUMBER_LENGTH = 1_000
"""Characters of a value that is not text: the time to parse a number grows with the square of its length."""


class UnreadableYamlError(ValueError):
    """A text is not YAML, or not within the limits; the message is the part of a sentence that says why."""


def load_yaml(text: str | bytes) -> Any:  # noqa: ANN401 -- YAML holds any value
    """Read YAML of plain values; raises `UnreadableYamlError` for other text, or above the limits."""
    if len(text) > MAX_BYTES:
        raise UnreadableYamlError(TOO_LARGE)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _require_few_values(node)
        return loader.construct_document(node)
    except UnreadableYamlError:
        raise
    except RecursionError as error:
        raise UnreadableYamlError("it is nested too deeply") from error
    except yaml.MarkedYAMLError as error:  # its own message quotes the line, which may have a secret
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UnreadableYamlError(f"{error.problem or error.context}{where}") from error
    except Exception as error:  # the parser raises anything on values that are none, such as the date 2026-13-45
        raise UnreadableYamlError(message_of(error)) from error


def _require_few_values(node: yaml.Node) -> None:
    """Check the number of values with every alias followed."""
    num_values: dict[int, int] = {}

    def count(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            if len(node.value) > MAX_NUMBER_LENGTH and not node.tag.endswith(":str"):
                raise UnreadableYamlError(f"it has a number of {len(node.value)} characters")
            return 1
        if id(node) not in num_values:
            num_values[id(node)] = MAX_VALUES  # until it is known: a value that holds itself never ends
            parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
            num_values[id(node)] = 1 + sum(map(count, parts))
        if num_values[id(node)] > MAX_VALUES:
            raise UnreadableYamlError(f"it has more than {MAX_VALUES:,} values, aliases followed")
        return num_values[id(node)]

    count(node)


def as_json(content: object, indent: int | None = None) -> bytes:
    """Return JSON in UTF-8; a lone surrogate, as in a path that is not UTF-8, becomes a question mark."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(content, indent=indent, separators=separators, ensure_ascii=False)
    return text.encode("utf-8", "replace")


def nearest(word: str, known: list[str]) -> str:
    """Return ``; did you mean ...?`` for a misspelt word, or an empty string."""
    folded = {name.casefold(): name for name in known}
    matches = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[matches[0]]!r}?" if matches else ""


def between(low: str, high: str) -> str:
    """Return a range, or the one value if both ends are the same."""
    return low if low == high else f"{low} to {high}"


KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", list: "a list"}
"""Types as messages name them; any other is a mapping."""

MAX_SHOWN = 200
"""Characters of a value in a message."""


def validation_problems(error: "ValidationError", model: "type[Any]") -> list[str]:
    """Translate pydantic's errors, one sentence for each field: ``train.batch: must be a whole number, got 'big'``.

    A field's description says what it must be; without one, its type and range do. The text of a validator's
    `ValueError` is taken over unchanged. A model that explains unknown keys itself has a static ``explain_unknown``.
    """
    problems: dict[str, str] = {}
    for entry in error.errors(include_url=False):
        name, kind, wanted = _locate(model, entry["loc"])
        if entry["type"] in {"extra_forbidden", "invalid_key", "unexpected_keyword_argument"}:
            problem = _unknown(str(entry["loc"][-1]), kind)
        elif entry["type"] == "missing":
            problem = "missing"
        elif entry["type"] == "json_invalid":
            problem = f"not JSON, {entry['ctx']['error']}"
        elif entry["type"] == "value_error":
            problem = str(entry["ctx"]["error"])
        else:
            last = (entry["loc"] or ("",))[-1]
            in_it = " in it" if isinstance(last, int) and not name.endswith(f".{last}") else ""
            problem = f"must be {wanted}, got {shown(entry['input'])}{in_it}"
        problems.setdefault(name or problem, f"{name}: {problem}" if name else problem)
    return list(problems.values())


def shortened(lines: Collection[str], limit: int) -> list[str]:
    """Return the first lines, and how many more there are: ``... 3 more``."""
    more = [f"... {len(lines) - limit} more"] if len(lines) > limit else []
    return [*list(lines)[:limit], *more]


def dataset_and_version(reference: str) -> tuple[str, int | None]:
    """Return name and version of a dataset, None for the newest: ``wildlife@2`` is version 2 of ``wildlife``."""
    match = re.fullmatch(r"(.+)@([1-9][0-9]{0,8})", reference)
    return (match[1], int(match[2])) if match else (reference, None)


def counted(number: float, one: str, several: str = "") -> str:
    """Return a number and its noun: ``1 epoch``, ``3 epochs``, ``2 boxes`` if the plural is given."""
    return f"{number:.15g} {one if number == 1 else several or f'{one}s'}"


def shown(value: object) -> str:
    """Return a value for a message; a long one is cut."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def describe_field(model: "type[Any]", name: str) -> str:
    """Describe the values that a field takes: ``a whole number from 1 to 9``."""
    field = _fields(model)[name]
    return field.description or describe_type(field.annotation, field.metadata)


def describe_type(kind: Any, limits: Sequence[Any] = ()) -> str:  # noqa: ANN401 -- an annotation
    """Describe the values of a type with limits, such as ``annotated_types.Ge(1)``: ``a whole number from 1 to 9``."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        described = next((limit.description for limit in parts[1:] if getattr(limit, "description", None)), None)
        metadata = [each for part in parts[1:] for each in getattr(part, "metadata", [part])]
        return described or describe_type(parts[0], metadata)
    if origin is Literal:
        return str(parts[0]) if len(parts) == 1 else f"one of {', '.join(map(str, parts))}"
    if origin in {Union, types.UnionType}:
        return " or ".join(describe_type(part, limits) for part in parts if part is not type(None))
    if isinstance(kind, type) and issubclass(kind, Enum):
        name = f"one of {', '.join(str(each.value) for each in kind)}"
    else:
        name = KINDS.get(origin or kind, "a mapping")
    bounds = {end: getattr(limit, end) for limit in limits for end in ("ge", "le", "gt") if hasattr(limit, end)}
    low, high, above = bounds.get("ge"), bounds.get("le"), bounds.get("gt")
    if low is not None and high is not None:
        return f"{name} from {low:.10g} to {high:.10g}"
    if low is not None:
        return f"{name} of at least {low:.10g}"
    return f"{name} above {above:.10g}" if above is not None else name


def _unknown(word: str, model: "type[Any]") -> str:
    explain = getattr(model, "explain_unknown", None)
    if explain is not None:
        return str(explain(word))
    known = list(_fields(model))
    return f"unknown key{nearest(word, known) or '; known are ' + ', '.join(known)}"


def _fields(kind: Any) -> dict[str, Any]:  # noqa: ANN401 -- an annotation
    """Return the fields of a model or of pydantic's dataclass, by the names that its data has."""
    fields = getattr(kind, "__pydantic_fields__", {})
    return {field.alias or name: field for name, field in fields.items()}


def _locate(model: "type[Any]", loc: tuple[int | str, ...]) -> "tuple[str, Any, str]":
    """Return the dotted name of an error's field, or of its list of plain values, its model, and what it must be."""
    names: list[str] = []
    holder: Any = model
    kind: Any = model
    wanted = "a mapping"
    for index, part in enumerate(loc):
        holder = kind
        if fields := _fields(kind):
            names.append(str(part))
            if part not in fields:
                break
            wanted = describe_field(kind, str(part))
            kind = _without_none(fields[str(part)].annotation)
        elif get_origin(kind) is dict:
            names.append(str(part))
            key, kind = get_args(kind)
            is_key = loc[index + 1 : index + 2] == ("[key]",)
            wanted = describe_type(key if is_key else kind)
            kind = _without_none(kind)
            if is_key:
                break
        elif part in (hints := getattr(kind, "__annotations__", {})):  # of a `TypedDict`
            names.append(str(part))
            wanted, kind = describe_type(hints[part]), _without_none(hints[part])
        elif get_origin(kind) is list and _fields(get_args(kind)[0]):
            names.append(str(part))
            kind, wanted = get_args(kind)[0], "a mapping"
        else:
            break
    return ".".join(names), holder, wanted


def _without_none(kind: Any) -> Any:  # noqa: ANN401 -- an annotation
    """Return an optional or annotated type without its ``None`` and its annotations."""
    if get_origin(kind) is Annotated:
        return _without_none(get_args(kind)[0])
    parts = [part for part in get_args(kind) if part is not type(None)]
    return _without_none(parts[0]) if get_origin(kind) in {Union, types.UnionType} and len(parts) == 1 else kind

"""Recipe: a named, checked training configuration, read from YAML.

Guarantees that a recipe that loads is complete and valid, and that an invalid one is refused with every problem at
once. Knows nothing of runs, buckets or torch.
"""

import dataclasses
import functools
import hashlib
import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError

from job.errors import RecipeError
from job.recipes.arguments import DEFAULTS, Arguments, TrainingArguments, check_arguments, requested, traded
from job.text import MAX_BYTES, UnreadableYamlError, counted, load_yaml, nearest, validation_problems

Profile = Literal["full", "demo"]

BY_AUTO = {"lr0", "warmup_bias_lr"}
"""Arguments that the optimizer ``auto`` replaces by its own values."""


StartKind = Literal["own", "pretrained", "scratch", "end"]
"""``own``: the best weights of a finished run of this bucket; ``pretrained``: a published file; ``scratch``: none;
``end``: the whole state in which a run ended (never in a recipe; see `job extend`).
"""


@dataclass(frozen=True, slots=True)
class Start:
    """Start weights of a recipe or run."""

    kind: StartKind

    name: str | None = None
    """The recipe whose newest run is taken (``own``), the file (``pretrained``), the architecture (``scratch``) or the
    run (``end``).
    """

    @classmethod
    def parse(cls, value: object) -> "Start":
        """Read ``own best.pt``, ``own best.pt of A``, ``yolo11s.pt`` or ``yolo11n.yaml``; else `ValueError`."""
        text = value if isinstance(value, str) else ""
        if match := re.fullmatch(r"own best\.pt(?: of ([\w.-]+))?", text):
            return cls("own", match[1])
        if re.fullmatch(r"[\w.-]+\.pt", text):
            return cls("pretrained", text)
        if re.fullmatch(r"[\w.-]+\.ya?ml", text):
            return cls("scratch", text)
        raise ValueError(f"must be 'own best.pt', 'own best.pt of RECIPE', name.pt or name.yaml, got {value!r}")

    def __str__(self) -> str:
        if self.kind == "own":
            return "own best.pt" + (f" of {self.name}" if self.name else "")
        if self.kind == "end":
            return f"end of {self.name}"
        return str(self.name)


@dataclass(frozen=True, slots=True)
class Band:
    """Range of an expected metric or duration; a missing end is open."""

    low: float | None
    high: float | None

    @classmethod
    def parse(cls, value: object, scale: str = "hours") -> "Band":
        """Read ``0.58``, ``[0.65, 0.70]`` or ``"over 0.65"``; else `ValueError`."""
        band = None
        ends: list[Any] = value if isinstance(value, list) and len(value) == 2 else [value, value]  # noqa: PLR2004 -- low and high
        if isinstance(value, str) and (match := re.fullmatch(r"over (\d+(?:\.\d+)?)", value)):
            band = cls(float(match[1]), None)
        elif all(type(end) in {int, float} for end in ends) and ends[0] <= ends[1]:
            band = cls(float(ends[0]), float(ends[1]))
        if band is None or (scale != "hours" and max(band.low or 0.0, band.high or 0.0) > 1):
            raise ValueError(f"must be a number, [low, high] or 'over number' in {scale}, got {value!r}")
        return band

    def reached(self, value: float) -> bool:
        """Whether a metric is at least the low end."""
        return self.low is None or value >= self.low or round(value, 4) >= self.low

    def text(self, scale: float = 1.0, unit: str = "") -> str:
        """Show the band, for example ``65 to 70 %`` with a scale of 100."""
        low, high = (None if end is None else f"{end * scale:g}" for end in (self.low, self.high))
        if high is None:
            return f"over {low}{unit}"
        return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named training configuration with every argument decided."""

    name: str
    source: str
    """Argument of `load_recipe`: a name or a path."""

    summary: str
    """Purpose, in a few words."""

    profile: Profile
    start: Start
    train: Arguments
    """Final values, defaults included."""

    expect: dict[str, Band]
    """Expected metrics as fractions of 1, and ``hours``."""

    risk: str | None = None
    advised: str | None = None
    """When to use it, as text."""

    given: frozenset[str] = frozenset()
    """Arguments that a person chose, defaults included; the others have Ultralytics' defaults."""

    @property
    def ignored(self) -> list[str]:
        """Arguments that a person chose, and that the optimizer ``auto`` replaces."""
        return sorted(self.given & BY_AUTO) if self.train["optimizer"] == "auto" else []

    @property
    def digest(self) -> str:
        """SHA-256 over name, start and arguments, which decide the outcome."""
        decides = {"name": self.name, "start": str(self.start), "train": requested(self.train)}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def require_exact(self) -> None:
        """Raise `RecipeError` if its arguments trade exactness for speed, where that is to be proved."""
        if problems := traded(self.train):
            raise RecipeError(f"recipe {self.name}: is not bit-exact, so nothing can be proved; correct it", problems)

    def with_arguments(self, overrides: Arguments) -> "Recipe":
        """Return the recipe with some arguments replaced; raises `RecipeError` with every problem of them."""
        values, problems = check_arguments(overrides)
        if problems:
            raise RecipeError(f"training arguments: {counted(len(problems), 'problem')}", problems)
        return dataclasses.replace(self, train=self.train | values, given=self.given | values.keys())


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes, in the order of the help."""
    order = ["base", "continue", "finetune", "transfer", "A", "B", "C", "T", "recommended"]
    found = {
        Path(entry.name).stem for entry in resources.files("job.recipes").iterdir() if entry.name.endswith(".yaml")
    }
    return sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))


def load_recipe(name_or_path: str, profile: Profile = "full") -> Recipe:
    """Load a recipe by name, or from a file of the user's own by a path that ends in ``.yaml`` or ``.yml``.

    The profile ``demo`` applies the recipe's own small-scale values. `RecipeError` lists every problem.
    """
    path, names = Path(name_or_path), recipe_names()
    if path.suffix in {".yaml", ".yml"}:
        try:
            with path.open(encoding="utf-8") as opened:
                text = opened.read(MAX_BYTES + 1)  # enough to see that it is too large
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read, {error.strerror}; pass a readable recipe file") from error
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path}: is not UTF-8 text; pass a recipe file in YAML") from error
    elif name_or_path in names:
        text = resources.files("job.recipes").joinpath(f"{name_or_path}.yaml").read_text(encoding="utf-8")
    else:
        raise RecipeError(
            f"recipe {name_or_path!r}: no such recipe{nearest(name_or_path, names)}; "
            f"take one of {', '.join(names)}, or a path to a .yaml file"
        )
    return parse_recipe(text, name=path.stem, source=name_or_path, profile=profile)


def parse_recipe(text: str, *, name: str, source: str, profile: Profile = "full") -> Recipe:
    """Read and check a recipe, both profiles of it; `RecipeError` names the source and lists every problem."""
    try:
        loaded = load_yaml(text)
    except UnreadableYamlError as error:
        raise RecipeError(f"recipe {source}: cannot be read as YAML, {error}; correct the file") from error
    if not isinstance(loaded, dict):
        raise RecipeError(
            f"recipe {source}: must be a mapping with the keys start and train, got {type(loaded).__name__}"
        )
    try:
        read = _RecipeFile.model_validate(loaded)
    except ValidationError as error:
        problems = validation_problems(error, _RecipeFile)
        raise RecipeError(f"recipe {source}: {counted(len(problems), 'problem')}", problems) from error
    train, start = read.train.model_dump(exclude_unset=True), read.start
    if profile == "demo":
        train, start = train | read.demo.train.model_dump(exclude_unset=True), read.demo.start or start
    return Recipe(
        name=name,
        source=source,
        summary=read.summary or "",
        profile=profile,
        start=start,
        train=DEFAULTS | train,
        given=frozenset(train),
        expect={metric: band for metric, band in read.expect if band is not None},
        risk=read.risk,
        advised=read.advised,
    )


_Start = Annotated[Start, PlainValidator(Start.parse)]
_Hours = Annotated[Band, PlainValidator(Band.parse)]
_Metric = Annotated[Band, PlainValidator(functools.partial(Band.parse, scale="fractions of 1"))]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Expectation(_Section):
    f1: _Metric | None = None
    precision: _Metric | None = None
    recall: _Metric | None = None
    map50: _Metric | None = None
    map50_95: _Metric | None = None
    hours: _Hours | None = None


class _Demo(_Section):
    start: _Start | None = None
    train: TrainingArguments = TrainingArguments()


class _RecipeFile(_Section):
    """A recipe as its file has it."""

    start: _Start
    train: TrainingArguments
    summary: str | None = None
    risk: str | None = None
    advised: str | None = None
    expect: _Expectation = _Expectation()
    demo: _Demo = _Demo()

"""A recipe: a named, checked training configuration, read from YAML.

Guarantees that a recipe that loads is complete and valid, and that one that does not is answered with every problem
at once. Knows nothing of runs, buckets or torch.
"""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from job.errors import RecipeError
from job.recipes.arguments import DEFAULTS, check_arguments
from job.text import MAX_BYTES, UnreadableYamlError, load_yaml, nearest

Profile = Literal["full", "demo"]

METRICS = ("f1", "precision", "recall", "map50", "map50_95")


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run's first weights come from."""

    kind: Literal["own", "pretrained", "scratch", "end"]
    """``own``: the best weights of a finished run of ours; ``pretrained``: a published file; ``scratch``: none;
    ``end``: not only weights, but the whole state in which a run ended (never in a recipe; see `job.extend`).
    """

    name: str | None = None
    """The recipe whose newest run to take (``own``), the file (``pretrained``), the architecture (``scratch``) or the
    run (``end``).
    """

    @classmethod
    def parse(cls, text: str) -> "Start":
        """Read ``own best.pt``, ``own best.pt of A``, ``yolo11s.pt`` or ``yolo11n.yaml``.

        Raises:
            ValueError: If the text is none of these.
        """
        if match := re.fullmatch(r"own best\.pt(?: of ([\w.-]+))?", text):
            return cls("own", match[1])
        if re.fullmatch(r"[\w.-]+\.pt", text):
            return cls("pretrained", text)
        if re.fullmatch(r"[\w.-]+\.ya?ml", text):
            return cls("scratch", text)
        raise ValueError(text)

    def __str__(self) -> str:
        if self.kind == "own":
            return "own best.pt" + (f" of {self.name}" if self.name else "")
        if self.kind == "end":
            return f"end of {self.name}"
        return str(self.name)


@dataclass(frozen=True, slots=True)
class Band:
    """A range that an outcome is expected in; a missing end is open."""

    low: float | None
    high: float | None

    @classmethod
    def parse(cls, value: object) -> "Band":
        """Read ``0.58``, ``[0.65, 0.70]`` or ``"over 0.65"``.

        Raises:
            ValueError: If the value is none of these.
        """
        if isinstance(value, int | float) and not isinstance(value, bool):
            return cls(float(value), float(value))
        if isinstance(value, str) and (match := re.fullmatch(r"over (\d+(?:\.\d+)?)", value)):
            return cls(float(match[1]), None)
        if isinstance(value, list) and len(value) == 2:  # noqa: PLR2004 -- low and high
            low, high = (cls.parse(end).low for end in value)
            if low is not None and high is not None and low <= high:
                return cls(low, high)
        raise ValueError(value)

    def reached(self, value: float) -> bool:
        """Whether an outcome is at least what was expected."""
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
    """What `load_recipe` found it by."""

    summary: str
    """What it is for, in a few words."""

    profile: Profile
    start: Start
    train: dict[str, Any]
    """Ultralytics' argument names and final values, defaults included."""

    expect: dict[str, Band]
    """Expected outcome: `METRICS` as fractions of 1, and ``hours``."""

    risk: str | None = None
    advised: str | None = None
    """When to use it, for people."""

    given: frozenset[str] = frozenset()
    """The arguments that somebody chose, whatever their values; the others have Ultralytics' defaults."""

    @property
    def digest(self) -> str:
        """SHA-256 over what decides the outcome: name, start and arguments."""
        decides = {"name": self.name, "start": str(self.start), "train": self.train}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def with_arguments(self, overrides: dict[str, Any]) -> "Recipe":
        """Return the recipe with some training arguments replaced.

        Raises:
            RecipeError: If a name or a value is not acceptable; lists every problem.
        """
        values, problems = check_arguments(overrides)
        if problems:
            raise RecipeError(f"training arguments: {_num_problems(problems)}", problems)
        return dataclasses.replace(self, train=self.train | values, given=self.given | values.keys())

    def with_start(self, start: Start) -> "Recipe":
        """Return the recipe with another start."""
        return dataclasses.replace(self, start=start)


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the job, in the order in which people meet them."""
    order = ["base", "continue", "finetune", "transfer", "A", "B", "C", "recommended"]
    found = {
        Path(entry.name).stem for entry in resources.files("job.recipes").iterdir() if entry.name.endswith(".yaml")
    }
    return sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))


def load_recipe(name_or_path: str, profile: Profile = "full") -> Recipe:
    """Load a recipe by name, or from a YAML file of the user's own.

    Args:
        name_or_path: A name of `recipe_names`, or a path that ends in ``.yaml`` or ``.yml``.
        profile: ``demo`` applies the recipe's own small-scale values.

    Raises:
        RecipeError: If there is no such recipe, or it is wrong; lists every problem.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        try:
            with path.open(encoding="utf-8") as opened:
                text = opened.read(MAX_BYTES + 1)  # enough to see that it is too large
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read, {error.strerror}; pass a readable recipe file") from error
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path}: is not UTF-8 text; pass a recipe file in YAML") from error
        return parse_recipe(text, name=path.stem, source=name_or_path, profile=profile)
    names = recipe_names()
    if name_or_path not in names:
        raise RecipeError(
            f"recipe {name_or_path!r}: no such recipe{nearest(name_or_path, names)}; "
            f"take one of {', '.join(names)}, or a path to a .yaml file"
        )
    text = resources.files("job.recipes").joinpath(f"{name_or_path}.yaml").read_text(encoding="utf-8")
    return parse_recipe(text, name=name_or_path, source=name_or_path, profile=profile)


def parse_recipe(text: str, *, name: str, source: str, profile: Profile = "full") -> Recipe:
    """Read and check a recipe.

    Args:
        text: The YAML.
        name: The recipe's name.
        source: What messages call it.
        profile: Which scale to resolve for; both are checked.

    Raises:
        RecipeError: Lists every problem.
    """
    try:
        loaded = load_yaml(text)
    except UnreadableYamlError as error:
        raise RecipeError(f"recipe {source}: cannot be read as YAML, {error}; correct the file") from error
    if not isinstance(loaded, dict):
        raise RecipeError(
            f"recipe {source}: must be a mapping with the keys start and train, got {type(loaded).__name__}"
        )
    reader = _Reader(loaded)
    reader.keys("", loaded, required=("start", "train"), optional=("summary", "risk", "advised", "expect", "demo"))
    start, train = reader.start(loaded.get("start"), "start"), reader.arguments(loaded.get("train", {}), "train")
    summary, risk, advised = (reader.text(key) for key in ("summary", "risk", "advised"))
    expect = reader.expectations(loaded.get("expect", {}))
    demo = reader.section(loaded.get("demo", {}), "demo")
    reader.keys("demo.", demo, required=(), optional=("start", "train"))
    demo_start = reader.start(demo["start"], "demo.start") if "start" in demo else start
    demo_train = reader.arguments(demo.get("train", {}), "demo.train")
    if reader.problems:
        raise RecipeError(f"recipe {source}: {_num_problems(reader.problems)}", reader.problems)
    chosen = train | (demo_train if profile == "demo" else {})
    return Recipe(
        name=name,
        source=source,
        summary=summary or "",
        profile=profile,
        start=demo_start if profile == "demo" else start,
        train=DEFAULTS | chosen,
        given=frozenset(chosen),
        expect=expect,
        risk=risk,
        advised=advised,
    )


class _Reader:
    """Reads parts of a recipe and keeps every problem for the one message at the end."""

    def __init__(self, loaded: dict[Any, Any]) -> None:
        self.loaded = loaded
        self.problems: list[str] = []

    def keys(self, where: str, section: dict[Any, Any], required: tuple[str, ...], optional: tuple[str, ...]) -> None:
        known = [*required, *optional]
        self.problems += [
            f"{where}{key}: unknown key{nearest(str(key), known) or '; known are ' + ', '.join(known)}"
            for key in section
            if key not in known
        ]
        self.problems += [f"{where}{key}: missing" for key in required if key not in section]

    def section(self, value: object, where: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self.problems.append(f"{where}: must be a mapping, got {value!r}")
        return {}

    def text(self, key: str) -> str | None:
        value = self.loaded.get(key)
        if value is None or isinstance(value, str):
            return value
        self.problems.append(f"{key}: must be text, got {value!r}")
        return None

    def start(self, value: object, where: str) -> Start:
        try:
            return Start.parse(value if isinstance(value, str) else "")
        except ValueError:
            if value is not None or where != "start" or "start" in self.loaded:
                self.problems.append(
                    f"{where}: must be 'own best.pt', 'own best.pt of RECIPE', name.pt or name.yaml, got {value!r}"
                )
            return Start("scratch")

    def arguments(self, value: object, where: str) -> dict[str, Any]:
        values, problems = check_arguments(self.section(value, where), subject=f"{where}.")
        self.problems += problems
        return values

    def expectations(self, value: object) -> dict[str, Band]:
        known = (*METRICS, "hours")
        section = self.section(value, "expect")
        self.keys("expect.", section, required=(), optional=known)
        bands: dict[str, Band] = {}
        for key in known:
            if key not in section:
                continue
            try:
                band = Band.parse(section[key])
            except ValueError:
                band = None
            if band is None or (key != "hours" and max(end for end in (band.low, band.high, 0.0) if end) > 1):
                scale = "hours" if key == "hours" else "fractions of 1"
                self.problems.append(
                    f"expect.{key}: must be a number, [low, high] or 'over number' in {scale}, got {section[key]!r}"
                )
            else:
                bands[key] = band
        return bands


def _num_problems(problems: list[str]) -> str:
    return f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"

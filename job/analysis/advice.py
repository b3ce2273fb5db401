"""Advice after a run: the table of `RULES` on its records.

Guarantees that the same records give the same advice, that advice names its rule and figures, and that advice on too
little data says so. Knows nothing of buckets.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass

from job.analysis.class_falls import find_class_falls
from job.analysis.falls import Schedule, find_falls
from job.analysis.learning_curve import Trend, describe_trend, trend_of
from job.analysis.options import EXTEND, Option, find_option
from job.analysis.summary import RunSummary, comparable
from job.datasets.dataset_statistics import SMALL_PX
from job.text import counted
from job.training.evaluation_record import Evaluation, SizeEvaluation

TARGET_F1 = 0.72
"""Target F1 without ``--target-f1``: recipe C's goal."""

ENOUGH_FOR_C = 0.68
"""Lowest F1 for recipe C, by its authors' condition."""

DECENT_F1 = 0.50
"""Lowest F1 of a decent detector, worth improving rather than replacing."""

ROBUST_GAP = 0.10
"""Largest difference of precision and recall of a robust detector."""

GAIN = 0.005
"""A recipe helps only if its band ends this far above the current F1."""

MORE_PIXELS = 1.25
"""Files have more pixels than training sees if their longer side is this many times `imgsz`: 20 px instead of 16."""

MOST_MISSES = 0.5
"""Misses lie with small objects if these are at least this share of the missed."""

NUM_EPOCHS_TO_TRUST = 10
NUM_VAL_IMAGES_TO_TRUST = 50

AUGMENTED = ("A", "recommended", "finetune", "C", "T")
"""Recipes that improve own weights by augmentation."""

BEFORE_C = ("A", "recommended", "finetune")
"""Those of them whose weights recipe C may continue."""

LARGER = ("B", "transfer")
"""Recipes of a larger model."""

TILED = "T"
"""The recipe that trains on tiles of the files."""

NOTHING_HELPS = "no recipe that was not tried is expected to help; more or better pictures come next"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The next step after a run, and its reason."""

    run: str
    rule: str
    """Name of the deciding rule of `RULES`."""

    because: str
    trend: Trend
    options: tuple[Option, ...]
    """Options that may help, the advised one first; empty if there is nothing to do, or nothing helps."""

    thin: tuple[str, ...]
    """Why the data are too few to trust the advice; empty if they suffice."""

    better: str | None = None
    """A better run on the same validation set, if there is one."""

    falls: tuple[str, ...] = ()
    """Falls of F1 in the run, each with cause and remedy, and classes that fell."""

    @property
    def recipe(self) -> str | None:
        """The advised recipe, if there is one."""
        return self.options[0].recipe if self.options else None

    def to_json(self) -> dict[str, object]:
        """Return the advice as plain values."""
        return {**asdict(self), "trend": str(self.trend), "recipe": self.recipe}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Input of the rules."""

    target: float
    f1: float
    precision: float
    recall: float
    trend: Trend
    trained_as: str
    """The shipped recipe that matches the training arguments."""

    recipe_epochs: int | None
    """The epochs of that recipe, if it is a shipped one."""

    num_epochs: int
    """The epochs that the run was trained."""

    tried: frozenset[str]
    """Recipes of all finished runs on the same validation set, with this run's."""

    augmented_f1: float | None
    """The best F1 of those in `AUGMENTED`."""

    imgsz: int
    side_px: int | None
    """Median of the longer sides of the files' pictures, if recorded."""

    sizes: tuple[SizeEvaluation, ...]
    """Objects of the validation set by size at `imgsz`; none without an evaluation."""

    @property
    def num_missed(self) -> int:
        """Missed objects."""
        return sum(size.num_objects - size.num_found for size in self.sizes)

    @property
    def num_missed_small(self) -> int:
        """Missed objects under `SMALL_PX`."""
        small = [size for size in self.sizes if size.to_px is not None and size.to_px <= SMALL_PX]
        return sum(size.num_objects - size.num_found for size in small)

    @property
    def misses_small_objects(self) -> bool:
        """Whether the files have more pixels than training sees, and the misses lie with small objects."""
        if not self.side_px or not self.num_missed:
            return False
        lies_there = self.num_missed_small >= MOST_MISSES * self.num_missed
        return lies_there and self.side_px >= MORE_PIXELS * self.imgsz

    @property
    def misses(self) -> str:
        """Missed small objects and the size of the files, as text."""
        missed = f"{self.num_missed_small} of {self.num_missed} missed objects are under {SMALL_PX} px"
        return f"{missed} at {self.imgsz} px, and the files have {self.side_px} px"

    @property
    def words(self) -> dict[str, object]:
        """What a rule's reason may name, apart from the trend."""
        return {
            "target": self.target,
            "figures": self.figures,
            "misses": self.misses,
            "recipe": self.trained_as,
            "epochs": None if self.recipe_epochs is None else counted(self.recipe_epochs, "epoch"),
        }

    @property
    def decent(self) -> bool:
        """Whether the run is worth improving rather than replacing."""
        return self.f1 >= DECENT_F1

    @property
    def robust(self) -> bool:
        """Whether precision and recall are close to each other."""
        return abs(self.precision - self.recall) <= ROBUST_GAP

    @property
    def augmented(self) -> bool:
        """Whether this run or another improved own weights by augmentation."""
        return self.augmented_f1 is not None

    @property
    def augmented_in_vain(self) -> bool:
        """Whether own weights were improved by augmentation, and no result is good enough for recipe C."""
        return self.augmented_f1 is not None and max(self.augmented_f1, self.f1) < ENOUGH_FOR_C

    @property
    def ended_early(self) -> bool:
        """Whether it was trained too few epochs for a trend, and fewer than its recipe has."""
        return self.trend is Trend.UNCLEAR and self.recipe_epochs is not None and self.num_epochs < self.recipe_epochs

    @property
    def figures(self) -> str:
        """F1, precision and recall, as text."""
        return f"F1 {self.f1:.1%}, precision {self.precision:.1%}, recall {self.recall:.1%}"

    def untried(self, *recipes: str) -> list[str]:
        """Return the recipes that were not tried."""
        return [name for name in recipes if name not in self.tried]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule."""

    name: str
    applies: Callable[[Case], bool]
    recipes: Callable[[Case], list[str]]
    """Options that may help, the advised one first."""

    because: str
    """The reason, with ``{target}``, ``{figures}``, ``{trend}``, ``{misses}``, ``{recipe}`` and ``{epochs}``."""


RULES = (
    Rule(
        "target reached",
        lambda case: case.f1 >= case.target,
        lambda _case: [],
        "{figures}: the target of {target:.0%} is reached, nothing more is needed",
    ),
    Rule(
        "not trained to its end",
        lambda case: case.ended_early,
        lambda _case: [EXTEND],
        "{figures}; {trend}: train {recipe} to its end, {epochs}",
    ),
    Rule(
        "small objects missed",
        lambda case: case.misses_small_objects and TILED not in case.tried,
        lambda case: [TILED, *case.untried("A")],
        "{figures}: {misses}",
    ),
    Rule(
        "good enough for C",
        lambda case: case.trained_as in {*BEFORE_C, "continue"} and case.f1 >= ENOUGH_FOR_C and "C" not in case.tried,
        lambda case: ["C", *case.untried(*LARGER)],
        "{figures}: F1 68 % or more, which is what C asks for",
    ),
    Rule(
        "decent, not robust, still improving",
        lambda case: case.trend is Trend.IMPROVING and case.decent and not case.robust and not case.augmented,
        lambda case: [*case.untried("A"), "continue", *case.untried("finetune"), EXTEND],
        "{figures}: decent, but precision and recall are far apart; {trend}",
    ),
    Rule(
        "still improving",
        lambda case: case.trend is Trend.IMPROVING,
        lambda case: (
            [EXTEND]  # `continue` would leave the tiles
            if case.trained_as == TILED
            else ["continue", EXTEND, *case.untried("A" if not case.augmented else "B")]
        ),
        "{figures}; {trend}: it ended too early",
    ),
    Rule(
        "A not enough",
        lambda case: case.augmented_in_vain,
        lambda case: case.untried(*LARGER),
        "{figures}; {trend}: augmentation of own weights was not enough for 68 %",
    ),
    Rule(
        "decent",
        lambda case: case.decent and not case.augmented and case.trained_as not in LARGER,
        lambda case: case.untried("A", "finetune"),
        "{figures}; {trend}: decent, and more of the same would not make it robust",
    ),
    Rule(
        "weak, too few epochs",
        lambda case: case.trend is Trend.UNCLEAR and case.trained_as not in LARGER and not case.augmented,
        lambda _case: ["continue", EXTEND],
        "{figures}; {trend}: weak, and it has hardly been trained",
    ),
    Rule(
        "weak",
        lambda case: not case.decent,
        lambda case: case.untried(*LARGER),
        "{figures}; {trend}: too weak to be improved by augmentation",
    ),
    Rule(
        "below the target",
        lambda _case: True,
        lambda case: case.untried(*LARGER),
        "{figures}; {trend}: below the target of {target:.0%}",
    ),
)
"""In order of precedence: the first rule that applies and has an option decides. For an unfinished run the advice is to
finish it.
"""

NEXT_STEPS = {
    ("C",): "aggressive fine-tuning of these weights ({}) is the next step",
    ("A", "finetune"): "augmentation ({}) is the next step",
    ("continue", EXTEND): "more of the same ({}) comes first",
    LARGER: "a larger model ({}) is next",
    (TILED,): "training on tiles of the files ({}) is next",
}
"""Sentences of the next step, by kind of recipe."""


def advise(
    run: RunSummary,
    others: Sequence[RunSummary] = (),
    *,
    bucket: str,
    target: float = TARGET_F1,
    usd_per_hour: float | None = None,
    without: Collection[str] = (),
    start: Evaluation | None = None,
) -> Advice:
    """Return the next step after a run.

    Args:
        run: The run; with its evaluation, small objects that it misses count.
        others: Other finished runs; those on another validation set or at another scale do not count.
        bucket: Named in the commands.
        target: The F1 to reach.
        usd_per_hour: Price of the machine, if known.
        without: Names of excluded options.
        start: Evaluation of the start weights; with it and the run's evaluation, classes that fell are named.
    """
    if run.after is None:
        because = "the run is not finished; the command that started it resumes it"
        return Advice(run=run.run, rule="unfinished", because=because, trend=Trend.UNCLEAR, options=(), thin=())
    without = {*without, *([EXTEND] if run.record.imported else [])}
    alike = comparable(run, others)
    scores = [(other.after["f1"], other) for other in (run, *alike) if other.after]
    best_f1, best = max(scores, key=lambda score: score[0])
    case = _case_of(run, scores, target)
    applying = [rule for rule in RULES if rule.applies(case)]
    options = {}
    for rule in applying:
        names = [name for name in rule.recipes(case) if name not in without]
        found = [find_option(name, run, alike, bucket=bucket, usd_per_hour=usd_per_hour) for name in names]
        options[rule.name] = tuple(option for option in found if _may_help(option))
    is_enough = case.f1 >= target
    rule = next((rule for rule in applying if is_enough or options[rule.name]), applying[0])
    because = rule.because.format(**case.words, trend=describe_trend(run.learning_curve))
    if options[rule.name]:
        because += f"; so {_next_step(options[rule.name])}"
    elif not is_enough:
        because += f"; {NOTHING_HELPS}"
    return Advice(
        run=run.run,
        rule=rule.name,
        because=because,
        trend=case.trend,
        options=options[rule.name],
        thin=tuple(_thin(run)),
        better=best.run if best_f1 > case.f1 else None,
        falls=(*_falls(run), *find_class_falls(start, run.evaluation)),
    )


def _case_of(run: RunSummary, scores: Sequence[tuple[float, RunSummary]], target: float) -> Case:
    """Return what the rules look at; `scores` are of the finished run itself and of those beside it."""
    metrics = run.after or {}
    return Case(
        target=target,
        **{name: metrics[name] for name in ("f1", "precision", "recall")},
        trend=trend_of(run.learning_curve),
        trained_as=run.trained_as,
        recipe_epochs=run.recipe_epochs,
        num_epochs=len(run.learning_curve),
        tried=frozenset(other.trained_as for _, other in scores),
        augmented_f1=max((f1 for f1, other in scores if other.trained_as in AUGMENTED), default=None),
        imgsz=run.train["imgsz"],
        side_px=statistics.side_px if (statistics := run.record.dataset.statistics) else None,
        sizes=tuple(run.evaluation.sizes) if run.evaluation else (),
    )


def _falls(run: RunSummary) -> tuple[str, ...]:
    before, schedule = run.before["f1"] if run.before else None, Schedule.of(run.record)
    return tuple(fall.describe(schedule) for fall in find_falls(run.learning_curve, before))


def _thin(run: RunSummary) -> list[str]:
    num_epochs, num_val = len(run.learning_curve), run.record.facts.num_val_images
    found = []
    if num_epochs < NUM_EPOCHS_TO_TRUST:
        found.append(f"{counted(num_epochs, 'epoch')}, and at least {NUM_EPOCHS_TO_TRUST} are needed to see a trend")
    if num_val is not None and num_val < NUM_VAL_IMAGES_TO_TRUST:
        few = f"with fewer than {NUM_VAL_IMAGES_TO_TRUST} a few objects decide F1"
        found.append(f"{counted(num_val, 'validation image')}, and {few}")
    if (statistics := run.record.dataset.statistics) and statistics.num_alike:
        found.append(
            f"{counted(statistics.num_alike, 'validation image')} like one that was trained on; metrics are too high"
        )
    if run.profile == "demo":
        found.append("the demo profile; what recipes expect is meant for full scale and the authors' data")
    return found


def _next_step(options: Sequence[Option]) -> str:
    """Return the sentence of the next step, with the recipes of the advised kind."""
    kind, text = next((kind, text) for kind, text in NEXT_STEPS.items() if options[0].recipe in kind)
    names = [option.recipe for option in options if option.recipe in kind]
    return text.format(", ".join(names))


def _may_help(option: Option) -> bool:
    """Whether a recipe's band ends above the current F1; more of the same is advised by the trend alone."""
    most = option.gain_f1[1]
    return option.recipe in {"continue", EXTEND} or most is None or most >= GAIN

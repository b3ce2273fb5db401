"""The page of a campaign: what was asked, what was run and why, what came of it, and which model is the best."""

from collections.abc import Sequence
from typing import Any

from job.analysis.campaign import Bound, Campaign, Goal, Step
from job.analysis.metrics import LABELS
from job.analysis.summary import RunSummary
from job.report import elements
from job.text import HOUR, duration

HEAD = ("", "recipe", "run", "F1 before", *LABELS.values(), "epochs", "time", "USD")


def write_page(campaign: Campaign) -> str:
    """Write the page that tells the story so far into the bucket, and return its address."""
    key = campaign.key("campaign.html")
    campaign.store.put(key, render(campaign).encode(), overwrite=True)
    return f"{campaign.store.uri}/{key}"


def render(campaign: Campaign) -> str:
    """Return the page."""
    goal, steps, evidence, final = campaign.goal(), campaign.steps(), campaign.evidence(), campaign.final()
    parts = [elements.paragraph(_asked(goal, campaign.bound()))] if goal else []
    if final is None:
        parts.append(elements.paragraph("It is not finished; the same command goes on with it.", "warning"))
    else:
        parts.append(elements.paragraph(f"{final['reason'].capitalize()}: {final['because']}."))
    best = final["best"] if final else None
    if final is not None and (best is not None or final.get("weights") is not None):
        parts += [elements.heading("The best model"), *_best(campaign, final, evidence)]
    marked = [number for number, step in enumerate(steps) if step.run == best]
    rows = [_row(step, entry) for step, entry in zip(steps, evidence, strict=True)]
    parts += [elements.heading("The runs"), elements.table(HEAD, rows, marked), elements.heading("Why each of them")]
    parts += [
        elements.paragraph(f"{step.number}. Recipe {step.recipe}, by the rule \u201c{step.rule}\u201d: {step.because}.")
        for step in steps
    ]
    if goal is not None:
        parts += [elements.heading("Again"), elements.code(_command(campaign, goal))]
    return elements.page(f"Campaign: {campaign.name}", parts)


def _asked(goal: Goal, bound: Bound | None) -> str:
    dollars = "" if goal.max_usd is None else f" and {goal.max_usd:g} USD"
    return (
        f"Asked for: F1 {goal.target_f1:.0%} on {goal.dataset}, profile {goal.profile}, within {goal.max_runs} runs"
        f"{dollars}." + (f" It can cost {bound} at worst." if bound else "")
    )


def address_of_best(campaign: Campaign, final: dict[str, Any]) -> str:
    """Return where the best weights of an ended campaign lie."""
    best, weights = final["best"], str(final.get("weights"))
    if best is None:
        return weights if "://" in weights or weights.startswith("/") else f"{campaign.store.uri}/{weights}"
    return f"{campaign.store.uri}/runs/{best}/weights/best.pt"


def _best(campaign: Campaign, final: dict[str, Any], evidence: Sequence[RunSummary | None]) -> list[str]:
    best = final["best"]
    after = next((entry.after for entry in evidence if entry is not None and entry.run == best), None)
    start = evidence[0].before if evidence and evidence[0] else None
    metrics = after or start or {}
    figures = ", ".join(f"{label} {metrics[name]:.1%}" for name, label in LABELS.items() if name in metrics)
    told = [
        elements.paragraph(f"Run {best}: {figures}." if best else f"{figures}."),
        elements.code(address_of_best(campaign, final)),
    ]
    if start and after is None:
        told.append(
            elements.paragraph(
                f"No run is better than what the first one started from, F1 {start['f1']:.1%}.", "warning"
            )
        )
    return told


def _row(step: Step, entry: RunSummary | None) -> tuple[str, ...]:
    name = (str(step.number), step.recipe, step.run)
    if entry is None or entry.before is None or entry.after is None:
        return (*name, "not finished", *[""] * (len(LABELS) + 3))
    after = entry.after
    return (
        *name,
        f"{entry.before['f1']:.1%}",
        *(f"{after[metric]:.1%}" for metric in LABELS),
        str(len(entry.course)),
        duration(entry.hours * HOUR),
        "unknown" if entry.usd is None else f"{entry.usd:.2f}",
    )


def _command(campaign: Campaign, goal: Goal) -> str:
    words = {
        "name": campaign.name,
        "target-f1": f"{goal.target_f1:g}",
        "max-runs": goal.max_runs,
        "max-usd": goal.max_usd,
        "profile": goal.profile,
        "dataset": goal.dataset,
        "weights": goal.weights,
        **goal.arguments,
        "bucket": campaign.store.uri,
    }
    return "job campaign " + " ".join(f"--{name}={value}" for name, value in words.items() if value is not None)

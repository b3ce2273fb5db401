"""HTML page of a campaign: goal, runs with the reason for each, best model, command.

Guarantees that it is made from the campaign's records alone, at any moment. Knows nothing of where runs are trained.
"""

import shlex

from job.analysis.campaign import Campaign, CampaignResult, Goal
from job.analysis.metrics import LABELS
from job.report.template import render_template
from job.runs.run import BEST_WEIGHTS


def write_page(campaign: Campaign) -> str:
    """Write the page into the bucket, in place of an earlier one, and return its address."""
    key = campaign.key("campaign.html")
    campaign.store.put(key, render(campaign).encode(), overwrite=True)
    return f"{campaign.store.uri}/{key}"


def render(campaign: Campaign) -> str:
    """Return the page as HTML."""
    record, result, runs = campaign.record(), campaign.result(), campaign.runs()
    return render_template(
        "campaign.html.j2",
        campaign=campaign,
        record=record,
        result=result,
        best_weights=address_of_best(campaign, result) if result and (result.best or result.weights) else None,
        before=runs[0].before if runs and runs[0] else None,
        after=next((run.after for run in runs if run and result and run.run == result.best), None),
        runs=list(zip(campaign.steps(), runs, strict=True)),
        labels=LABELS,
        command=_command(campaign, record.goal),
    )


def address_of_best(campaign: Campaign, result: CampaignResult) -> str:
    """Return the address of a finished campaign's best weights."""
    best, weights = result.best, str(result.weights)
    if best is None:
        return weights if "://" in weights or weights.startswith("/") else f"{campaign.store.uri}/{weights}"
    return f"{campaign.store.uri}/runs/{best}/{BEST_WEIGHTS}"


def _command(campaign: Campaign, goal: Goal) -> str:
    flags = {
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
    return shlex.join(["job", "campaign", *(f"--{name}={value}" for name, value in flags.items() if value is not None)])

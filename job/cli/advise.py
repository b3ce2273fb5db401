"""``job advise``: the next training after a run, by the rules of `job.analysis.advice`."""

from collections.abc import Sequence

from pydantic import Field

from job.analysis.advice import Advice, advise
from job.analysis.options import Option
from job.analysis.paired import describe_difference, f1_difference, pair, read_measurements
from job.analysis.summary import RunSummary, finished_runs, read_start_evaluation, read_summary, with_evaluation
from job.cli.command import command
from job.cli.options import BucketOption, JsonOption, PriceOption, TargetOption
from job.cli.runs import require_run
from job.errors import RunConflictError
from job.report.reproduce import resume_of
from job.runs.run import Run
from job.text import command_line, counted, labelled


class AdviseOptions(TargetOption, PriceOption, BucketOption, JsonOption):
    """Flags of ``job advise``."""

    positional = ("run",)

    run: str | None = Field(None, description="The run; the last to end if left out.")


@command(AdviseOptions, "job advise zebra --target-f1 0.75 --bucket gs://my-bucket")
def advise_next(options: AdviseOptions) -> None:
    """Print the next training after a run.

    Names the rule, the command, the expected gain and the cost, the interval of the run's F1, and whether a better run
    is distinguishable from it.
    """
    price, store = options.price_of(), options.store()
    finished = finished_runs(store)
    if options.run is not None:
        summary = read_summary(*require_run(store, options.run))
    elif finished:
        summary = finished[-1]
    else:
        raise RunConflictError(f"advise: no run in {store.uri} is finished; train one first, see `job train --help`")
    summary = with_evaluation(store, summary)
    start = read_start_evaluation(store, summary)
    advice = advise(summary, finished, bucket=store.uri, target=options.target_f1, usd_per_hour=price, start=start)
    alone = pair([read_measurements(store, summary)])
    f1 = alone and alone.value(0, "f1")
    better = next((entry for entry in finished if entry.run == advice.better), None)
    by = better and f1_difference(store, better, summary)
    notes = []
    if alone and f1 and f1.low is not None and f1.high is not None:
        within = "; the target lies within" if f1.low <= options.target_f1 <= f1.high else ""
        where = f"of {counted(alone.num_pictures, 'picture')} of {alone.basis.split}"
        figure = f"F1 {f1.value:.1%} at the thresholds of the {alone.basis.rule}, {f1.low:.1%} to {f1.high:.1%}"
        notes += labelled("interval", f"{figure}, 95 % by resampling {where}{within}")
    if by:
        notes += labelled("better", f"run {advice.better} has F1 {describe_difference(by)}, on the same pictures")
    lines, resume = format_advice(summary, advice, notes), None
    if summary.final is None:
        resume = resume_of(Run(store, summary.run))
        lines += command_line("run it", resume)
    options.print(advice.to_json() | {"f1": f1, "better_by": by, "resume": resume}, lines)


def format_advice(summary: RunSummary, advice: Advice, notes: Sequence[str] = ()) -> list[str]:
    """Return advice as lines for a terminal, with notes on the run's figures before the options."""
    ended = (
        f"{summary.final.reason} after {counted(len(summary.learning_curve), 'epoch')}"
        if summary.final
        else "not finished"
    )
    lines = labelled("run", f"{summary.run}, recipe {summary.recipe}, {ended}")
    lines += labelled("rule", advice.rule)
    lines += labelled("because", advice.because)
    for reason in advice.thin:
        lines += labelled("thin", reason)
    if advice.better is not None:
        lines += labelled("better", f"run {advice.better} reached more, see `job advise {advice.better}`")
    for fall in advice.falls:
        lines += labelled("fall", fall)
    lines += notes
    for number, option in enumerate(advice.options):
        lines += ["", *_format_option(option, "advised" if number == 0 else "or")]
    return lines


def _format_option(option: Option, label: str) -> list[str]:
    lines = labelled(label, option.title)
    lines += command_line("run it", option.command)
    lines += labelled("gain", option.gain)
    lines += labelled("cost", option.time)
    if option.price is not None:
        lines += labelled("", option.price)
    return lines

"""The command line for what comes after a run, or interferes with it: extend, stop, compare, advise and so on."""

from typing import Any

from job.cli.invocation import command


@command
def extend(
    old: str,
    *,
    epochs: str,
    run: str | None = None,
    bucket: str | None = None,
    device: str = "",
    workers: str | None = None,
    workdir: str = "work",
    checkpoint_every: str = "60",
    hang_after: str = "1800",
) -> None:
    """Go on with a finished run exactly where it stood, for more epochs, as a new run; the old one is left alone.

    Args:
        old: The run that is finished, or stopped early.
        epochs: The new total; more than it has trained.
        run: The new run's name; the next free one of yolov11_wildlife, yolov11_wildlife2, ... if left out.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
        device: cpu, 0, 1, ...; chosen if left out.
        workers: Processes that load images.
        workdir: A folder on this machine for data and files on their way.
        checkpoint_every: Seconds between checkpoints within an epoch; 0 takes them at the ends of epochs only.
        hang_after: Seconds without a step or a batch of a validation after which a training ends with exit 75;
            0 waits for ever.
    """
    from job.cli.extend import extend_run

    extend_run(
        old,
        epochs=epochs,
        run=run,
        bucket=bucket,
        device=device,
        workers=workers,
        workdir=workdir,
        checkpoint_every=checkpoint_every,
        hang_after=hang_after,
    )


@command
def stop(run: str, *, bucket: str | None = None) -> None:
    """Ask a running job, wherever it is, to commit and end as paused; the command that started it goes on with it.

    Args:
        run: The run's name.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
    """
    from job.cli.stop import stop_run

    stop_run(run, bucket)


@command
def advise(
    run: str | None = None,
    *,
    target_f1: str = "0.72",
    usd_per_hour: str | None = None,
    bucket: str | None = None,
    json: str = "false",
) -> None:
    """Say what to do after a run, by which rule, with the command, the expected gain and the cost.

    Args:
        run: The run; the one that ended last if left out.
        target_f1: The F1 that is good enough, 0.72 or 72%.
        usd_per_hour: What an hour of the machine costs; JOB_USD_PER_HOUR if left out.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
        json: Print the advice as JSON.
    """
    from job.cli.advise import print_advice

    print_advice(run, bucket, target_f1=target_f1, usd_per_hour=usd_per_hour, json=json)


@command
def compare(*runs: str, html: str | None = None, bucket: str | None = None, json: str = "false") -> None:
    """Put two or more runs side by side: recipe, data, result, cost; says whether their metrics may be compared.

    Args:
        runs: The runs' names.
        html: A file to write the same to as a page.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
        json: Print the comparison as JSON.
    """
    from job.cli.compare import compare_runs

    compare_runs(runs, bucket, html=html, json=json)


@command
def estimate(
    recipe: str | None = None,
    *,
    machine: str | None = None,
    usd_per_hour: str | None = None,
    bucket: str | None = None,
    dataset: str | None = None,
    weights: str | None = None,
    model: str | None = None,
    profile: str = "full",
    device: str = "",
    workers: str | None = None,
    workdir: str = "work",
    new_classes: str = "false",
    quarantine: str = "false",
    json: str = "false",
    **training_arguments: str,
) -> None:
    """Say what a training will take, in time and dollars: by a run like it, or by a few steps trained here.

    Args:
        recipe: A name of `job recipes list`, or a path to a YAML file.
        machine: A kind of machine, such as l4-spot, that earlier runs were trained on; this machine if left out.
        usd_per_hour: What an hour of the machine costs; if left out, the high end of what is known of the machine that
            is named, or else JOB_USD_PER_HOUR.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
        dataset: A folder under datasets/ in the bucket; may be left out when there is one.
        weights: Start weights, as for `job train`.
        model: Replaces the start, as for `job train`.
        profile: full, or demo for the recipe at the scale of a laptop.
        device: cpu, 0, 1, ...; chosen if left out.
        workers: Processes that load images.
        workdir: A folder on this machine for data and files on their way.
        new_classes: The weights have other classes than the data, and that is meant.
        quarantine: Set broken images and labels aside instead of refusing the dataset.
        json: Print the estimate as JSON.
        **training_arguments: Any training argument of Ultralytics, such as --epochs 50.
    """
    from job.cli.estimate import print_estimate

    print_estimate(
        recipe=recipe,
        machine=machine,
        usd_per_hour=usd_per_hour,
        bucket=bucket,
        dataset=dataset,
        weights=weights,
        model=model,
        profile=profile,
        device=device,
        workers=workers,
        workdir=workdir,
        new_classes=new_classes,
        quarantine=quarantine,
        json=json,
        training_arguments=training_arguments,
    )


@command
def campaign(
    *,
    target_f1: str = "0.72",
    max_runs: str = "4",
    max_usd: str | None = None,
    usd_per_hour: str | None = None,
    name: str | None = None,
    cloud: str | None = None,
    bucket: str | None = None,
    dataset: str | None = None,
    weights: str | None = None,
    profile: str = "full",
    device: str = "",
    workers: str | None = None,
    workdir: str = "work",
    checkpoint_every: str = "60",
    hang_after: str = "1800",
    new_classes: str = "false",
    quarantine: str = "false",
    **training_arguments: str,
) -> None:
    """Train A, then C or B as `job advise` says, until the target is reached, the budget spent, or nothing helps.

    The same command goes on after any interruption. A run that has begun is finished, whatever it costs.

    Args:
        target_f1: The F1 that is good enough, 0.72 or 72%.
        max_runs: At most so many runs.
        max_usd: No run is begun that could take the cost over so many dollars; without it, runs in the cloud have the
            limit of the settings each, and the campaign that of --max-runs such runs.
        usd_per_hour: What an hour of the machine costs; JOB_USD_PER_HOUR if left out.
        name: The campaign's name; campaign, campaign2, ... if left out.
        cloud: Train on Cloud Batch, on Spot machines of this kind (l4, a100, ...); this command then stays, decides and
            supervises. On this machine if left out.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
        dataset: A folder under datasets/ in the bucket; may be left out when there is one.
        weights: What A starts from, as for `job train`; the best finished run on the same data if left out.
        profile: full, or demo for the recipes at the scale of a laptop.
        device: cpu, 0, 1, ...; chosen if left out.
        workers: Processes that load images.
        workdir: A folder on this machine for data and files on their way.
        checkpoint_every: Seconds between checkpoints within an epoch; 0 takes them at the ends of epochs only.
        hang_after: Seconds without a step or a batch of a validation after which a training ends with exit 75;
            0 waits for ever.
        new_classes: The weights have other classes than the data, and that is meant.
        quarantine: Set broken images and labels aside instead of refusing the dataset.
        **training_arguments: Any training argument of Ultralytics, such as --epochs 50; for every run.
    """
    from job.cli.campaign import run_campaign

    run_campaign(
        target_f1=target_f1,
        max_runs=max_runs,
        max_usd=max_usd,
        usd_per_hour=usd_per_hour,
        name=name,
        cloud=cloud,
        bucket=bucket,
        dataset=dataset,
        weights=weights,
        profile=profile,
        device=device,
        workers=workers,
        workdir=workdir,
        checkpoint_every=checkpoint_every,
        hang_after=hang_after,
        new_classes=new_classes,
        quarantine=quarantine,
        training_arguments=training_arguments,
    )


@command
def wandb_sync(run: str, *, bucket: str | None = None) -> None:
    """Bring Weights & Biases up to date with a run: what was logged without a key, or while the server was away.

    Args:
        run: The run's name.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
    """
    from job.cli.wandb import sync_run

    sync_run(run, bucket)


RUN_COMMANDS: dict[str, Any] = {
    "extend": extend,
    "stop": stop,
    "compare": compare,
    "advise": advise,
    "estimate": estimate,
    "campaign": campaign,
    "wandb": {"sync": wandb_sync},
}

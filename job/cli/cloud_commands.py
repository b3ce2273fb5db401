"""The command line for runs in the cloud: submit, supervise, status, logs, cancel."""

import re
from functools import wraps
from typing import Any

from job.cli.invocation import command


def submit(
    recipe: str | None = None,
    *,
    machine: str = "l4",
    on_demand: str = "false",
    deadline: str | None = None,
    max_usd: str | None = None,
    no_limit: str = "false",
    supervise: str = "false",
    project: str | None = None,
    region: str | None = None,
    image: str | None = None,
    service_account: str | None = None,
    network: str | None = None,
    subnetwork: str | None = None,
    wandb_secret: str | None = None,
    bucket: str | None = None,
    dataset: str | None = None,
    run: str | None = None,
    weights: str | None = None,
    model: str | None = None,
    profile: str = "full",
    device: str = "",
    workers: str | None = None,
    checkpoint_every: str = "60",
    hang_after: str = "1800",
    new_classes: str = "false",
    quarantine: str = "false",
    **training_arguments: str,
) -> None:
    """Send a training to Cloud Batch, on a Spot machine; submitting twice is once.

    The flags of `job train` are understood as well. What belongs to the cloud alone is read from infra/outputs.json,
    then cloud.yaml, then flags.

    Args:
        recipe: A name of `job recipes list`.
        machine: l4, a100, a100-80, h100, t4 or a machine type; several with commas are tried in turn.
        on_demand: Pay the full price for a machine that is not taken away.
        deadline: When it should be finished, 12h from now or a time such as 2026-12-24T18:00; on demand is chosen if
            Spot would miss it.
        max_usd: What the run may cost, in dollars for machines. If left out it is 50, or 48 hours of machines whose
            price is not known; cloud.yaml may have others, under max_usd and max_hours.
        no_limit: Let it cost whatever it takes.
        supervise: Stay, and keep the run going until it is finished.
        project: The project's id.
        region: Where the job and its machines are; near the bucket.
        image: REPOSITORY/NAME@sha256:DIGEST, or NAME@sha256:DIGEST in the repository of infra/outputs.json.
        service_account: The e-mail address that the training runs as.
        network: projects/P/global/networks/NAME.
        subnetwork: projects/P/regions/R/subnetworks/NAME.
        wandb_secret: The secret with the W&B key, projects/P/secrets/NAME.
        bucket: gs://bucket/prefix; JOB_BUCKET, or the settings, if left out.
        dataset: A folder under datasets/ in the bucket; may be left out when there is one.
        run: The run's name; yolov11_wildlife, yolov11_wildlife2, ... if left out.
        weights: Start weights: a run, a path in the bucket such as runs/NAME/weights/best.pt, or a gs:// URI.
        model: Replaces the start: NAME.pt for published weights, NAME.yaml to train from scratch.
        profile: full, or demo for the recipe at the scale of a laptop.
        device: The GPU, 0, if left out.
        workers: Processes that load images.
        checkpoint_every: Seconds between checkpoints within an epoch; 0 takes them at the ends of epochs only.
        hang_after: Seconds without a step or a batch of a validation after which a training ends with exit 75;
            0 waits for ever.
        new_classes: The weights have other classes than the data, and that is meant.
        quarantine: Set broken images and labels aside instead of refusing the dataset.
        **training_arguments: Any training argument of Ultralytics, such as --epochs 50.
    """
    from job.cli.submit import run_submit

    run_submit(
        recipe=recipe,
        machine=machine,
        on_demand=on_demand,
        deadline=deadline,
        max_usd=max_usd,
        no_limit=no_limit,
        supervise=supervise,
        project=project,
        region=region,
        image=image,
        service_account=service_account,
        network=network,
        subnetwork=subnetwork,
        wandb_secret=wandb_secret,
        bucket=bucket,
        dataset=dataset,
        run=run,
        weights=weights,
        model=model,
        profile=profile,
        device=device,
        workers=workers,
        checkpoint_every=checkpoint_every,
        hang_after=hang_after,
        new_classes=new_classes,
        quarantine=quarantine,
        training_arguments=training_arguments,
    )


@wraps(submit, assigned=())
def render(recipe: str | None = None, **flags: Any) -> None:  # noqa: ANN401 -- text, as `submit` names it
    """Print the Cloud Batch job that `job submit` would make, as JSON; nothing is looked up or made."""
    from job.cli.submit import run_render

    known = {name: value for name, value in (submit.__kwdefaults__ or {}).items() if name != "supervise"}
    named = {name: flags.pop(name, default) for name, default in known.items()}
    run_render(recipe=recipe, **named, training_arguments=flags)


_explained = (submit.__doc__ or "").partition("\n\n")[2]
render.__doc__ = (render.__doc__ or "") + "\n\n" + re.sub(r" +supervise: .*\n", "", _explained)


@command
def limit(machine: str, *, max_usd: str | None = None, no_limit: str = "false") -> None:
    """Print for how many hours a Spot machine may run within the limit of the settings, or never if there is none.

    Args:
        machine: As `job submit` has it.
        max_usd: What it may cost, in dollars; if left out, 50, or 48 hours of a machine whose price is not known, or
            what cloud.yaml has under max_usd and max_hours.
        no_limit: Let it run for ever.
    """
    from job.cli.submit import print_limit

    print_limit(machine, max_usd=max_usd, no_limit=no_limit)


@command
def supervise(
    run: str,
    *,
    bucket: str | None = None,
    resume: str = "false",
    deadline: str | None = None,
    max_usd: str | None = None,
    no_limit: str = "false",
    poll: str = "60",
    **settings: str,
) -> None:
    """Keep a submitted run going, submission by submission, until it is finished, failed for good, or at its limit.

    What the bucket's records ask for is done only if it is what the settings of this machine allow.

    Args:
        run: The run's name.
        bucket: gs://bucket/prefix; JOB_BUCKET, or the settings, if left out.
        resume: Go on with a run that was cancelled or given up.
        deadline: Replaces the one it was submitted with.
        max_usd: Replaces the limit it was submitted with, which may be no higher than that of the settings.
        no_limit: Let it cost whatever it takes.
        poll: Seconds between two looks.
        **settings: Settings that are in no file, as `job submit` has them: --project, --region, --service-account, ...
    """
    from job.cli.supervise import run_supervise

    run_supervise(
        run,
        bucket,
        resume=resume,
        deadline=deadline,
        max_usd=max_usd,
        no_limit=no_limit,
        poll=poll,
        settings=settings,
    )


@command
def status(run: str, *, bucket: str | None = None, **settings: str) -> None:
    """Show a submitted run: its state, its submissions and attempts, what it cost, and what comes next.

    Args:
        run: The run's name.
        bucket: gs://bucket/prefix; JOB_BUCKET, or the settings, if left out.
        **settings: --project and --region, if they are in no file.
    """
    from job.cli.supervise import print_status

    print_status(run, bucket, settings)


@command
def logs(run: str, *, bucket: str | None = None, submission: str | None = None, **settings: str) -> None:
    """Print what a submitted run wrote, oldest line first.

    Args:
        run: The run's name.
        bucket: gs://bucket/prefix; JOB_BUCKET, or the settings, if left out.
        submission: One submission's number; all of them if left out.
        **settings: --project and --region, if they are in no file.
    """
    from job.cli.supervise import print_logs

    print_logs(run, bucket, submission, settings)


@command
def cancel(run: str, *, bucket: str | None = None, **settings: str) -> None:
    """Cancel a submitted run's job; what is committed stays, and the run can be continued.

    Args:
        run: The run's name.
        bucket: gs://bucket/prefix; JOB_BUCKET, or the settings, if left out.
        **settings: --project and --region, if they are in no file.
    """
    from job.cli.supervise import run_cancel

    run_cancel(run, bucket, settings)


CLOUD_COMMANDS: dict[str, Any] = {
    "submit": command(submit),
    "render": command(render),
    "limit": limit,
    "supervise": supervise,
    "status": status,
    "logs": logs,
    "cancel": cancel,
}

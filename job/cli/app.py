"""The command line: Fire reads it, and nothing runs before all of it is understood.

Commands receive text and return an invocation that has not run yet, see `invocation`. Those for what comes after a run
are in `cli_runs`, those for runs in the cloud in `cli_cloud`.
"""

import contextlib
import io
import logging
import sys
from typing import Any

import fire

from job.cli.cloud_commands import CLOUD_COMMANDS
from job.cli.help import explain_misuse, find_help
from job.cli.invocation import Invocation, command
from job.cli.runs_commands import RUN_COMMANDS
from job.errors import (
    GOES_ON,
    DefectError,
    ExitCode,
    JobError,
    OutputClosedError,
    OutputError,
    PreemptionError,
    UsageError,
)
from job.log import EscapedStream, set_up_logging
from job.training.signals import TRAINS

log = logging.getLogger(__name__)


@command
def train(
    recipe: str | None = None,
    *,
    bucket: str | None = None,
    dataset: str | None = None,
    run: str | None = None,
    weights: str | None = None,
    model: str | None = None,
    profile: str = "full",
    device: str = "",
    workers: str | None = None,
    workdir: str = "work",
    checkpoint_every: str = "60",
    hang_after: str = "1800",
    new_classes: str = "false",
    quarantine: str = "false",
    dry_run: str = "false",
    **training_arguments: str,
) -> None:
    """Train a detector by a recipe: starts the run, continues it, or says that it is finished.

    Any training argument of Ultralytics is a flag as well: --epochs 50 --batch 4 --imgsz 2048 --rotate 15
    --hsv-s 0.8 --mosaic 1.0 --seed 1 and so on.

    Args:
        recipe: A name of `job recipes list`, or a path to a YAML file. Without it: continue if --weights is given,
            else base.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
        dataset: A folder under datasets/ in the bucket; may be left out when there is one.
        run: The run's name; yolov11_wildlife, yolov11_wildlife2, ... if left out.
        weights: Start weights: a run, a file here, a path in the bucket such as runs/NAME/weights/best.pt, or a URI.
        model: Replaces the start: NAME.pt for published weights, NAME.yaml to train from scratch.
        profile: full, or demo for the recipe at the scale of a laptop.
        device: cpu, 0, 1, ...; chosen if left out.
        workers: Processes that load images.
        workdir: A folder on this machine for data and files on their way.
        checkpoint_every: Seconds between checkpoints within an epoch; 0 takes them at the ends of epochs only.
        hang_after: Seconds without a step or a batch of a validation after which a training ends with exit 75;
            0 waits for ever.
        new_classes: The weights have other classes than the data, and that is meant.
        quarantine: Set broken images and labels aside instead of refusing the dataset.
        dry_run: Start nothing; print the fully resolved run as YAML.
        **training_arguments: Any training argument of Ultralytics, such as --epochs 50.
    """
    from job.cli.train import run_train

    run_train(
        recipe=recipe,
        bucket=bucket,
        dataset=dataset,
        run=run,
        weights=weights,
        model=model,
        profile=profile,
        device=device,
        workers=workers,
        workdir=workdir,
        checkpoint_every=checkpoint_every,
        hang_after=hang_after,
        new_classes=new_classes,
        quarantine=quarantine,
        dry_run=dry_run,
        training_arguments=training_arguments,
    )


@command
def verify_resume(
    *,
    recipe: str | None = None,
    kills: str = "5",
    seconds: str = "0",
    bucket: str | None = None,
    dataset: str | None = None,
    model: str | None = None,
    profile: str | None = None,
    device: str = "",
    workers: str | None = None,
    workdir: str = "work",
    **training_arguments: str,
) -> None:
    """Prove on this machine that killing a training changes nothing: trains a piece straight and killed, and compares.

    Prints PASS with the digests, or what differs first. Training arguments are flags, as for `job train`.

    Args:
        recipe: A name of `job recipes list`, or a path to a YAML file; A if left out.
        kills: How often the training is killed.
        seconds: At least so long is the piece when nobody kills it; 0 takes a few batches.
        bucket: Takes real data from there, at full scale; without it, the drawn data of the demo.
        dataset: A folder under datasets/ in the bucket; may be left out when there is one.
        model: NAME.yaml, trained from scratch; that of recipe base if left out.
        profile: full or demo.
        device: cpu, 0, 1, ...; chosen if left out.
        workers: Processes that load images.
        workdir: A folder on this machine for data and files on their way.
        **training_arguments: Any training argument of Ultralytics, such as --imgsz 640.
    """
    from job.cli.verify_resume import run_verify_resume

    run_verify_resume(
        recipe=recipe,
        kills=kills,
        seconds=seconds,
        bucket=bucket,
        dataset=dataset,
        run=None,
        weights=None,
        model=model,
        profile=profile,
        device=device,
        workers=workers,
        workdir=workdir,
        new_classes="false",
        quarantine="false",
        training_arguments=training_arguments,
    )


@command
def doctor(
    *,
    recipe: str | None = None,
    profile: str = "full",
    bucket: str | None = None,
    workers: str | None = None,
    workdir: str = "work",
    json: str = "false",
) -> None:
    """Check whether this machine can train: driver, GPU, disk, bucket, Weights & Biases, versions.

    Args:
        recipe: Judge the GPU's memory and shared memory for this recipe too.
        profile: full or demo.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out. Without one it is not tried.
        workers: Processes that load images.
        workdir: A folder on this machine for data and files on their way.
        json: Print the findings as JSON.
    """
    from job.cli.doctor import run_doctor

    run_doctor(recipe=recipe, profile=profile, bucket=bucket, workers=workers, workdir=workdir, json=json)


@command
def recipes_list() -> None:
    """List the recipes, with what each is for and what it is expected to reach."""
    from job.cli.recipes import list_recipes

    list_recipes()


@command
def recipes_show(name: str, *, profile: str = "full") -> None:
    """Show a recipe with every value decided.

    Args:
        name: A name of `job recipes list`, or a path to a YAML file.
        profile: full or demo.
    """
    from job.cli.recipes import show_recipe

    show_recipe(name, profile)


@command
def recipes_check(file: str) -> None:
    """Check a recipe file and report every problem.

    Args:
        file: A path to a YAML file, or a recipe's name.
    """
    from job.cli.recipes import check_recipe

    check_recipe(file)


@command
def runs_list(*, bucket: str | None = None) -> None:
    """List the runs in a bucket.

    Args:
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
    """
    from job.cli.runs import print_runs

    print_runs(bucket)


@command
def runs_show(run: str, *, bucket: str | None = None, json: str = "false") -> None:
    """Show one run: what was asked, its attempts, its checkpoints, what came of it.

    Args:
        run: The run's name.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
        json: Print everything that is recorded, as JSON.
    """
    from job.cli.runs import show_run

    show_run(run, bucket, json)


@command
def runs_verify(run: str, *, bucket: str | None = None) -> None:
    """Read every committed checkpoint of a run again and prove its digests.

    Args:
        run: The run's name.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
    """
    from job.cli.runs import verify_run

    verify_run(run, bucket)


@command
def report(run: str, *, bucket: str | None = None, open: str = "false") -> None:  # noqa: A002 -- the flag is --open
    """Write the report of a run anew, one HTML file beside its weights, and print where it is.

    Args:
        run: The run's name.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
        open: Open it in the browser.
    """
    from job.cli.report import report_run

    report_run(run, bucket, open)


@command
def data_check(
    name: str,
    *,
    bucket: str | None = None,
    workdir: str = "work",
    single_cls: str = "false",
    follow_links: str = "false",
) -> None:
    """Read every label and image of a dataset once and report all problems.

    Args:
        name: A dataset of the bucket, or a folder here as a path such as ./wildlife.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
        workdir: A folder on this machine to pull into.
        single_cls: Count all classes as one, as training with --single-cls does.
        follow_links: Follow links that lead out of the folder.
    """
    from job.cli.data import check_data

    check_data(name, bucket, workdir, single_cls=single_cls, follow_links=follow_links)


@command
def data_push(
    folder: str,
    *,
    dataset: str,
    bucket: str | None = None,
    replace: str = "false",
    force: str = "false",
    single_cls: str = "false",
    follow_links: str = "false",
) -> None:
    """Check a YOLO folder as training does, and push it into the bucket; what is there already is not sent again.

    Args:
        folder: A folder with data.yaml, images and labels.
        dataset: What to call it.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
        replace: Push a new version of a dataset that is there with other content; unfinished runs keep theirs.
        force: Push all the same what training will refuse.
        single_cls: Check it for training with --single-cls.
        follow_links: Push what links lead to outside of the folder, too.
    """
    from job.cli.data import push_data

    push_data(
        *(folder, dataset, bucket),
        replace=replace,
        force=force,
        single_cls=single_cls,
        follow_links=follow_links,
    )


@command
def data_pull(name: str, *, bucket: str | None = None, workdir: str = "work") -> None:
    """Pull a dataset from the bucket, verified; what is here already is not fetched again.

    Args:
        name: A dataset of the bucket.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
        workdir: A folder on this machine; the data go to datasets/NAME in it.
    """
    from job.cli.data import pull_data

    pull_data(name, bucket, workdir)


@command
def weights_digest(file: str, *, bucket: str | None = None) -> None:
    """Print the SHA-256 over a model's tensors, equal for equal weights whatever the file says beside them.

    Args:
        file: A file here, a gs:// address, or a path in the bucket such as runs/NAME/weights/best.pt.
        bucket: gs://bucket/prefix or a folder; JOB_BUCKET if left out.
    """
    from job.cli.weights import print_digest

    print_digest(file, bucket)


COMMANDS: dict[str, Any] = {
    "train": train,
    "verify-resume": verify_resume,
    "doctor": doctor,
    "recipes": {"list": recipes_list, "show": recipes_show, "check": recipes_check},
    "runs": {"list": runs_list, "show": runs_show, "verify": runs_verify},
    "report": report,
    "data": {"check": data_check, "push": data_push, "pull": data_pull},
    "weights": {"digest": weights_digest},
    **RUN_COMMANDS,
    **CLOUD_COMMANDS,
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = sys.argv[1:] if argv is None else argv
    set_up_logging(for_machines=words[:1] in TRAINS)
    output, exit_code = EscapedStream(sys.stdout), 0
    try:
        with contextlib.redirect_stdout(output):
            exit_code = _run(words)
            output.flush()
    except OutputClosedError:
        pass
    except OutputError as error:
        exit_code = _tell(error)
    except KeyboardInterrupt:
        log.warning("interrupted; %s", _advice(words))
        exit_code = ExitCode.TRY_AGAIN
    return exit_code


def _run(words: list[str]) -> int:
    try:
        help_text = find_help(COMMANDS, words)
        if help_text is not None:
            print(help_text)
        else:
            _parse(words)._call()  # noqa: SLF001 -- nothing of it may be public, Fire would offer it
    except JobError as error:
        return _tell(error)
    except OutputClosedError:
        raise
    except Exception as error:  # noqa: BLE001 -- its traceback is told, and it has an exit code
        defect = DefectError(f"job {words[0]}", error, _advice(words))
        log.error("%s\n%s", defect, defect.traceback, extra={"exit_code": defect.exit_code})  # noqa: TRY400 -- see `_tell`
        return defect.exit_code
    except PreemptionError as notice:
        log.warning("%s; %s", notice, GOES_ON)
        return notice.exit_code
    return 0


def _tell(error: JobError) -> int:
    """Log an error without a traceback, which would frighten a person; alerts on the logs look for the exit code."""
    extra = {"traceback": error.traceback} if isinstance(error, DefectError) else {}
    log.error("%s", error, extra={"exit_code": error.exit_code, **extra})
    return error.exit_code


def _advice(words: list[str]) -> str:
    """Say what happens if a command that ended early is given again."""
    if words[:1] in TRAINS:
        return GOES_ON
    return "the same command goes on where it stopped" if words[:1] == ["data"] else "give the same command again"


def _parse(words: list[str]) -> Invocation:
    """Let Fire find the command and its arguments.

    Raises:
        UsageError: If it cannot.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):  # nothing of ours runs in here, so only Fire speaks
            parsed = fire.Fire(COMMANDS, command=words, name="job", serialize=lambda _result: None)
    except fire.core.FireExit as error:
        said = error.trace.elements[-1].ErrorAsStr() if error.trace.HasError() else complaint.getvalue()
        raise UsageError(explain_misuse(COMMANDS, words, said)) from error
    if not isinstance(parsed, Invocation):
        raise UsageError(explain_misuse(COMMANDS, words, "no command was given"))
    return parsed

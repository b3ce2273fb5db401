"""Command registry: finds a command, reads its flags, runs it, and returns its exit code.

Imports the module of that one command and nothing else of the project's rooms.
"""

import contextlib
import logging
import pkgutil
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from job import __version__
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
from job.text import definitions, nearest
from job.training.signals import TRAINS

if TYPE_CHECKING:
    from job.cli.command import Command

log = logging.getLogger(__name__)

Entry = tuple[str, str]
"""A command as ``module:name``, with its one-line description."""

COMMANDS: dict[str, Entry] = {
    "train": ("job.cli.train:train", "Start, resume or complete a training run by a recipe."),
    "resume": ("job.cli.resume:resume", "Continue a run that is not finished, by its name."),
    "extend": ("job.cli.extend:extend", "Train a finished run for more epochs, as a new run."),
    "stop": ("job.cli.stop:stop", "Ask a running attempt to commit and pause."),
    "campaign": ("job.cli.campaign:campaign", "Train recipe after recipe until a target F1 is reached."),
    "estimate": ("job.cli.estimate:estimate", "Estimate the time and cost of a training."),
    "verify-resume": ("job.cli.verify_resume:verify", "Prove that killing a training changes no tensor."),
    "doctor": ("job.cli.doctor:doctor", "Check driver, GPU, disk, bucket, W&B and versions."),
    "recipes list": ("job.cli.recipes:list_recipes", "List the recipes and what each is expected to reach."),
    "recipes show": ("job.cli.recipes:show_recipe", "Show a recipe with every value resolved."),
    "recipes check": ("job.cli.recipes:check_recipe", "Check a recipe file and report every problem."),
    "import": ("job.cli.import_run:import_", "Import a run that stock Ultralytics trained."),
    "runs list": ("job.cli.runs:list_", "List the runs in a bucket."),
    "runs show": ("job.cli.runs:show", "Show a run's request, attempts, checkpoints and results."),
    "runs verify": ("job.cli.runs:verify", "Verify the digests of a run's committed checkpoints."),
    "evaluate": ("job.cli.evaluate:evaluate", "Score a run on its test pictures, with intervals."),
    "predict": ("job.cli.predict:predict", "Find and count objects in pictures with a run's model."),
    "export": ("job.cli.export:export_run", "Export a run's model to ONNX, checked against its weights."),
    "audit": ("job.cli.audit:audit", "List labels that a run's model contradicts."),
    "report": ("job.cli.report:report", "Write the HTML report of a run anew."),
    "compare": ("job.cli.compare:compare_runs", "Compare two or more runs side by side."),
    "advise": ("job.cli.advise:advise_next", "Recommend the next training after a run."),
    "data check": ("job.cli.data:check", "Check a dataset and report every problem."),
    "data push": ("job.cli.data:push", "Check labelled pictures and push them into the bucket."),
    "data pull": ("job.cli.data:pull", "Pull a dataset from the bucket, verified."),
    "data list": ("job.cli.data:list_", "List the versions of datasets, and the runs on them."),
    "data delete": ("job.cli.data:delete", "Delete a version of a dataset, or all of it."),
    "weights digest": ("job.cli.weights:digest", "Print the SHA-256 over a model's tensors."),
    "weights push": ("job.cli.weights:push", "Push a file of weights, to start from."),
    "wandb sync": ("job.cli.wandb:sync_run", "Bring Weights & Biases up to date with a run."),
    "submit": ("job.cli.submit:submit", "Send a training to Cloud Batch, on a Spot machine."),
    "render": ("job.cli.submit:render_job", "Print the Batch job of `job submit` as JSON; make none."),
    "limit": ("job.cli.submit:limit", "Print the hours that a Spot machine may run."),
    "settings": ("job.cli.submit:settings", "Print the settings of the cloud as JSON."),
    "supervise": ("job.cli.supervise:supervise", "Keep a submitted run going until it ends."),
    "status": ("job.cli.supervise:status", "Show a submitted run's state, jobs, attempts and cost."),
    "logs": ("job.cli.supervise:logs", "Print the log of a submitted run."),
    "cancel": ("job.cli.supervise:cancel", "Cancel a submitted run's job; checkpoints stay."),
}

ABOUT = """\
Trains YOLO detectors on machines that can vanish. The same command starts a
run, resumes it, or says that it is finished.
"""

EXIT_CODES = """\
Exit codes: 0 finished or paused, 1 defect of the program, 2 usage,
65 bad recipe, data or conflicting run, 70 training failed,
74 bucket or output refused, 75 try again, 78 machine unfit
"""

HELP = {"--help", "-h"}


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    args = sys.argv[1:] if argv is None else argv
    set_up_logging()
    output, exit_code = EscapedStream(sys.stdout), 0
    try:
        with contextlib.redirect_stdout(output):
            exit_code = _run(args)
            output.flush()
    except OutputClosedError:
        pass
    except OutputError as error:
        exit_code = _report(error)
    except KeyboardInterrupt:
        log.warning("interrupted; %s", _advice(args))
        exit_code = ExitCode.TRY_AGAIN
    return exit_code


def load(entry: Entry) -> "Command":
    """Import a command."""
    found: Command = pkgutil.resolve_name(entry[0])
    return found


def find(args: Sequence[str]) -> tuple[list[str], Entry | None]:
    """Return the path of a command or group, and the entry of a command; raises `UsageError` if there is none."""
    path: list[str] = []
    for arg in args:
        if " ".join(path) in COMMANDS or arg in HELP:
            break
        known = list(dict.fromkeys(name[len(path)] for name in map(str.split, COMMANDS) if name[: len(path)] == path))
        if arg not in known:
            hint = _below(arg, known) or nearest(arg, known) or f"; there are {', '.join(known)}"
            raise UsageError(f"{' '.join(['job', *path])}: there is no command {arg!r}{hint}")
        path.append(arg)
    return path, COMMANDS.get(" ".join(path))


def _below(arg: str, groups: Collection[str]) -> str:
    """Return ``; did you mean ...?`` for a command that was given without its group, or an empty string."""
    meant = [repr(name) for name in COMMANDS if name.partition(" ")[0] in groups and name.partition(" ")[2] == arg]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def _run(args: list[str]) -> int:
    try:
        _read_and_run(args)
    except JobError as error:
        return _report(error)
    except OutputClosedError:
        raise
    except Exception as error:  # noqa: BLE001 -- its traceback is logged, and it has an exit code
        defect = DefectError(f"job {args[0]}", error, _advice(args))
        return _report(defect, f"{defect}\n{defect.traceback}")  # no attempt has recorded it
    except PreemptionError as notice:
        log.warning("%s; %s", notice, _advice(args))
        return notice.exit_code
    return 0


def _read_and_run(args: list[str]) -> None:
    if args == ["--version"]:
        print(f"job {__version__}")
        return
    path, entry = find(args)
    rest, prog = args[len(path) :], " ".join(["job", *path])
    if entry is None:
        print(_group_help(path))
    elif HELP & set(rest):
        from job.cli.help import command_help

        print(command_help(prog, entry[1], load(entry)))
    else:
        load(entry).read(prog, rest)()


def _group_help(path: list[str]) -> str:
    summaries = {f"job {name}": entry[1] for name, entry in COMMANDS.items() if name.split()[: len(path)] == path}
    lines = [*definitions(summaries), "", "Every command explains itself with --help."]
    return "\n".join(lines if path else [ABOUT, *lines, EXIT_CODES.rstrip()])


def _report(error: JobError, text: str = "") -> int:
    """Log an error as its message or another text, a defect with its traceback; alerts match the exit code."""
    extra = {"traceback": error.traceback} if isinstance(error, DefectError) else {}
    log.error("%s", text or error, extra={"exit_code": error.exit_code, **extra})
    return error.exit_code


def _advice(args: list[str]) -> str:
    """Return the remedy for a command that ended early."""
    if args[:1] == ["predict"]:
        return "the same command goes on after the last committed shard"
    if args[:1] in TRAINS:
        return GOES_ON
    return "the same command resumes where it stopped" if args[:1] == ["data"] else "give the same command again"

"""Each command of the README is executed: by a test of this file, or by the test that this file names for it."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from job.cli.app import find, load
from job.errors import JobError
from job.recipes.arguments import ALIASES, read_argument
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.cli_process import ROOT, TIMEOUT_S
from tests.support.fresh_account import in_shell
from tests.support.recording_checkout import calls_of, make_checkout
from tests.support.run_records import record_run
from tests.support.stub_programs import Programs
from tests.support.tiny_dataset import make_tiny_dataset

PROGRAMS = {"cp", "docker", "gcloud", "job", "make", "podman", "terraform", "yolo"}
"""In backquotes, words that begin with one of these are a command."""

OUTPUT = "demo: "
"""Begins the block that shows what a command prints; each line of any other block is a command."""

RUN = "yolov11_wildlife2"

ON_RECORDS = {
    f"make report RUN={RUN}": f"bucket/runs/{RUN}/report.html",
    "make runs": RUN,
    "make show RUN=... ARGS=--json": '"attempts"',
    "make help": "make train",
    "job --help": "Exit codes",
}
"""Commands that read a bucket, or nothing, and what they print."""

TO_THE_CLOUD = (
    "gcloud auth application-default login",
    "cp infra/terraform.tfvars.example infra/terraform.tfvars",
    "make infra-apply",
    "make data DATA=path/to/wildlife BUCKET=gs://PROJECT-yolo-train",
    "make image push",
    "make preflight IMAGE=...",
    "make submit RECIPE=base IMAGE=...@sha256:...",
    "make supervise RUN=...",
)
"""Commands from an empty project to a finished run, in their order."""

ARGUMENTS = "integration/test_run_survives.py::test_a_changed_recipe_on_an_existing_run_is_refused"
DEMO = "integration/test_demo.py::test_the_demo_learns_and_its_recipe_improves_on_the_baseline"
PICTURES = "integration/test_data.py::test_pictures_are_trained_on_where_they_lie"
PREDICTION = "integration/test_predict.py::test_every_picture_counts_once_and_unreadable_ones_are_listed"
STORM = "integration/test_kill_storm.py::test_runs_in_a_folder_survive_a_storm"

BY_OTHERS = {
    "make train RECIPE=A": DEMO,
    "make train RECIPE=A epochs=40 degrees=10": ARGUMENTS,
    "make train RECIPE=A ARGS='--weights RUN'": "integration/test_weights.py::"
    "test_a_run_a_key_and_a_file_are_the_same_start",
    "make train RECIPE=base DATA=~/photos": PICTURES,
    "make train RECIPE=A DATA=~/photos": PICTURES,
    "make train RECIPE=base DATA=~/photos BUCKET=gs://my-bucket/wildlife": PICTURES,
    "make resume RUN=...": "integration/test_pause_and_extend.py::"
    "test_a_running_job_is_paused_from_elsewhere_and_resumed",
    "job import runs/yolov11_wildlife --bucket bucket": "integration/test_data.py::"
    "test_a_run_of_ultralytics_is_started_from",
    f"make predict RUN={RUN} SOURCE=path/to/flight OUT=found": PREDICTION,
    "make export RUN=...": "integration/test_export.py::test_an_export_agrees_with_its_weights",
    "make audit RUN=...": "integration/test_demo.py::test_an_audit_finds_labels_that_were_removed_or_swapped",
    "make drill": "cloud/test_drill.py::test_the_drill_passes",
    "make kill-storm N=200": STORM,
    "make test": "project/test_surroundings.py::test_what_is_marked_full_is_named_and_left_out",
}
"""Commands that take minutes, and the test that executes what make starts for them."""

NAMED_ONLY = {"make bench", "yolo train", "yolo predict", "yolo export"}
"""A measurement, which shows nothing that is promised, and commands of Ultralytics."""

OF_MAKE = {"--bucket", "--profile", "--recipe"}
"""Flags that the Makefile adds."""

OPTIONS = {name: name.lower() for name in ("RECIPE", "BUCKET", "RUN", "DATA", "SOURCE", "OUT")}
"""Variables of make that are options of a command."""

OF_TESTS = {"kill_storm": {"N"}, "drill": {"RECIPE", "PREEMPTIONS"}, "pytest": set()}
"""Variables of make for programs of the tests, by module."""


def commands_in(text):
    """Return the commands of a page: the lines of its blocks, and what is in backquotes and begins with a program.

    A target without the variables that it has elsewhere is a mention of it.
    """
    blocks = re.findall(r"(?:^ {4}.*\n(?:\n(?= {4}))?)+", text, re.MULTILINE)
    lines = [line for block in blocks if not block.strip().startswith(OUTPUT) for line in block.split("\n")]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    found = {re.split(r"\s{2,}#", line.strip())[0] for line in lines if line}
    found |= {span for span in spans if " " in span and span.split()[0] in PROGRAMS}
    mentions = {command for command in found if any(other.startswith(f"{command} ") for other in found)}
    return {command for command in found if command not in mentions or len(command.split()) > 2}


def test_every_command_has_one_proof():
    """Each command of the README is in exactly one table of this file, and no table has another one."""
    tables = [set(ON_RECORDS), set(TO_THE_CLOUD), set(BY_OTHERS), NAMED_ONLY]
    assert commands_in((ROOT / "README.md").read_text()) == set().union(*tables)
    assert sum(map(len, tables)) == len(set().union(*tables))


def test_commands_of_a_page_are_found():
    """Lines of a block and quoted commands are found, comments and printed lines are not."""
    page = (
        "Run `make runs` or\n`job runs\nlist`, not `bucket/`; `make train`.\n\n"
        "    make train RECIPE=A    # a recipe\n\nprints\n\n"
        "    demo: drawing\n\n    to use it   job predict\n\nThen\n\n    unknown thing\n"
    )
    assert commands_in(page) == {"make runs", "job runs list", "make train RECIPE=A", "unknown thing"}


def with_values(command, **values):
    """Put values in the place of dots, such as IMAGE=...@sha256:..."""
    for name, value in values.items():
        command = re.sub(rf"\b{name}=\.\.\.(@sha256:\.\.\.)?", f"{name}={value}", command)
    return command


@pytest.fixture(scope="module")
def checkout(clone):
    """A clone with a finished run in its bucket."""
    record_run(clone / "bucket", [0.6, 0.65, 0.67], name=RUN)
    return clone


@pytest.mark.parametrize("command", ON_RECORDS)
def test_a_command_on_records_prints_what_the_readme_says(command, checkout):
    """A command that shows something ends well and shows it; the report is opened in the browser."""
    browser = Programs(checkout / "programs")
    browser.add("browser")
    done = in_shell(with_values(command, RUN=RUN), checkout, BROWSER="browser")
    assert done.returncode == 0, done.stderr
    assert ON_RECORDS[command] in done.stdout
    if command.startswith("make report"):
        assert browser.words("browser")[-1][0].endswith(f"{RUN}/report.html")


def test_the_commands_lead_from_an_empty_project_to_a_finished_run(account):
    """One after the other, each with what an earlier one printed, the commands set up a project, push pictures and
    image, submit a run, and supervise it to its end; a metric that Google does not know yet is waited for.
    """
    make_tiny_dataset(account.clone / "path/to/wildlife")
    image, run = "none", "none"
    for template in TO_THE_CLOUD:
        command = with_values(template, IMAGE=image, RUN=run).replace("gs://PROJECT-yolo-train", account.bucket)
        done = account.type(command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        if template.startswith("cp "):
            account.name_project()  # as the comment behind it says
        elif template == "make image push":
            image = re.search(r"^IMAGE=(\S+)$", done.stdout, re.MULTILINE)[1]
        elif template.startswith("make submit"):
            run = done.stdout.split()[-1]
            (job,) = account.batch.jobs.values()
            assert job.job.task_groups[0].task_spec.runnables[0].container.image_uri == image
            assert job.ended.wait(TIMEOUT_S)
    assert Run(open_store(account.bucket), run).final() is not None
    assert account.programs.words("gcloud")[0] == ["auth", "application-default", "login"]
    assert account.made.count("terraform apply") == 2


@pytest.mark.parametrize("command", BY_OTHERS)
def test_a_command_of_minutes_is_one_that_a_named_test_executes(command, tmp_path):
    """What make starts for a command has the value of each of its variables and training arguments, and the named test
    executes that command with the same flags.
    """
    require_proof(command, BY_OTHERS[command], tmp_path)


@pytest.mark.parametrize(
    ("command", "proof"),
    [
        ("make train RECIPE=A epoch=40", ARGUMENTS),
        ("make train RECIPE=A epochs=40 mosaic=0.5", ARGUMENTS),
        ("make train RECIPE=A BUKET=gs://my-bucket", ARGUMENTS),
        ("make train RECIPE=A SOURCE=path/to/flight", ARGUMENTS),
        ("make train RECIPE=A ARGS='--wieghts RUN'", ARGUMENTS),
        (f"make predict RUN={RUN} SOURCE=path/to/flight OUT=found IMAGE=found", PREDICTION),
        ("make kill-storm PREEMPTIONS=200", STORM),
    ],
)
def test_a_command_with_a_wrong_word_has_no_proof(command, proof, tmp_path):
    """A variable or a word of `yolo` that does not exist, that nothing reads, or that no test gives is noticed."""
    with pytest.raises((AssertionError, JobError)):
        require_proof(command, proof, tmp_path)


def require_proof(command, proof, tmp_path):
    """Check what make starts for a command, and that a test executes it."""
    checkout = make_checkout(tmp_path / "checkout")
    (checkout / f"bucket/runs/{RUN}").mkdir(parents=True)
    (checkout / f"bucket/runs/{RUN}/run.json").touch()
    command = with_values(command, RUN=RUN)
    done = in_shell(command, checkout)
    assert done.returncode == 0, done.stderr
    ((program, words),) = calls_of(checkout)
    given = dict(word.split("=", 1) for word in shlex.split(command)[2:] if "=" in word)
    file, _, test = proof.partition("::")
    source = (ROOT / "tests" / file).read_text()
    assert f"def {test}(" in source
    if program == "job":
        path, entry = find(words)
        require_values(given, words, options_of(entry, words[len(path) :]))
        assert [word for word in path if f'"{word}"' not in source] == []
        flags = flags_in(words) - OF_MAKE
        assert [flag for flag in flags if not any(f'"{name}"' in source for name in names_of(flag))] == []
    else:
        assert (program, words[0]) == ("python", "-m")
        module = words[1].rpartition(".")[2]
        assert module in source
        assert given.keys() <= OF_TESTS[module]
        assert set(given.values()) <= set(words)


def options_of(entry, words):
    """Return the options that a command reads from its words, without running it."""
    read = []
    dataclasses.replace(load(entry), function=read.append).read("job", words)()
    return read[0]


def require_values(given, words, options):
    """Check that each variable of make has arrived as an option: training arguments in small letters, ARGS as words."""
    for name, value in given.items():
        if name == "ARGS":
            assert set(shlex.split(value)) <= set(words)
        elif name.islower():
            argument = ALIASES.get(name, name)
            assert options.recipe.train[argument] == read_argument(argument, value)
        else:
            found = getattr(options, OPTIONS.get(name, ""), None)
            values = found if isinstance(found, tuple) else (getattr(found, "name", found),)
            assert values == (value.replace("~", str(Path.home()), 1),)


def flags_in(words):
    """Return the flags among words, also those that are written as `yolo` writes them."""
    assigned = {f"--{word.partition('=')[0]}" for word in words if re.match(r"[a-z]\w*=", word)}
    return assigned | {word for word in words if word.startswith("--")}


def names_of(flag):
    """Return a flag and its other names."""
    return {flag, *(f"--{alias}" for alias, name in ALIASES.items() if flag == f"--{name}")}

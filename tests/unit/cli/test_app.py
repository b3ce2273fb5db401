"""The command line: its commands, flags and help, and its messages for mistakes."""

import dataclasses
import os
import pkgutil
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from job import __version__
from job.cli.app import COMMANDS, load, main
from job.cli.options import BucketOption
from job.runs.flags import WorkdirOption
from job.runs.request import TrainRequest
from tests.support.cli_process import JOB, ROOT, job, surroundings
from tests.support.tiny_dataset import make_tiny_dataset

OLD_COMMAND = (
    *("--weights", "runs/yolov11_wildlife/weights/best.pt", "--epochs", "100", "--batch", "4", "--imgsz", "2048"),
    *("--rotate", "15.0", "--scale", "0.7", "--translate", "0.15", "--fliplr", "0.6", "--hsv-s", "0.8"),
    *("--hsv-v", "0.5", "--mosaic", "1.0"),
)
"""Flags of the users' scripts from before there were recipes."""


@pytest.fixture
def bucket(tmp_path):
    """An empty bucket in a folder."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    return folder


def dry_run(capsys, *words):
    """Return what a dry run prints, as values."""
    assert main(["train", *map(str, words), "--dry-run"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def complaint(capsys, *words):
    """Return the exit code and the message of a command that is refused."""
    code = main([*map(str, words)])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return code, captured.err


def test_help_imports_nothing_heavy():
    """Asking for help loads none of torch, Ultralytics, W&B and Google's libraries."""
    script = (
        "import sys; from job.cli.app import main; assert main(['--help']) == 0; "
        "print(sorted({'torch', 'ultralytics', 'wandb', 'google', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=surroundings({}), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_dry_run_has_the_keys_that_were_promised(capsys):
    """A dry run without a bucket prints recipe, profile, run, dataset, start and train."""
    plan = dry_run(capsys, "--recipe", "A")
    assert list(plan) == ["recipe", "profile", "run", "dataset", "start", "train"]
    assert (plan["recipe"], plan["profile"], plan["start"]["from"]) == ("A", "full", "own best.pt")
    assert plan["train"]["degrees"] == 15.0


def test_the_old_command_means_what_it_meant(capsys):
    """The command of old resolves to the values of the recipe `recommended`, as recipe `continue` from those
    weights.
    """
    old, recommended = dry_run(capsys, *OLD_COMMAND), dry_run(capsys, "--recipe", "recommended")
    assert old["train"] == recommended["train"]
    assert (old["recipe"], old["start"]["from"]) == ("continue", "runs/yolov11_wildlife/weights/best.pt")


def test_without_words_the_recipe_is_base(capsys):
    """Neither a recipe nor weights means a first detector."""
    assert dry_run(capsys)["recipe"] == "base"


def test_flags_override_a_recipe_by_either_name(capsys):
    """A training argument is a flag under Ultralytics' name, with hyphens, and under the users' word for it."""
    plan = dry_run(capsys, "--recipe", "A", "--hsv-s", "0.1", "--hsv_v=0.2", "--rotate", "3", "--cos-lr", "--seed", "7")
    train = plan["train"]
    assert [train[name] for name in ("hsv_s", "hsv_v", "degrees", "cos_lr", "seed")] == [0.1, 0.2, 3.0, True, 7]


def test_a_dry_run_starts_nothing_and_names_what_is_missing(capsys, bucket):
    """On an empty bucket a dry run prints the plan and the problems that would stop it, and writes nothing."""
    assert main(["train", "--recipe", "A", "--bucket", str(bucket), "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert yaml.safe_load(captured.out)["run"] == "yolov11_wildlife"
    assert "dataset: there is none" in captured.err
    assert "there is no finished run" in captured.err
    assert [path for path in bucket.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["train", "--recipe", "A", "--epohcs", "3"], 2, "--epohcs: there is no such flag; did you mean 'epochs'?"),
        (["train", "--recipe", "A", "--rotat", "3"], 2, "did you mean 'rotate'?"),
        (["train", "--recipe", "A", "--dry-rum"], 2, "did you mean 'dry-run'?"),
        (["train", "--recipe", "A", "--run", "a/b"], 2, "is not a name for a run"),
        (["train", "--recipe", "A", "--workers", "many"], 2, "--workers: must be a whole number"),
        (["train", "--recipe", "A", "--profile", "small"], 2, "--profile: must be one of full, demo"),
        (["train", "--recipe", "A", "--model", "weights"], 2, "--model: must be NAME.pt or NAME.yaml"),
        (["train", "--recipe", "A", "--dry-run=perhaps"], 2, "got 'perhaps'; leave the value out to mean true"),
        (["train", "--recipe", "A", "--weights", "caf\udce9.pt"], 2, "--weights: must be UTF-8 text"),
        (["runs", "list", "-b", "one", "--bucket", "other"], 2, "--bucket is given twice"),
        (["train", "--recipe", "A", "--rotate", "3", "--degrees", "4"], 2, "the same as --degrees"),
        (["train", "--profile", "demo", "--device", "0,1"], 2, "--device: must be one device for the demo"),
        (
            ["train", "--recipe", "A", "--checkpoint-every", "soon"],
            2,
            "--checkpoint-every: must be a number of seconds",
        ),
        (["verify-resume", "--kills", "0"], 2, "--kills: must be a whole number from 1 to"),
        (["verify-resume", "--deterministic", "false"], 65, "deterministic: is off"),
        (["verify-resume", "--compile"], 65, "recipe A: is not bit-exact, so nothing can be proved"),
        (["render", "A", "--compile"], 2, "--compile: needs a C compiler, which the image has not"),
        (["verify-resume", "--workdir", "/proc/nowhere"], 78, "pass a --workdir that this user can write to"),
        (["train", "--recipe", "A", "--workers", "9" * 5000], 2, "--workers: must be a whole number from 0 to 1024"),
        (["train", "--recipe", "A", "--hang-after", "1e300"], 2, "--hang-after: must be a number of seconds from 0"),
        (["train", "--recipe", "A", "--seed", "4294967296"], 65, "seed: must be a whole number from 0 to 4294967295"),
        (["train", "--recipe", "A", "--seed", "-1"], 65, "seed: must be a whole number from 0 to 4294967295"),
        (["extend", "zebra", "--epochs", "9" * 5000], 2, "--epochs: must be a whole number from 1 to"),
        (["supervise", "zebra", "--deadline", "9" * 20 + "h"], 2, "--deadline: must be hours from now"),
        (["supervise", "zebra", "--max-usd", "9" * 400], 2, "--max-usd: must be a number of dollars"),
        (["supervise", "zebra", "--poll", "1e300"], 2, "--poll: must be a number of seconds from 0"),
        (["logs", "zebra", "--submission", "0"], 2, "--submission: must be a whole number from 1"),
        (["train", "--recipe", "A"], 2, "bucket: none was named"),
        (["train", "--recipe", "A", "--bucket", "ftp://x"], 2, "is neither gs://BUCKET nor a folder"),
        (["train", "--recipe", "A", "--bucket", "nowhere"], 74, "no such folder"),
        (["train", "--recipe", "AA"], 65, "no such recipe; did you mean 'A'?"),
        (["train", "--recipe", "mine.yaml"], 65, "mine.yaml: cannot be read"),
        (["train", "--recipe", "A", "--epochs", "0"], 65, "epochs: must be a whole number from 1"),
        (["train", "--recipe", "A", "--project", "x"], 65, "project: decided by the job"),
        (["train", "--recipe", "A", "--resume"], 65, "the same command resumes by itself"),
        (["train", "--recipe", "A", "--exist-ok"], 65, "nothing is overwritten"),
        (["show", "x"], 2, "there is no command 'show'; did you mean 'recipes show' or 'runs show'?"),
        (["runs", "shwo", "x"], 2, "did you mean 'show'?"),
        (["runs", "show"], 2, "RUN is missing"),
        (["runs", "show", "x", "y"], 2, "'y' is not understood"),
        (["runs", "list", "--bukket", "x"], 2, "--bukket: there is no such flag; did you mean 'bucket'?"),
        (["data", "push"], 2, "job data push: FOLDER is missing; see `job data push --help`"),
        (["runs", "show", "--bucket", "x", "--run"], 2, "--run has no value"),
        (["runs", "show", "--run", "x", "y"], 2, "'y' is not understood"),
        (
            ["data", "check", "a=b"],
            2,
            "'a=b' is read as the flag -a, which does not exist; if it is a path, write ./a=b",
        ),
        (
            ["runs", "list", "bukket=x"],
            2,
            "'bukket=x' is read as the flag --bukket, which does not exist; did you mean",
        ),
        (["runs", "list", "-x", "y"], 2, "-x: there is no such flag"),
        (["data", "push", ".", "-f", "--dataset", "x"], 2, "ambiguous"),
        (["weights", "digest", "nothing.pt"], 65, "no such file here"),
        (["train", "A", "--epochs", "3", "--epochs", "4"], 2, "--epochs is given twice"),
        (["train", "A", "--epochs", "3", "epochs=3"], 2, "--epochs is given twice"),
        (["train", "A", "--hsv-s=0.1", "--hsv_s=0.2"], 2, "--hsv-s is given twice"),
        (["train", "A", "--epochs"], 2, "--epochs has no value"),
        (["train", "A", "--bucket", "--epochs", "3"], 2, "--bucket has no value"),
        (["train", "A", "--bucket=", "--epochs", "3"], 2, "--bucket has no value"),
        (["train", "A", "lr00=0.1"], 2, "--lr00: there is no such flag; did you mean 'lr0'?"),
        (["predict", "zebra"], 2, "SOURCE and --out are missing"),
        (["predict", "zebra", "x", "--out", "y", "--conf", "1.5"], 2, "--conf: must be a number between 0 and 1, got"),
        (["predict", "zebra", "x", "--out", "y", "--recall", "0"], 2, "--recall: must be a number above 0 and up to 1"),
        (
            ["predict", "zebra", "x", "--out", "y", "--conf", "0.5", "--recall", "0.9"],
            2,
            "--conf: contradicts --recall",
        ),
        (["predict", "zebra", "x", "--out", "y", "--device", "0,1"], 2, "--device: must be one device"),
        (["predict", "zebra", "x", "--out", "y", "--tiles", "-8"], 2, "--tiles: must be a whole number from 0"),
        (["runs", "list", "--", "--interactive"], 2, "'--' is not understood"),
        (["predict", "zebra", "", "--out", "y"], 2, "'' is not understood"),
        (["weights", "digest", "n" * 300], 65, "no such file here"),
        (["data", "push", "n" * 300, "--dataset", "x", "--bucket", "."], 65, "no such file or folder"),
        (["data", "check", "./nowhere"], 65, ".: cannot be listed, No such file or directory"),
    ],
)
def test_a_mistake_ends_with_one_message_and_the_right_code(capsys, words, code, part):
    """Each kind of mistake on the command line ends before anything runs, with what is wrong and what to do."""
    found, said = complaint(capsys, *words)
    assert found == code
    assert part in said


@pytest.mark.parametrize("command", [["train", "--recipe", "A"], ["extend", "zebra"]])
def test_all_wrong_options_are_reported_at_once_and_before_the_bucket(capsys, command):
    """Every option that is out of range is named, although the bucket cannot be opened either."""
    wrong = {"workers": "-1", "checkpoint-every": "nan", "hang-after": "-1", "run": "a/b", "epochs": "0"}
    if command[0] == "train":
        wrong |= {"seed": "4294967296", "new-classes": "perhaps", "model": "x", "degrees": "inf"}
    words = [f"--{name}={value}" for name, value in wrong.items()]
    code, said = complaint(capsys, *command, *words, "--bucket", "nowhere")
    assert code == 2
    assert [name for name in wrong if f"- {name}" not in said and f"- --{name}" not in said] == []


def test_an_interval_of_checkpoints_is_a_number_or_auto():
    """Either is read from text, and passed on to a command on another machine."""
    for text, value in (("30", 30.0), ("auto", "auto")):
        request = TrainRequest.parse({"recipe": "A", "checkpoint_every": text})
        assert request.checkpoint_every_s == value
        assert request.args(["checkpoint_every_s"]) == [f"--checkpoint-every={text}"]


@pytest.mark.parametrize("run", ["2e967232", "1e5", "007"])
def test_a_run_that_looks_like_a_number_stays_text(capsys, bucket, run):
    """A run id that a parser would turn into a number arrives as text."""
    code, said = complaint(capsys, "runs", "show", run, "--bucket", bucket)
    assert code == 65
    assert f"run {run}: there is none of that name" in said
    assert dry_run(capsys, "--recipe", "A", "--run", run)["run"] == run


def test_a_misspelt_flag_runs_nothing(bucket, tmp_path):
    """A mistyped flag is refused before the command has done anything at all."""
    done = job("train", "--recipe", "A", "--profile", "demo", "--bucket", bucket / "new", "--epohcs", "1")
    assert done.returncode == 2
    assert not (bucket / "new").exists()
    assert not (tmp_path / "work").exists()


def test_a_missing_dataset_is_reported_with_what_to_do(capsys, bucket):
    """A bucket without the dataset that was named, or without any, ends with exit 65 and advice."""
    code, said = complaint(capsys, "train", "--recipe", "base", "--bucket", bucket)
    assert code == 65
    assert "job data push DIR --dataset NAME" in said
    for name in ("wildlife", "zebras"):
        assert (
            main(
                [
                    "data",
                    "push",
                    str(make_tiny_dataset(bucket.parent / name)),
                    "--dataset",
                    name,
                    "--bucket",
                    str(bucket),
                ]
            )
            == 0
        )
    capsys.readouterr()
    code, said = complaint(capsys, "train", "--recipe", "base", "--bucket", bucket)
    assert code == 65
    assert "choose one with --dataset" in said
    assert "wildlife" in said
    code, said = complaint(capsys, "train", "--recipe", "base", "--bucket", bucket, "--dataset", "wildlive")
    assert code == 65
    assert "did you mean 'wildlife'?" in said


def test_the_bucket_may_come_from_the_environment(capsys, bucket, monkeypatch):
    """`JOB_BUCKET` stands in for --bucket."""
    monkeypatch.setenv("JOB_BUCKET", str(bucket))
    assert main(["runs", "list"]) == 0
    assert capsys.readouterr().out == f"no runs in {bucket}\n"


def test_a_tilde_that_the_shell_left_is_the_home():
    """A shell replaces none in ``--bucket=~/demo``; it is no folder's name, for which another one would be made."""
    assert Path(BucketOption(bucket="~/demo").store_for("demo").uri) == Path("~/demo").expanduser().resolve()
    assert WorkdirOption.parse({"workdir": "~/work"}).workdir == Path("~/work").expanduser().resolve()
    assert not Path("~").exists()


def test_a_tilde_of_no_user_is_a_name(capsys, bucket):
    """What is not there is said as of any other path, where Python would raise an error of its own."""
    assert complaint(capsys, "runs", "list", "--bucket", "~no-one/b")[0] == 74
    code, said = complaint(capsys, "data", "push", "~no-one/wild", "--bucket", bucket)
    assert (code, "~no-one/wild: no such file or folder" in said) == (65, True)


def test_every_shipped_recipe_passes_its_check(capsys):
    """`job recipes check` accepts each recipe that `job recipes list` names."""
    assert main(["recipes", "list"]) == 0
    for name in ("base", "continue", "finetune", "transfer", "A", "B", "C", "recommended"):
        assert main(["recipes", "check", name]) == 0
    assert "B: a valid recipe" in capsys.readouterr().out


def test_a_recipe_with_values_of_every_type_is_shown(capsys, tmp_path):
    """`job recipes check` names each value of a file that is not the default: text, a list and a number too."""
    file = tmp_path / "mine.yaml"
    file.write_text("start: yolo11n.pt\ntrain: {optimizer: AdamW, classes: [0, 2], cos_lr: true, lr0: 0.001}\n")
    assert main(["recipes", "check", str(file)]) == 0
    shown = "yolo11n.pt, 100 epochs, batch 16, 640 px, classes [0, 2], optimizer AdamW, lr0 0.001, cos_lr true"
    assert capsys.readouterr().out == f"{file}: a valid recipe; {shown}\n"


def test_help_explains_every_flag_of_every_command(capsys):
    """Each command's help names each of its flags and says something of it, in lines of a terminal."""
    for words, command in every_command():
        assert main([*words, "--help"]) == 0
        text = capsys.readouterr().out
        for name, field in command.options.flags().items():
            assert field.description, (words, name)
            flag = name.upper() if name in command.options.positional else f"--{name.replace('_', '-')} "
            assert name == "arguments" or f"  {flag}" in text, (words, name)
        assert "Undefined" not in text, words
        assert max(map(len, text.splitlines())) <= 80, words


def test_help_of_train_tells_the_ways_to_retrain(capsys):
    """The three ways, when each is best, and the page that has the rest."""
    main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in ("Continue (recipe continue), if", "Fine-tune (A first,", "Transfer (B or transfer), if"):
        assert words in text
    page = re.search(r"docs/[a-z]+\.md", text)[0]
    assert (ROOT / page).is_file()


def test_help_states_defaults_and_one_example_that_is_understood(capsys):
    """Each command's help ends with a command line that the command understands; each default is shown."""
    for words, command in every_command():
        main([*words, "--help"])
        text = capsys.readouterr().out
        program, *example = shlex.split(text.partition("Example:\n")[2])
        assert (program, tuple(example[: len(words)])) == ("job", words)
        command.read("job", example[len(words) :])
    main(["train", "--help"])
    assert "only. Default: 60." in capsys.readouterr().out


def test_every_command_is_where_the_registry_has_it():
    """Each entry names a command, and a summary that fits a line."""
    for words, command in every_command():
        assert callable(command.function), words


def test_the_version_is_printed(capsys):
    """`job --version` prints the version alone."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"job {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["lr0=0.02", "hsv_s=0.1", "rotate=3", "dataset=zoo"],
        ["--lr0=0.02", "--hsv-s=0.1", "--rotate", "3", "--dataset", "zoo"],
    ],
)
def test_arguments_as_yolo_has_them_are_flags(capsys, words):
    """``lr0=0.02`` means ``--lr0 0.02``, beside other flags and a recipe."""
    plan = dry_run(capsys, "A", *words, "--epochs", "7")
    assert [plan["train"][name] for name in ("lr0", "hsv_s", "degrees", "epochs")] == [0.02, 0.1, 3.0, 7]
    assert (plan["recipe"], plan["dataset"]) == ("A", "zoo")


def test_a_switch_needs_no_value_and_takes_one(capsys):
    """A switch is true without a value, also one that begins with no."""
    assert dry_run(capsys, "A", "--cos-lr")["train"]["cos_lr"] is True
    assert dry_run(capsys, "A", "--new-classes", "false", "--cos-lr=false")["train"]["cos_lr"] is False
    code, said = complaint(capsys, "limit", "l4", "--no-limit", "--max-usd", "3")
    assert (code, "contradict each other" in said) == (2, True)


def every_command():
    """Yield every command with the words that name it."""
    for name, entry in COMMANDS.items():
        yield tuple(name.split()), load(entry)


@pytest.mark.parametrize("words", [["--help"], ["recipes", "list"]])
def test_a_reader_that_has_read_enough_is_no_error(words):
    """Output into a closed pipe ends with 0 and without a message."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*JOB, *words], stdout=writing, stderr=subprocess.PIPE, env=surroundings({}), check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_defect_is_one_message_with_its_traceback(monkeypatch, capsys):
    """An unexpected exception has the exit code of a defect, and one message with what a report needs."""

    def fail():
        raise ValueError("no recipe has 7 legs")

    monkeypatch.setattr("job.cli.recipes.recipe_names", fail)
    assert main(["recipes", "list"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: job recipes: failed by ValueError: no recipe has 7 legs (test_app.py:")
    assert "please report it\nTraceback (most recent call last)" in said


@pytest.mark.parametrize("words", [["--help"], ["recipes", "list"]])
def test_output_that_cannot_be_written_is_one_message(words):
    """A full disk behind standard output ends a command with 74 and one line that says so."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*JOB, *words], stdout=full, stderr=subprocess.PIPE, env=surroundings({}), check=False)
    said = b"error: stdout: cannot be written, No space left on device; write it elsewhere\n"
    assert (done.returncode, done.stderr) == (74, said)


def test_output_that_is_closed_is_no_error():
    """A command whose standard output is closed does its work without a word."""
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *JOB, "recipes", "list"], env=surroundings({}), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_broken_connection_is_not_taken_for_a_closed_output(monkeypatch, capsys):
    """A pipe of something else that breaks is an error, not the end of the reader of standard output."""

    def lose(*_):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("job.cli.recipes.recipe_names", lose)
    assert main(["recipes", "list"]) == 1
    assert "job recipes: failed by BrokenPipeError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("function", "words", "advice"),
    [
        ("data.check", ["data", "check", "./wild"], "the same command resumes where it stopped"),
        ("data.push", ["data", "push", "./wild", "--dataset", "d"], "the same command resumes where it stopped"),
        ("data.pull", ["data", "pull", "wild"], "the same command resumes where it stopped"),
        ("runs.list_", ["runs", "list"], "give the same command again"),
        ("train.train", ["train"], "the same command resumes from the last committed checkpoint"),
    ],
)
def test_an_interrupted_command_names_the_way_to_resume(monkeypatch, capsys, function, words, advice):
    """Ctrl-C ends with 75 and what the same command will do; checkpoints are mentioned where there are some."""
    path = f"job.cli.{function}"
    command = pkgutil.resolve_name(path)
    interrupted = dataclasses.replace(command, function=lambda _options: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(path, interrupted)
    assert main(words) == 75
    assert f"interrupted; {advice}" in capsys.readouterr().err

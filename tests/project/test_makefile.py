"""Text in make's variables reaches the command behind a target as arguments, and no shell expands it."""

import re
import shlex
import shutil
import tomllib

import pytest
from packaging.specifiers import SpecifierSet

from tests.support.cli_process import ROOT
from tests.support.recording_checkout import calls_of, make, make_checkout
from tests.support.stub_programs import Programs

HOSTILE = "x'\"`touch mark`$(touch mark)$(shell touch mark)${shell touch mark}$$(touch mark);touch mark|touch mark&*#"

ARGS = "--name 'two words' --star * `touch mark` $(touch mark) $(shell touch mark) ; touch mark | touch mark & > mark"

AS_IT_IS = {"help", "env", "light", "clean", "lock", "no-recipe", "no-run", "format", "check"}
"""Targets that take no variable but ARGS for the tool behind `lock`."""


@pytest.fixture
def project(tmp_path):
    """A checkout that records what make starts."""
    return make_checkout(tmp_path / "project")


def targets():
    """Return the targets that start something."""
    found = re.findall(r"^([a-z-]+):.*?##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return [name for name in found if name not in AS_IT_IS]


WORDS = (
    *("RECIPE", "BUCKET", "RUN", "DATA", "SOURCE", "OUT", "ARGS", "IMAGE", "IN", "IMAGE_NAME", "REPOSITORY", "N"),
    *("NODES", "PREEMPTIONS", "CONTAINER_ENGINE", "BASE_IMAGE", "LOG", "MAX_USD", "NO_LIMIT", "NO_PREFLIGHT"),
)


def reads_of(target):
    """Return the variables that a target reads: its own line and recipe, and the programs that it starts."""
    makefile = (ROOT / "Makefile").read_text()
    text = re.search(rf"^{target}:.*\n(?:\t.*\n)*", makefile, re.MULTILINE)[0].replace("NAMED_BUCKET", "BUCKET")
    text = re.sub("##.*", "", text)
    scripts = re.findall(r"(?:docker|infra/scripts)/\w+\.sh(?! (?:status|down))", text)
    if any(script.startswith("docker/") for script in scripts):
        scripts.append("docker/engine.sh")
    modules = [f"{module.replace('.', '/')}.py" for module in re.findall(r"-m (tests[\w.]+)", text)]
    if "-m pytest" in text and "tests/gpu" not in text:
        modules.append("tests/container/test_image.py")
    for name in ("BUCKET_OR_DEMO", "BUCKET_IF_NAMED", "LOCK"):
        if f"$({name})" in text:
            text += re.search(rf"^{name} = .*", makefile, re.MULTILINE)[0]
    text += "".join((ROOT / script).read_text() for script in scripts)
    found = set(re.findall(r"\$[({]?([A-Z_]+)", text))
    for module in modules:
        found |= set(re.findall(r'environ\.get\("([A-Z_]+)"', (ROOT / module).read_text()))
    meant = {"ARGS": "WITH_ARGS" in found, "LOG": "$(BIN)/job" in text or '"$JOB"' in text}
    return found.intersection(WORDS) | {word for word, is_meant in meant.items() if is_meant}


def words_of(project):
    """Return the words of every call of a program in the project, but for the splitting of ARGS."""
    return [words for _, words in calls_of(project)]


def test_help_fits_a_terminal_and_names_every_target(project):
    """No line has more than 80 columns, and descriptions that are longer go on below."""
    shown = make(project, "help", {}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert set(targets()) <= set(re.findall(r"^  make ([a-z-]+) ", shown, re.MULTILINE))
    assert "Resume RUN: here, or in the cloud if it was submitted" in " ".join(shown.split())


@pytest.mark.parametrize("given", ["command line", "environment"])
@pytest.mark.parametrize("target", targets())
def test_no_variable_runs_anything(project, target, given):
    """Quotes, backticks, semicolons and make's own functions in any variable stay text, wherever it is given."""
    values = dict.fromkeys(WORDS, HOSTILE) | {"RECIPE": "A", "ARGS": ARGS}
    if given == "command line":
        done = make(project, target, {name: value for name, value in values.items() if name in reads_of(target)})
    else:
        done = make(project, target, {}, **(values | {"IN": ""}))
    assert not (project / "mark").exists()
    calls = words_of(project)
    assert calls, done.stdout + done.stderr
    split = shlex.split(ARGS)
    for call in calls:
        assert all(
            word.partition("=")[2] == HOSTILE or word in {HOSTILE, *split} or "touch" not in word for word in call
        )


@pytest.mark.parametrize("target", [*targets(), *sorted(AS_IT_IS - {"no-recipe", "no-run"})])
def test_a_variable_that_a_target_does_not_read_is_answered(project, target):
    """All of them are named, with the targets that they are for, and nothing is started."""
    done = make(project, target, dict.fromkeys(WORDS, "1"))
    assert done.returncode != 0
    unread = set(WORDS) - reads_of(target)
    assert set(re.search(r"would leave out ([A-Z_ ]+);", done.stderr)[1].split()) == unread
    assert all(f"({word} is for " in done.stderr for word in unread)
    assert words_of(project) == []


def test_variables_may_be_for_one_of_several_targets(project):
    """Each is read by one of them; a name of the image is for a training in it alone, and a mistyped target is one."""
    assert make(project, "image", {"REPOSITORY": "r"}).returncode != 0
    assert words_of(project) == []
    assert make(project, "image push", {"REPOSITORY": "r"}).returncode == 0
    assert "would leave out IMAGE_NAME;" in make(project, "train", {"RECIPE": "A", "IMAGE_NAME": "i"}).stderr
    assert "No rule to make target 'repot'" in make(project, "repot", {"RUN": "r"}).stderr
    assert len(words_of(project)) == 2


def test_a_training_gets_its_words_and_those_of_args(project):
    """Quotes in ARGS hold words together, and a star is no list of files."""
    done = make(project, "train", {"RECIPE": HOSTILE, "BUCKET": "b", "RUN": "r", "ARGS": ARGS})
    assert done.returncode == 0, done.stderr
    (words,) = words_of(project)
    assert words == ["train", "--recipe", HOSTILE, "--bucket", "b", "--run", "r", *shlex.split(ARGS)]
    assert "two words" in words
    assert "*" in words


def test_without_variables_a_training_is_the_demo(project):
    """Without a bucket it is the folder of that name, at the demo's scale."""
    assert make(project, "train", {"RECIPE": "A"}).returncode == 0
    assert words_of(project) == [["train", "--recipe", "A", "--bucket", "bucket", "--profile", "demo"]]


def test_a_prediction_gets_run_source_and_place(project):
    """The source is one word, and without one a sentence says so and nothing is started."""
    done = make(project, "predict", {"RUN": "r", "SOURCE": "my flight", "OUT": "found", "ARGS": "--recall 0.9"})
    assert done.returncode == 0, done.stderr
    assert words_of(project) == [
        ["predict", "r", "my flight", "--out", "found", "--bucket", "bucket", "--recall", "0.9"]
    ]
    without = make(project, "predict", {"RUN": "r", "OUT": "found"})
    assert without.returncode != 0
    assert "make predict: SOURCE or OUT is missing" in without.stderr
    assert len(words_of(project)) == 1


def test_training_and_prediction_run_in_the_image(project):
    """With IN=image the script of the image gets the command that the environment would get."""
    for target, variables in {"train": {"RECIPE": "A"}, "predict": {"RUN": "r", "SOURCE": "s", "OUT": "o"}}.items():
        for where in ({}, {"IN": "image"}):
            assert make(project, target, variables | where).returncode == 0
    train, predict = Programs(project / ".venv/bin").words("job")
    assert Programs(project / "docker").words("run.sh") == [["job", *train], ["job", *predict]]


def test_training_arguments_are_written_as_yolo_writes_them(project):
    """Small letters are arguments of the command, as text; any other name is answered, and nothing is started."""
    done = make(project, "train", {"RECIPE": "A", "epochs": "3", "lr0": HOSTILE})
    assert done.returncode == 0, done.stderr
    (words,) = words_of(project)
    assert sorted(words[-2:]) == ["epochs=3", f"lr0={HOSTILE}"]
    for name, target in (("Bucket", "train"), ("EPOCHS", "train"), ("EPOCHS", "runs"), ("Run", "help"), ("X", "clean")):
        wrong = make(project, target, {"RECIPE": "A", name: "3"})
        assert wrong.returncode != 0
        assert f"{name}: is no variable here" in wrong.stderr
    assert len(words_of(project)) == 1


def test_a_switch_in_args_takes_no_training_argument_for_its_value(project):
    """Behind a switch comes nothing, so that `epochs=3` is an argument as without it."""
    make(project, "train", {"RECIPE": "A", "epochs": "3", "ARGS": "--dry-run"})
    assert words_of(project)[-1][-2:] == ["epochs=3", "--dry-run"]


def test_a_training_argument_is_never_left_out(project):
    """Any name of `yolo` is passed on, `name` too; a target that could not take it, and a limit that is for the VM
    alone, is answered.
    """
    make(project, "train", {"RECIPE": "A", "name": "mine"})
    assert words_of(project)[-1][-1] == "name=mine"
    for target, name in (("image", "epochs"), ("vm-up", "epochs"), ("submit", "MAX_USD")):
        done = make(project, target, {name: "3"})
        assert done.returncode != 0
        assert f"would leave out {name};" in done.stderr
    assert len(words_of(project)) == 1


def test_a_run_is_resumed_where_it_is(project):
    """A run of the folder, or of a named bucket, goes on by its record; any other one is sought in the cloud."""
    make(project, "resume", {"RUN": "zebra"})
    make(project, "resume", {"RUN": "zebra", "BUCKET": "gs://b"})
    (project / "bucket" / "runs" / "zebra").mkdir(parents=True)
    (project / "bucket" / "runs" / "zebra" / "run.json").touch()
    make(project, "resume", {"RUN": "zebra"})
    make(project, "resume", {"RUN": "zbera"})  # without settings of a cloud, the folder's runs are what it may mean
    (project / "cloud.yaml").touch()
    make(project, "resume", {"RUN": "zbera"})
    assert words_of(project) == [
        ["supervise", "zebra", "--resume"],
        ["resume", "zebra", "--bucket", "gs://b"],
        ["resume", "zebra", "--bucket", "bucket"],
        ["resume", "zbera", "--bucket", "bucket"],
        ["supervise", "zbera", "--resume"],
    ]


def test_several_machines_are_skypilot_s(project):
    """SkyPilot gets the task, the number of nodes and the task's variables; without a bucket nothing is started."""
    words = {"RECIPE": "A", "NODES": "2", "BUCKET": "gs://b", "IMAGE": "r/i@sha256:0", "ARGS": "--gpus A100:8"}
    assert make(project, "sky", words).returncode == 0
    assert words_of(project) == [
        [
            *("jobs", "launch", "infra/skypilot/train.yaml", "--num-nodes", "2", "--env", "RECIPE=A"),
            *("--env", "BUCKET=gs://b", "--env", "IMAGE=r/i@sha256:0", "--gpus", "A100:8"),
        ]
    ]
    assert "make sky: BUCKET or IMAGE is missing" in make(project, "sky", {"RECIPE": "A"}).stderr
    assert len(words_of(project)) == 1


def test_a_drill_gets_recipe_kills_nodes_and_seed(project):
    """One node and five kills are the default; the seed is in ARGS, and no training argument is taken for it."""
    make(project, "drill", {})
    make(project, "drill", {"RECIPE": "B", "PREEMPTIONS": "2", "NODES": "2", "ARGS": "7"})
    assert [words[2:] for words in words_of(project)] == [["A", "5", "1"], ["B", "2", "2", "7"]]
    assert "would leave out epochs" in make(project, "drill", {"epochs": "3"}).stderr


@pytest.mark.parametrize("command", ["export", "audit"])
def test_an_export_and_an_audit_may_have_a_place(project, command):
    """Without OUT the bucket is the place, and without a run a sentence says so."""
    assert make(project, command, {"RUN": "r", "BUCKET": "b"}).returncode == 0
    assert make(project, command, {"RUN": "r", "OUT": "my place"}).returncode == 0
    assert words_of(project) == [
        [command, "r", "--bucket", "b"],
        [command, "r", "--out", "my place", "--bucket", "bucket"],
    ]
    without = make(project, command, {})
    assert without.returncode != 0
    assert f"make {command}: RUN is missing" in without.stderr


def test_a_quote_that_is_not_closed_is_refused(project):
    """ARGS that cannot be split into words ends with a sentence, and nothing is started."""
    done = make(project, "runs", {"ARGS": "'open"})
    assert done.returncode != 0
    assert "make: ARGS cannot be split into words, No closing quotation" in done.stderr
    assert "Traceback" not in done.stderr
    assert words_of(project) == []


def test_pictures_of_ones_own_are_trained_on_at_full_scale(project):
    """DATA of the command line is one word, for a bucket of that name without BUCKET; another program's is none."""
    make(project, "train", {"RECIPE": "base", "DATA": "my photos"})
    make(project, "train", {"RECIPE": "base", "DATA": "p.zip", "BUCKET": "gs://b"})
    make(project, "train", {"RECIPE": "base", "BUCKET": "gs://b"}, DATA="/of/another/program")
    assert words_of(project) == [
        ["train", "--recipe", "base", "--data", "my photos", "--bucket", "bucket"],
        ["train", "--recipe", "base", "--data", "p.zip", "--bucket", "gs://b"],
        ["train", "--recipe", "base", "--bucket", "gs://b"],
    ]


INTERPRETER = """
if sys.argv[1] == "-c":
    sys.version_info = (3, {minor}, 0)
    sys.modules |= dict.fromkeys({lacks!r})
    exec(sys.argv[2])
"""
"""A Python of another version, which makes no environment when it is asked to."""


def make_environment(project, minor, *, lacks=(), named=False):
    """Run `make env` where there is no environment, and one Python 3; return what make printed, and the calls of it."""
    shutil.rmtree(project / ".venv")
    programs = Programs(project / "programs")
    programs.add("python3", INTERPRETER.format(minor=minor, lacks=lacks))
    for name in ("make", "sh", "rm", "touch"):
        (programs.folder / name).symlink_to(shutil.which(name))
    done = make(project, "env", {"PYTHON": "python3"} if named else {}, PATH=str(programs.folder))
    return done.stderr, programs.words("python3")


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    ("minor", "lacks", "told"),
    [
        (10, (), "is Python 3.10, not 3.11, 3.12 or 3.13"),
        (14, (), "is Python 3.14, not 3.11, 3.12 or 3.13"),
        (13, ("ensurepip",), "has no venv; Debian and Ubuntu have it in python3.13-venv"),
    ],
)
def test_an_unfit_python_is_refused_before_anything_is_fetched(project, minor, lacks, told, named):
    """A Python of another version, or one without venv, makes no environment; the message names the package to install
    on Debian and on Fedora.
    """
    errors, calls = make_environment(project, minor, lacks=lacks, named=named)
    for part in (told, "apt install python3-venv", "dnf install python3.13", "Error 78"):
        assert part in errors
    assert {words[0] for words in calls} == {"-c"}
    assert not (project / ".venv").exists()


@pytest.mark.parametrize("minor", range(9, 16))
def test_every_python_of_the_project_may_make_the_environment(project, minor):
    """The Makefile takes the versions that pyproject.toml allows, and no others."""
    allowed = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    _, calls = make_environment(project, minor)
    assert (["-m", "venv", ".venv"] in calls) is allowed.contains(f"3.{minor}")

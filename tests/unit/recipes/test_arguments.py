"""The table of training arguments matches the installed Ultralytics."""

from typing import get_args

import pytest

from job.recipes.arguments import (
    DEFAULTS,
    OF_THE_JOB,
    OWNED,
    TrainingArguments,
    check_arguments,
    read_argument,
    requested,
)
from job.runs.records import differences
from job.runs.request import TrainRequest

THEIRS = [name for name in DEFAULTS if name not in OF_THE_JOB]


def test_names_and_defaults_are_those_of_ultralytics(confined):
    """Every argument of the table exists in Ultralytics with the same default."""
    from ultralytics.cfg import DEFAULT_CFG_DICT  # noqa: PLC0415  # seconds that only this test needs

    assert {name: DEFAULT_CFG_DICT[name] for name in THEIRS} == {name: DEFAULTS[name] for name in THEIRS}
    assert not set(OF_THE_JOB) & set(DEFAULT_CFG_DICT)
    assert set(OWNED) - set(DEFAULT_CFG_DICT) <= {"save_dir", "augmentations", "distill_model"}


@pytest.mark.parametrize("name", THEIRS)
def test_what_the_table_accepts_ultralytics_accepts(confined, name):
    """The ends of every range, and every choice, pass Ultralytics' own check."""
    from ultralytics.cfg import get_cfg  # noqa: PLC0415  # seconds that only this test needs

    field = TrainingArguments.model_fields[name]
    values = [field.default, *choices(field.annotation)]
    values += [getattr(limit, end) for limit in field.metadata for end in ("ge", "le") if hasattr(limit, end)]
    for value in values:
        accepted, problems = check_arguments({name: value})
        assert problems == []
        if value is not None:
            get_cfg(overrides=accepted)


def choices(kind):
    """Return the texts of each literal in a type."""
    return [text for part in get_args(kind) for text in ([part] if isinstance(part, str) else choices(part))]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "must be a whole number from 1 to 2147483647, got 0"),
        ("epochs", 1.5, "must be a whole number from 1 to 2147483647, got 1.5"),
        ("epochs", True, "must be a whole number from 1 to 2147483647, got True"),
        ("epochs", 10**400, "must be a whole number from 1 to 2147483647, got 1000"),
        ("batch", 0.7, "must be a whole number from 1 to 2147483647, got 0.7"),
        ("seed", 2**32, "must be a whole number from 0 to 4294967295, got 4294967296"),
        ("seed", -1, "must be a whole number from 0 to 4294967295, got -1"),
        ("imgsz", 16_353, "must be a whole number from 32 to 16352, got 16353"),
        ("degrees", float("nan"), "must be a number, got nan"),
        ("shear", float("-inf"), "must be a number, got -inf"),
        ("box", float("inf"), "must be a number of at least 0, got inf"),
        ("freeze", [0, -1], "must be a whole number of at least 0, or a list of such, got -1 in it"),
        ("classes", [0, "zebra"], "must be a whole number of at least 0, or a list of such, got 'zebra' in it"),
        ("classes", -1, "must be a whole number of at least 0, or a list of such, got -1"),
        ("classes", "0,-1", "must be a whole number of at least 0, or a list of such, got -1 in it"),
        ("amp", "fp8", "must be true, false, fp16, bf16 or fp32, got 'fp8'"),
        ("epochs", None, "must be a whole number from 1 to 2147483647, got nothing"),
        ("epochs", "3", "must be a whole number from 1 to 2147483647, got '3'"),
        (7, 3, "not a training argument"),
        ("tiles", 31, "must be 0 for whole pictures, or at least 32 pixels, got 31"),
        ("tile_overlap", 1.0, "must be a number from 0 to 0.9, got 1.0"),
        ("mosaic", 1.1, "must be a number from 0 to 1, got 1.1"),
        ("degrees", "a lot", "must be a number, got 'a lot'"),
        ("cos_lr", "yes", "must be true or false, got 'yes'"),
        ("compile", "reduce-overhead", "must be true or false, got 'reduce-overhead'"),
        ("optimizer", "Lion", "must be one of auto, SGD"),
        ("time", 3, "decided by the job; a run ends by epochs"),
        ("rect", True, "decided by the job; batches follow a keyed shuffle"),
        ("cache", "ram", "must be false, got 'ram'; the one in memory is given up where memory is short"),
        ("cache", "disk", "must be false, got 'disk'; the one in memory"),
        ("cache", True, "must be false, got True; the one in memory"),
        ("hsv", 0.1, "not a training argument; did you mean 'hsv_"),
    ],
)
def test_a_bad_value_is_reported_with_the_wanted_and_the_found_one(name, value, message):
    """Each kind of mistake has a message with the wanted and the found value."""
    values, problems = check_arguments({name: value})
    assert values == {}
    assert len(problems) == 1
    assert message in problems[0]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "100", 100),
        ("degrees", "15.0", 15.0),
        ("lr0", "1e-3", 0.001),
        ("deterministic", "True", True),
        ("compile", "True", True),
        ("cache", "ram", "ram"),
        ("cache", "true", "true"),
        ("cache", "false", False),
        ("cache", "False", False),
        ("freeze", "10", 10),
        ("classes", "0,2,3", [0, 2, 3]),
        ("classes", "[0, 2]", [0, 2]),
        ("classes", "[5]", [5]),
        ("optimizer", "AdamW", "AdamW"),
        ("epochs", "many", "many"),
        ("batch", "0.7", "0.7"),
        ("batch", "8.0", 8),
        ("amp", "fp16", "fp16"),
        ("amp", "false", False),
    ],
)
def test_a_command_lines_text_becomes_the_value_it_means(name, text, value):
    """Text is read by the argument's type, and left as it is where it cannot be."""
    assert read_argument(name, text) == value


def test_a_request_is_as_older_versions_recorded_it():
    """Arguments that they did not have are recorded where they are no defaults alone, and then they are another run."""
    plain, compiled = (
        TrainRequest.parse({"recipe": "A", "arguments": words}).identity("wildlife")
        for words in ({}, {"compile": "true"})
    )
    assert not {*OF_THE_JOB, "compile"} & requested(DEFAULTS).keys()
    assert differences(compiled, plain) == ["train.compile: the run has True, asked for None"]

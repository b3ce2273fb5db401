"""Quantities as text, and messages for wrong values."""

import shlex
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic.dataclasses import dataclass

from job.text import (
    ago,
    command_line,
    counted,
    dollars,
    duration,
    fitted,
    percent,
    seconds_between,
    validation_problems,
)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (8.44, "8.4 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (18420, "5 h 07 min"),
        (5_000_000, "1,388 h 53 min"),
    ],
)
def test_a_time_is_written_in_its_two_largest_units(seconds, said):
    """Seconds become what a person would say, and never 60 of anything."""
    assert duration(seconds) == said


def test_small_amounts_keep_their_digits():
    """An amount below one dollar has four decimals; a share is a percentage."""
    assert (dollars(12.4), dollars(1234.5), dollars(0.0031), dollars(0)) == ("$12.40", "$1,234.50", "$0.0031", "$0.00")
    assert percent(0.6834) == "68.3 %"


def test_one_of_anything_is_no_plural():
    """A noun agrees with its number, whole or not, and keeps its digits."""
    assert [counted(number, "epoch") for number in (0, 1, 1.0, 2.5, 3)] == [
        *("0 epochs", "1 epoch", "1 epoch", "2.5 epochs", "3 epochs")
    ]
    assert (counted(1, "box", "boxes"), counted(1_234_567, "box", "boxes")) == ("1 box", "1234567 boxes")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (47 * 3600 + 3599, "47 h"),
        (48 * 3600, "2 days"), (-5, "0 s"),
    ],
)  # fmt: skip
def test_an_age_is_shown_in_its_largest_unit(seconds, shown):
    """From seconds to days, and never a negative one."""
    at = datetime(2026, 11, 23, tzinfo=UTC)
    assert ago(at.isoformat(), (at + timedelta(seconds=seconds)).isoformat()) == f"{shown} ago"


def test_the_time_between_two_records_is_never_negative():
    """Where a clock was set back between two records nothing has passed, in whatever zone they were written."""
    earlier, later = "2026-11-23T10:00:00.000+00:00", "2026-11-23T11:00:01.500+01:00"
    assert (seconds_between(earlier, later), seconds_between(later, earlier)) == (1.5, 0.0)


class Price(BaseModel):
    """Dollars per hour as text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    spot: float = Field(gt=0)


class Settings(BaseModel):
    """A model with one field of each kind."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    batch: int = Field(ge=1, le=64)
    scale: float = Field(0.5, ge=0)
    region: str = Field("us-central1", pattern=r"^[a-z0-9-]+$", description="a region such as us-central1")
    layers: list[Annotated[int, Field(ge=0)]] | None = None
    profile: Literal["full", "demo"] = "full"
    prices: dict[str, Price] = {}
    price: Price | None = None
    hours: dict[str, dict[Literal["spot"], float]] = {}
    tiers: Annotated[list[Price], Field()] | None = None

    @field_validator("layers")
    @classmethod
    def _few(cls, value):
        if value and len(value) > 2:
            raise ValueError(f"must be two layers at most, got {len(value)}")
        return value


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({}, ["batch: missing"]),
        ([], ["must be a mapping, got []"]),
        (
            {7: 1, "batch": 1},
            ["7: unknown key; known are batch, scale, region, layers, profile, prices, price, hours, tiers"],
        ),
        ({"batch": 0}, ["batch: must be a whole number from 1 to 64, got 0"]),
        ({"batch": "big"}, ["batch: must be a whole number from 1 to 64, got 'big'"]),
        ({"batch": True}, ["batch: must be a whole number from 1 to 64, got True"]),
        ({"batch": None}, ["batch: must be a whole number from 1 to 64, got nothing"]),
        ({"batch": 1, "scale": float("nan")}, ["scale: must be a number of at least 0, got nan"]),
        ({"batch": 1, "region": "?"}, ["region: must be a region such as us-central1, got '?'"]),
        ({"batch": 1, "profile": "half"}, ["profile: must be one of full, demo, got 'half'"]),
        ({"batch": 1, "layers": 7}, ["layers: must be a list, got 7"]),
        ({"batch": 1, "layers": [0, -1, "x"]}, ["layers: must be a list, got -1 in it"]),
        ({"batch": 1, "layers": [1, 2, 3]}, ["layers: must be two layers at most, got 3"]),
        ({"batch": 1, "btach": 2}, ["btach: unknown key; did you mean 'batch'?"]),
        ({"batch": 1, "price": {"spto": 2, "spot": 1}}, ["price.spto: unknown key; did you mean 'spot'?"]),
        ({"batch": 1, "price": {"x": 2, "spot": 1}}, ["price.x: unknown key; known are spot"]),
        ({"batch": 1, "price": 3}, ["price: must be a mapping, got 3"]),
        ({"batch": 1, "prices": {"l4": {"spot": 0}}}, ["prices.l4.spot: must be a number above 0, got 0"]),
        ({"batch": 1, "prices": {7: {"spot": 1}}}, ["prices.7: must be text, got 7"]),
        ({"batch": 1, "tiers": [{"spot": 1}, {}, 7]}, ["tiers.1.spot: missing", "tiers.2: must be a mapping, got 7"]),
        ({"batch": 1, "hours": {"l4": {"sopt": 1.0}}}, ["hours.l4.sopt: must be spot, got 'sopt'"]),
        ({"batch": 1, "prices": {"l4": 3}}, ["prices.l4: must be a mapping, got 3"]),
        (
            {"btach": 2, "scale": -1, "region": 3, "prices": {"l4": {}}},
            [
                "batch: missing",
                "scale: must be a number of at least 0, got -1",
                "region: must be a region such as us-central1, got 3",
                "prices.l4.spot: missing",
                "btach: unknown key; did you mean 'batch'?",
            ],
        ),
    ],
)
def test_errors_of_a_model_become_messages(given, problems):
    """Each field that is wrong has one sentence with its name, what it must be and what was found."""
    with pytest.raises(ValidationError) as raised:
        Settings.model_validate(given)
    assert validation_problems(raised.value, Settings) == problems


@dataclass(kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Placement:
    """A record that is a dataclass."""

    region: str
    spot: bool = False


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("{}", ["region: missing"]),
        ('{"region": 7, "sopt": true}', ["region: must be text, got 7", "sopt: unknown key; did you mean 'spot'?"]),
        ("[7]", ["must be a mapping, got [7]"]),
        ('"' + 999 * "x" + '"', [f"must be a mapping, got '{199 * 'x'}..."]),
        ("{", ["not JSON, EOF while parsing an object at line 1 column 1"]),
    ],
)
def test_errors_of_a_dataclass_in_json_become_messages(text, problems):
    """A dataclass of pydantic is treated like a model, text that is not JSON is named, and a long value is cut."""
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(Placement).validate_json(text)
    assert validation_problems(raised.value, Placement) == problems


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("short", ["short"]),
        ("  - " + "word " * 15 + "more words", ["  - " + " ".join(["word"] * 15), "    more words"]),
        ("x" * 100, ["x" * 100]),
        ("word " * 15 + "see `job train --help` for it", ["word " * 15 + "see", "  `job train --help` for it"]),
        (
            "  job train --recipe A --weights runs/yolov11_wildlife/weights/best.pt --run 'a zebra' --epochs 9",
            [
                "  job train --recipe A --weights runs/yolov11_wildlife/weights/best.pt --run \\",
                "    'a zebra' --epochs 9",
            ],
        ),
        (
            "  /opt/venv/bin/job train --recipe A --weights runs/yolov11_wildlife/weights/best.pt --epochs 9",
            [
                "  /opt/venv/bin/job train --recipe A --weights \\",
                "    runs/yolov11_wildlife/weights/best.pt --epochs 9",
            ],
        ),
    ],
    ids=["short", "listed", "path", "quoted", "command", "its path"],
)
def test_a_message_fits_a_terminal_and_commands_can_be_copied(line, lines):
    """Words, and what is quoted, stay whole; a list's entry goes on below its text, a command behind a backslash."""
    assert fitted(line) == lines


def test_a_printed_command_can_be_given_as_it_stands(monkeypatch, tmp_path):
    """A command of the job names the path of its program unless the shell finds it by its name."""
    monkeypatch.setenv("PATH", str(tmp_path))
    words = shlex.split(command_line("next", "job --version")[0])
    assert subprocess.run(words[1:], capture_output=True, check=True).stdout.startswith(b"job ")
    (tmp_path / "job").touch(mode=0o755)
    assert command_line("next", "job --version") == ["next        job --version"]

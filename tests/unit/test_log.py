"""What a stranger named reaches the terminal as text."""

import json
import logging

import pytest

from job import log
from job.cli import main
from job.errors import DataError
from tests.support.tiny_dataset import make_tiny_dataset

HOSTILE = "cow\x1b]0;pwned\x07\x1b[2J\x9b1m\r\u202eevil"
"""Sets the window's title, clears the screen, prints over the line, and turns the rest around."""


@pytest.mark.parametrize(
    "character", ["\x00", "\x07", "\x08", "\r", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\udcff"]
)
def test_what_steers_a_terminal_is_spelt_out(character):
    """Controls, turned directions and bytes that are no text are shown by their numbers."""
    shown = log.escaped(f"a{character}b")
    assert character not in shown
    assert shown.isprintable()
    assert shown.startswith("a\\")


def test_other_text_stays_as_it_is():
    """Letters of any script, tabs and the ends of lines are no danger."""
    text = "Löwe 狮子 🦁\tأسد\n"
    assert log.escaped(text) == text


def test_messages_steer_no_terminal(capsys):
    """A message is escaped wherever it comes from; one for machines is JSON, which is plain ASCII."""
    log.set_up_logging(for_machines=False)
    logging.getLogger("job").warning("%s", HOSTILE)
    shown = capsys.readouterr().err
    assert "\\x1b]0;pwned\\x07" in shown
    assert shown.rstrip("\n").isprintable()
    log.set_up_logging(for_machines=True)
    logging.getLogger("job").warning("%s", HOSTILE)
    line = capsys.readouterr().err
    assert line.rstrip("\n").isprintable()
    assert json.loads(line)["message"] == HOSTILE


def assert_harmless(shown):
    """Check that the hostile name is shown, and does nothing."""
    assert "pwned" in shown
    assert all(line.isprintable() for line in shown.split("\n"))


def test_names_of_a_dataset_steer_no_terminal(tmp_path, capsys):
    """Class names are shown on standard output, and names of files in the problems."""
    folder = make_tiny_dataset(tmp_path / "tiny")
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: [{json.dumps(HOSTILE)}, b]\n")
    assert main(["data", "check", str(folder)]) == 0
    assert_harmless(capsys.readouterr().out)
    (folder / "images" / "train" / f"{HOSTILE.replace('/', '')}.png").write_bytes(b"broken")
    assert main(["data", "check", str(folder)]) == 65
    assert_harmless(capsys.readouterr().err)


def test_each_problem_is_one_line():
    """A name with an end of line in it cannot make up a problem, or a message, of its own."""
    error = DataError("dataset: broken", ["images/a\n  - images/b: forged"])
    assert str(error).splitlines() == ["dataset: broken", "  - images/a\\n  - images/b: forged"]

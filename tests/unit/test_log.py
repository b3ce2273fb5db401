"""Untrusted names are printed as text without control characters."""

import io
import json
import logging
import subprocess
import sys

import pytest
import yaml

from job import log
from job.cli.app import main
from job.errors import DataError
from tests.support.cli_process import TIMEOUT_S, job, surroundings, wait_until
from tests.support.terminal import Terminal, screen, terminal_shown
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


def test_the_live_line_is_drawn_on_a_terminal_without_a_size():
    """A terminal that says it has no rows and no columns, as a container's may, shows the line all the same."""
    source = "from job.log import LiveLine; line = LiveLine(2); line.show('epoch 1/2', 0); line.close(); print('shown')"
    terminal = Terminal([sys.executable, "-c", source], surroundings({}))
    wait_until(lambda: "shown" in terminal.text())
    terminal.process.wait(TIMEOUT_S)
    terminal.close()
    assert "epoch 1/2" in terminal.text()


def test_output_that_others_closed_is_no_error():
    """An escaped stream that is closed, as Python does at its end, does not flush the stream beneath."""
    stream = io.TextIOWrapper(io.BytesIO())
    output = log.EscapedStream(stream)
    stream.close()
    output.close()


def test_printed_lines_stand_among_messages_in_a_pipe():
    """Output and messages that go into one pipe are in the order in which they were written."""
    source = """
import sys
from job.log import EscapedStream
sys.stderr.write("epoch 9\\n")
print("the result", file=EscapedStream(sys.stdout))
sys.stderr.write("the next run\\n")
"""
    done = subprocess.run([sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    assert done.stdout.decode().splitlines() == ["epoch 9", "the result", "the next run"]


def test_other_text_stays_as_it_is():
    """Letters of any script, tabs and the ends of lines are no danger."""
    text = "Löwe 狮子 🦁\tأسد\n"
    assert log.escaped(text) == text


def test_messages_steer_no_terminal(capsys, monkeypatch):
    """A message is escaped wherever it comes from; one for machines is JSON, which is plain ASCII."""
    log.set_up_logging()
    logging.getLogger("job").warning("%s", HOSTILE)
    shown = capsys.readouterr().err
    assert "\\x1b]0;pwned\\x07" in shown
    assert shown.rstrip("\n").isprintable()
    monkeypatch.setenv("LOG", "json")
    log.set_up_logging()
    logging.getLogger("job").warning("%s", HOSTILE)
    line = capsys.readouterr().err
    assert line.rstrip("\n").isprintable()
    assert json.loads(line)["message"] == HOSTILE


def test_a_pipe_gets_text_and_json_where_it_is_asked_for():
    """A training that is refused says so in plain text, and with LOG=json in a line of JSON."""
    plain, as_json = (job("train", "--recipe", "A", LOG=form, JOB_BUCKET="") for form in ("", "json"))
    assert (plain.returncode, as_json.returncode) == (2, 2)
    assert plain.stderr.startswith("error: bucket: none was named; pass --bucket")
    entry = json.loads(as_json.stderr)
    assert (entry["severity"], f"error: {entry['message']}\n") == ("ERROR", plain.stderr)


def test_messages_fit_a_terminal_and_are_not_glued_to_a_bar():
    """A message takes the place of the bar, in lines of 80 columns, and the bar stands below it."""
    with terminal_shown() as shown, log.Progress("pulling wildlife", 100, "B") as bar:
        bar.to(50)
        logging.getLogger("job").warning("%s: cannot be used", "words " * 20 + "end")
        bar.to(60)
        first, second, bar_line = screen(shown.getvalue())
    assert (first, second) == ("warning:" + " words" * 12, "  " + "words " * 8 + "end: cannot be used")
    assert bar_line.startswith("pulling wildlife:  60%|")
    assert max(len(first), len(second), len(bar_line)) <= 80
    assert screen(shown.getvalue())[-1].strip() == ""


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


def test_names_of_a_dataset_make_no_lines(tmp_path, capsys):
    """Neither a class nor a file whose name has an end of line makes up a line of what a check or a push says."""
    folder = make_tiny_dataset(tmp_path / "tiny")
    content = {
        "train": "images/train",
        "val": "images/val",
        "test": "x\nforged",
        "names": ["cow\n  forged", "b\tforged"],
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    (folder / "images/train/000.jpg").rename(folder / "images/train/0\nforged.jpg")
    (folder / "labels/train/000.txt").rename(folder / "labels/train/0\nforged.txt")
    (folder / "labels/train/0\nforged.txt").write_text("0 0.5 0.5 0 0.1\n")
    assert main(["data", "push", str(folder), "--dataset", "tiny", "--bucket", str(tmp_path), "--force"]) == 65
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "forged" in line]) > 2
    assert [line for line in lines if not line.startswith(("warning: ", "error: ", "  - "))] == []
    for name in ("images/train/0\nforged.jpg", "labels/train/0\nforged.txt"):
        (folder / name).rename(folder / name.replace("\n", ""))
    assert main(["data", "check", str(folder)]) == 0
    first, *more = capsys.readouterr().out.splitlines()
    assert first.endswith("classes cow\\n  forged, b\\tforged")
    assert [line for line in more if not line.startswith(("  train", "  val", "  sizes", "  most", "  note: "))] == []


def test_a_terminal_without_the_letters_is_no_error(tmp_path):
    """A name that the terminal's encoding does not have is spelt out."""
    folder = make_tiny_dataset(tmp_path / "tiny")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [狮子, b]\n", encoding="utf-8")
    done = job("data", "check", folder, PYTHONIOENCODING="latin-1")
    assert (done.returncode, "classes \\u72ee\\u5b50, b" in done.stdout) == (0, True)


def test_each_problem_is_one_line():
    """A name with an end of line in it cannot make up a problem, or a message, of its own."""
    error = DataError("dataset a\nb: broken", ["images/a\n  - images/b: forged"])
    assert str(error).splitlines() == ["dataset a\\nb: broken", "  - images/a\\n  - images/b: forged"]

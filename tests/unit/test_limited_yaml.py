"""Untrusted YAML is refused with one message, in little time and memory."""

import os
import time
import tracemalloc

import pytest

from job.cli.app import main
from job.datasets.check import check_dataset
from job.errors import MachineError, RecipeError
from job.recipes.recipe import load_recipe
from job.text import UnreadableYamlError, load_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
"""Eleven lines that stand for nine to the power of twelve values."""

MERGES = "m0: &m0 {x: 1}\n" + "".join(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}\n" for n in range(1, 30))
"""Keys that are merged over and over."""


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (BOMB, "values, aliases followed"),
        (MERGES, "aliases followed"),
        ("&a [*a]", "values, aliases followed"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "1:" * 5000 + "1", "a number of 10001 characters"),
        ("a: 0x" + "f" * 5000, "a number of"),
        ("x" * 1_000_001, "larger than 1 MB"),
        ("a: 2026-13-45", "month"),
        ("{[a]: 1}", "unhashable"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: \x07", "special characters"),
        ("a: 'b", "^found unexpected end of stream, line 1, column 6$"),
        ("notify: https://example.com/secret: x", "^mapping values are not allowed here, line 1, column 35$"),
        (b"a: \xff", "invalid"),
    ],
)
def test_yaml_of_unreasonable_size_is_refused(text, part):
    """Aliases that multiply, depth, endless numbers and what is no YAML at all end with the reason."""
    with pytest.raises(UnreadableYamlError, match=part):
        load_yaml(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: &x [1, 2]\nb: *x\n", {"a": [1, 2], "b": [1, 2]}),
        ("a: &x {p: 1}\nb: {<<: *x, q: 2}\n", {"a": {"p": 1}, "b": {"p": 1, "q": 2}}),
        ("names: {0: café, 1: bird}", {"names": {0: "café", 1: "bird"}}),
        ("a: " + "b" * 5000, {"a": "b" * 5000}),
    ],
)
def test_ordinary_yaml_is_read_as_it_is(text, value):
    """A few aliases, long text and an empty file are no reason to refuse anything."""
    assert load_yaml(text) == value


def test_nine_thousand_classes_are_read():
    """The largest vocabulary of a public detector has so many names."""
    text = "names:\n" + "".join(f"  {number}: name {number}\n" for number in range(9000))
    assert len(load_yaml(text)["names"]) == 9000


def test_a_recipe_that_would_fill_memory_is_refused(tmp_path, capsys):
    """A recipe of a few hundred bytes, with aliases of aliases, ends with 65 at once."""
    path = tmp_path / "bomb.yaml"
    path.write_text(f"start: yolo11n.yaml\ntrain: {{}}\n{BOMB}")
    with pytest.raises(RecipeError, match="cannot be read as YAML"):
        load_recipe(str(path))
    begun = time.process_time()
    assert main(["recipes", "check", str(path)]) == 65
    assert time.process_time() - begun < 20
    assert "aliases followed" in capsys.readouterr().err


def test_a_recipe_that_is_no_recipe_by_its_size_is_not_read_to_its_end(tmp_path):
    """Of a file of 300 MB no more is taken into memory than shows that it is too large."""
    path = tmp_path / "large.yaml"
    path.touch()
    os.truncate(path, 300_000_000)
    tracemalloc.start()
    with pytest.raises(RecipeError, match="larger than 1 MB"):
        load_recipe(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_a_dataset_whose_yaml_would_fill_memory_is_refused(tmp_path):
    """The problem is reported like any other of the file."""
    (tmp_path / "data.yaml").write_text(f"train: images/train\nval: images/val\n{BOMB}")
    report = check_dataset(tmp_path)
    assert any("values" in str(problem) for problem in report.problems)


def test_settings_that_would_fill_memory_are_refused(tmp_path, monkeypatch):
    """The settings of the cloud are read within the same limits."""
    from job.cloud.settings import known_settings  # noqa: PLC0415  # of the cloud, which only this test needs

    monkeypatch.chdir(tmp_path)
    (tmp_path / "cloud.yaml").write_text(BOMB)
    with pytest.raises(MachineError, match="aliases followed"):
        known_settings({})

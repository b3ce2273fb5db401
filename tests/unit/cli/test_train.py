"""``job train`` on one of several nodes, before anything is trained."""

import sys
from types import SimpleNamespace

import pytest

from job.cli.train import launch_ranks
from job.training.nodes import Nodes

SKY = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.2\n10.0.0.3"}
PLAIN = {"NUM_NODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.2"}


@pytest.fixture
def launches(monkeypatch):
    """Calls of the launcher, which starts nothing and ends with 75."""
    calls = []
    launcher = SimpleNamespace(launch=lambda *call: calls.append(call) or 75)
    monkeypatch.setitem(sys.modules, "job.training.launch", launcher)
    monkeypatch.setattr(sys, "argv", ["job", "train", "--recipe", "A"])
    return calls


def set_all(monkeypatch, environment):
    """Set the variables of an environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("environment", [SKY, PLAIN])
def test_a_node_starts_the_command_again_in_its_processes(launches, monkeypatch, environment):
    """By SkyPilot's variables or plain ones, the node's place is the launcher's, and so is the exit code."""
    set_all(monkeypatch, environment)
    with pytest.raises(SystemExit, match="75"):
        launch_ranks("0")
    assert launches == [(["train", "--recipe", "A"], "0", Nodes(2, 1, "10.0.0.2", 29500))]


def test_one_of_the_processes_starts_no_others(launches, monkeypatch):
    """A process that torchrun started trains, and a single device of a single node needs no launcher."""
    launch_ranks("0")
    set_all(monkeypatch, {**PLAIN, "RANK": "1"})
    launch_ranks("0,1")
    assert launches == []

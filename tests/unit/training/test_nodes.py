"""Nodes of a training, by the variables of the engine that started it."""

import socket

import pytest

from job.errors import TryAgainError, UsageError
from job.training.nodes import Nodes, find_nodes

SKY = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.2\n10.0.0.3"}
PLAIN = {"NUM_NODES": "4", "NODE_RANK": "3", "MASTER_ADDR": "train-node-0-0.train"}


@pytest.mark.parametrize(
    ("environment", "nodes"),
    [
        ({}, Nodes()),
        ({"MASTER_ADDR": "somewhere", "SKYPILOT_NUM_NODES": "1"}, Nodes()),
        (SKY, Nodes(2, 1, "10.0.0.2", 29500)),
        (PLAIN, Nodes(4, 3, "train-node-0-0.train", 29500)),
        (PLAIN | SKY | {"MASTER_PORT": "1234"}, Nodes(4, 3, "train-node-0-0.train", 1234)),
    ],
)
def test_nodes_are_found_in_the_environment(environment, nodes):
    """SkyPilot's variables and plain ones are read, plain ones first; without any there is one node."""
    assert find_nodes(environment) == nodes


@pytest.mark.parametrize(
    ("environment", "problems"),
    [
        (
            {"NUM_NODES": "2"},
            {
                "NODE_RANK: must be a number from 0 to 1, got None",
                "MASTER_ADDR: must be the address of the node of rank 0",
            },
        ),
        (SKY | {"SKYPILOT_NODE_RANK": "2"}, {"SKYPILOT_NODE_RANK: must be a number from 0 to 1, got '2'"}),
        (SKY | {"SKYPILOT_NODE_IPS": ""}, {"SKYPILOT_NODE_IPS: must be the address"}),
        (PLAIN | {"NUM_NODES": "two"}, {"NUM_NODES: must be a number from 1, got 'two'"}),
        (PLAIN | {"NUM_NODES": "0"}, {"NUM_NODES: must be a number from 1, got '0'"}),
        (PLAIN | {"MASTER_PORT": "any"}, {"MASTER_PORT: must be a port, got 'any'"}),
        (PLAIN | {"MASTER_PORT": "0"}, {"MASTER_PORT: must be a port, got '0'"}),
        (PLAIN | {"MASTER_PORT": "65536"}, {"MASTER_PORT: must be a port, got '65536'"}),
    ],
)
def test_an_environment_that_does_not_fit_is_refused(environment, problems):
    """Every variable that is missing or wrong is named, with exit code 2."""
    with pytest.raises(UsageError) as raised:
        find_nodes(environment)
    said = raised.value.problems
    assert len(said) == len(problems)
    assert all(any(line.startswith(problem) for line in said) for problem in problems)


def test_a_node_that_does_not_know_how_many_there_are_is_refused():
    """Without NUM_NODES each node would train alone, and take the run from the others."""
    with pytest.raises(UsageError, match="NODE_RANK: must be 0 on a single node, got '1'; set NUM_NODES"):
        find_nodes({"NODE_RANK": "1", "MASTER_ADDR": "10.0.0.2"})
    assert find_nodes({"NODE_RANK": "0"}) == Nodes()


def test_nodes_that_do_not_meet_are_to_try_again(monkeypatch):
    """A node that finds no other ends with 75, which an engine starts again, and never as a defect."""
    launch = pytest.importorskip("job.training.launch")
    monkeypatch.setattr(launch, "RENDEZVOUS_S", 1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        nodes = Nodes(2, 1, "127.0.0.1", unused.getsockname()[1])
        with pytest.raises(TryAgainError, match="nodes: the 2 did not meet at ") as raised:
            launch.launch(["--version"], "cpu", nodes)
    assert "\\n" not in str(raised.value)

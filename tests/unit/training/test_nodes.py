"""Nodes of a training, by the variables of the engine that started it."""

import pytest

from job.errors import UsageError
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
    ],
)
def test_an_environment_that_does_not_fit_is_refused(environment, problems):
    """Every variable that is missing or wrong is named, with exit code 2."""
    with pytest.raises(UsageError) as raised:
        find_nodes(environment)
    said = raised.value.problems
    assert len(said) == len(problems)
    assert all(any(line.startswith(problem) for line in said) for problem in problems)

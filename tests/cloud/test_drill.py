"""The drills, as they run on one machine."""

import subprocess

import pytest

from job.errors import UsageError
from tests.cloud.drill import Drill, chosen_drill, run_drill
from tests.cloud.nodes_drill import NodesDrill
from tests.support.cli_process import wait_until
from tests.support.fake_sky import Node


@pytest.mark.full
def test_the_drill_passes():
    """Submitted, preempted three times with and without notice, and resumed, a run ends with the same tensors."""
    Drill("A", 3, seed=1).run()


@pytest.mark.full
def test_the_drill_of_two_nodes_passes():
    """Either node is killed once, both are started again by SkyPilot's task, and the run ends with the tensors of two
    processes of one machine that nothing disturbed.
    """
    NodesDrill("A", 2, seed=4).run()


def test_a_drill_has_one_node_or_two(monkeypatch):
    """NODES chooses the drill."""
    monkeypatch.delenv("IMAGE", raising=False)
    assert [type(chosen_drill("A", "5", nodes, "1")) for nodes in ("1", "2")] == [Drill, NodesDrill]


def test_a_drill_that_cannot_be_carried_out_is_refused(monkeypatch, capsys):
    """Every variable that is wrong is named before anything is started, with exit code 2."""
    monkeypatch.setenv("IMAGE", "job")
    with pytest.raises(UsageError) as raised:
        chosen_drill("A", "five", "2", "once")
    assert [problem.partition(":")[0] for problem in raised.value.problems] == [
        *("PREEMPTIONS", "the seed in ARGS", "IMAGE")
    ]
    with pytest.raises(SystemExit, match="2"):
        run_drill(["A", "5", "3"])
    assert "NODES: must be 1, by Cloud Batch, or 2, by SkyPilot, got '3'" in capsys.readouterr().err


def test_a_node_that_is_taken_leaves_no_process(tmp_path):
    """Processes that have left its process group are killed as well."""
    words = ["bash", "-c", "setsid sleep 1000 & setsid sleep 1000 & echo ready; wait"]
    process = subprocess.Popen(words, env={"HOME": str(tmp_path)}, stdout=subprocess.PIPE, start_new_session=True)
    node = Node(process, tmp_path)
    with process:
        assert process.stdout.readline() == b"ready\n"
        wait_until(lambda: len(node._processes()) == 3)
        node.kill()
    assert node._processes() == []
    assert process.returncode == -9

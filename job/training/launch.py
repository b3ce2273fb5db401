"""Launcher of one process for each device of this machine, by torchrun's library; other nodes start theirs alike.

Ultralytics' launcher is never used: it deletes the run's folder and passes no signal on (``utils/dist.py``).
"""

import signal
import sys
import time
import uuid
from typing import Any

import torch
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from job.errors import FATAL_HERE, GOES_ON, ExitCode, PreemptionError, TryAgainError
from job.training.isolation import threads_divided
from job.training.nodes import Nodes

RENDEZVOUS_S = 1800
"""Timeout for the other nodes: machines come, and fetch the image, at different times."""

LINGER_S = 15.0
"""Wait of a node before it exits with 75: engines act on the first exit code, and another node's may be fatal."""


def launch(words: list[str], device: str, nodes: Nodes) -> int:
    """Run a command of the job in a process for each device, and return the exit code of rank 0 or the first to fail.

    Without a device there is a process for each GPU of this node, or one.

    SIGTERM, SIGHUP and Ctrl-C are passed on; the processes have 30 s to commit and leave. A process killed by the
    system or by a GPU library is no failure of the training. One of several nodes that is to try again lingers, so that
    a node that failed for good exits first. Raises `TryAgainError` if the nodes do not meet.
    """
    num_processes = len(device.split(",")) if device else max(1, torch.cuda.device_count())
    passed_on = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        passed_on.append(signal.SIGHUP)
    config = LaunchConfig(
        min_nodes=nodes.number,
        max_nodes=nodes.number,
        nproc_per_node=num_processes,
        **_rendezvous(nodes),
        max_restarts=0,
        signals_to_handle=",".join(number.name for number in passed_on),
    )
    try:
        with threads_divided(num_processes):
            exit_code = _run(config, words)
        if nodes.number > 1 and exit_code == ExitCode.TRY_AGAIN:
            time.sleep(LINGER_S)
    except SignalException:
        return PreemptionError.exit_code
    except (DistError, RendezvousError) as error:
        raise TryAgainError(
            f"nodes: the {nodes.number} did not meet at {nodes.address}:{nodes.port}, "
            f"{str(error).partition(chr(10))[0].rstrip('.')}; let every node start and reach that port, {GOES_ON}"
        ) from error
    return exit_code


def _run(config: LaunchConfig, words: list[str]) -> int:
    """Run a command of the job in this node's processes, and return the exit code of rank 0 or the first to fail.

    A rank that fails for good counts before rank 0, which then says no more than that another process is gone.
    """
    try:
        elastic_launch(config, sys.executable)("-m", "job", *words)
    except ChildFailedError as error:
        failures = error.failures
        for_good = (failures[rank] for rank in sorted(failures) if failures[rank].exitcode in FATAL_HERE)
        first = min(failures.values(), key=lambda failure: failure.timestamp)
        exit_code = int((next(for_good, None) or failures.get(0) or first).exitcode)
        return exit_code if exit_code >= 0 else PreemptionError.exit_code
    return 0


def _rendezvous(nodes: Nodes) -> dict[str, Any]:
    """Return torchrun's settings for the meeting of nodes; a single node needs no other."""
    if nodes.number == 1:
        return {"run_id": uuid.uuid4().hex, "rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}
    return {
        "run_id": "job",
        "rdzv_backend": "static",
        "rdzv_endpoint": f"{nodes.address}:{nodes.port}",
        "rdzv_configs": {"rank": nodes.rank, "timeout": RENDEZVOUS_S},
    }

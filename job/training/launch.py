"""Launcher of one process for each device of this machine, by torchrun's library.

Ultralytics' launcher is never used: it deletes the run's folder and passes no signal on (``utils/dist.py``).
"""

import signal
import sys
import uuid

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from job.errors import PreemptionError
from job.training.isolation import threads_divided


def launch(words: list[str], num_processes: int) -> int:
    """Run a command of the job in several processes, and return the exit code of rank 0.

    SIGTERM, SIGHUP and Ctrl-C are passed on; the processes have 30 s to commit and leave. A process killed by the
    system or by a GPU library is no failure of the training.
    """
    passed_on = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        passed_on.append(signal.SIGHUP)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        signals_to_handle=",".join(number.name for number in passed_on),
    )
    try:
        with threads_divided(num_processes):
            elastic_launch(config, sys.executable)("-m", "job", *words)
    except ChildFailedError as error:
        failures = error.failures
        exit_code = int((failures.get(0) or min(failures.values(), key=lambda failure: failure.timestamp)).exitcode)
        return exit_code if exit_code >= 0 else PreemptionError.exit_code
    except SignalException:
        return PreemptionError.exit_code
    return 0

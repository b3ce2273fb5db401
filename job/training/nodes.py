"""Nodes of a distributed training: how many there are, which one this is, and where they meet.

Read from the environment of the engine that started this process: SkyPilot's variables, or ``NUM_NODES``, ``NODE_RANK``
and ``MASTER_ADDR``, which a JobSet or any script sets. Knows neither torch nor how a node is recovered.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from job.errors import UsageError

PORT = 29500
"""Torch's default for the rendezvous; ``MASTER_PORT`` replaces it."""

PORTS = 65536


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of a training as seen by one of them; a single node by default."""

    number: int = 1
    rank: int = 0
    """From 0; the node of rank 0 has the process of rank 0."""

    address: str = "localhost"
    """Of the node of rank 0."""

    port: int = 0
    """Of its rendezvous; 0 for any free one."""


def find_nodes(environment: Mapping[str, str] = os.environ) -> Nodes:
    """Return the nodes that the environment tells of; raises `UsageError` with every variable that is wrong."""
    by_sky = "SKYPILOT_NUM_NODES" in environment and "NUM_NODES" not in environment
    prefix = "SKYPILOT_" if by_sky else ""
    if _whole(environment.get(f"{prefix}NUM_NODES", "1")) == 1:
        if environment.get("NODE_RANK", "0") != "0" and not by_sky:
            raise UsageError(
                f"NODE_RANK: must be 0 on a single node, got {environment['NODE_RANK']!r}; set NUM_NODES to the number "
                "of nodes"
            )
        return Nodes()
    problems = []
    number, rank, port = (
        _whole(environment.get(name, default))
        for name, default in ((f"{prefix}NUM_NODES", ""), (f"{prefix}NODE_RANK", ""), ("MASTER_PORT", str(PORT)))
    )
    named = f"{prefix}NODE_IPS" if by_sky else "MASTER_ADDR"
    address = next(iter(environment.get(named, "").split()), "")
    if number is None or number < 1:
        problems.append(f"{prefix}NUM_NODES: must be a number from 1, got {environment[f'{prefix}NUM_NODES']!r}")
    elif rank is None or rank >= number:
        found = environment.get(f"{prefix}NODE_RANK")
        problems.append(f"{prefix}NODE_RANK: must be a number from 0 to {number - 1}, got {found!r}")
    if not address:
        problems.append(f"{named}: must be the address of the node of rank 0, got nothing")
    if port is None or not 0 < port < PORTS:
        problems.append(f"MASTER_PORT: must be a port, got {environment['MASTER_PORT']!r}")
    if number is None or rank is None or port is None or problems:
        raise UsageError("nodes: the environment does not tell of this node; correct its variables", problems)
    return Nodes(number, rank, address, port)


def _whole(text: str) -> int | None:
    """Return a whole number of at least 0, or None for any other text."""
    return int(text) if text.isascii() and text.isdecimal() else None

"""Ports where the ranks of a job meet.

They lie below those that the kernel gives to outgoing connections (32768 and up): until the ranks listen, which is
seconds later, any program's connection could take such a one.
"""

from __future__ import annotations

import errno
import re
import secrets
import socket

FIRST_PORT, NUM_PORTS = 20_000, 12_000
"""slurm/begin.sh has the same range."""


def free_port() -> int:
    """Return a TCP port that is free on this machine now."""
    while True:
        port = FIRST_PORT + secrets.randbelow(NUM_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port


def rendezvous_port(job_id: str) -> int:
    """Return the port of a job: the same on all its nodes, another one for the next jobs.

    slurm/begin.sh computes the same for a job that is no array.

    Args:
        job_id: submitit's, digits and for an array `_` with the task's number.
    """
    return FIRST_PORT + int(re.sub(r"\D", "", job_id)) % NUM_PORTS

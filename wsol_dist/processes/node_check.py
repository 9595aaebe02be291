"""Before a training: are all its nodes alike, do they see their GPUs and one run folder, how fast do they talk?

One line says so; what differs is named by its node. Takes well under two seconds.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path

import torch
import torch.distributed as dist

from wsol_dist.errors import UserError
from wsol_dist.processes.ranks import Ranks
from wsol_dist.version import __version__

PROBE_BYTES = {"cuda": 64 * 2**20, "cpu": 4 * 2**20}
"""What is summed over all ranks to see how fast that goes."""
PROBE_REPEATS = 3
GPU_DEVICE = Path("/dev/nvidia0")
"""There where NVIDIA's driver is, whether or not torch can use it."""
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Versions:
    """What must be equal on all nodes."""

    python: str
    torch: str
    """With its build: +cu130."""
    nccl: str
    deepspeed: str
    wsol_dist: str
    """Version and the sum of its source files: nodes may see different copies."""

    @classmethod
    def here(cls) -> Versions:
        """Of this process."""
        nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.cuda.is_available() else "none"
        return cls(
            python=platform.python_version(),
            torch=torch.__version__,
            nccl=nccl,
            deepspeed=metadata.version("deepspeed"),  # read, not imported: that takes seconds
            wsol_dist=f"{__version__} ({source_sum()})",
        )

    def __str__(self) -> str:
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        return ", ".join(f"{name} {value}" for name, value in shown.items() if value != "none")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one rank says of its node."""

    host: str
    gpu: str
    """Name of this rank's GPU; empty without one."""
    gpu_problem: str
    versions: Versions
    folder_problem: str

    @classmethod
    def here(cls, own: Ranks, folder: Path, token: str) -> Facts:
        """Of this process; leaves a file behind for rank 0 to look for."""
        return cls(
            host=socket.gethostname(),
            gpu=torch.cuda.get_device_name(own.device) if own.device.type == "cuda" else "",
            gpu_problem=gpu_problem(own),
            versions=Versions.here(),
            folder_problem=_answer(folder, own.rank, token),
        )


def check_nodes(own: Ranks, folder: Path) -> str:
    """Compare all ranks' nodes; every rank calls it, behind the making of the run folder.

    Returns:
        The verdict, one line.

    Raises:
        UserError: on every rank, a line for each thing that differs, with the node's name.
    """
    start = time.monotonic()
    token = own.gather(secrets.token_hex(8))[0]
    asked = folder / f".node-check-{token}"
    try:
        if own.is_main:
            _write(asked, token)
        own.barrier()
        facts = own.gather(Facts.here(own, folder, token))
        unseen = own.gather(_unseen(folder, token, facts) if own.is_main else [])[0]
    finally:
        _remove(asked, _answer_file(folder, own.rank, token))
    problems = [*problems_of(facts), *unseen]
    if problems:
        raise UserError("\n".join(f"node check: {problem}" for problem in problems))
    speed = all_reduce_bytes_per_s(own)
    return verdict(facts, speed, probe_bytes=PROBE_BYTES[own.device.type], seconds=time.monotonic() - start)


def gpu_problem(own: Ranks) -> str:
    """Why this rank cannot use the GPU that its node has; empty where it can, or there is none."""
    if own.device.type == "cuda":
        try:
            torch.ones(1, device=own.device).sum().item()
        except RuntimeError as error:
            return f"GPU {own.device.index} does not compute: {str(error).splitlines()[0]}"
        return ""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if GPU_DEVICE.exists() and not hidden:
        return f"has a GPU that torch {torch.__version__} cannot use; compare nvidia-smi's CUDA version with torch's"
    return ""


def problems_of(facts: list[Facts]) -> Iterator[str]:
    """What differs between the ranks, the node that differs by its name: from what most have."""
    for host, problem in _each_once((one.host, one.gpu_problem) for one in facts):
        yield f"node {host} {problem}"
    for host, problem in _each_once((one.host, one.folder_problem) for one in facts):
        yield f"node {host}: {problem}"
    for name, values in (
        ("gpu", [one.gpu or "no GPU" for one in facts]),
        *((f.name, [getattr(one.versions, f.name) for one in facts]) for f in fields(Versions)),
    ):
        usual = Counter(values).most_common(1)[0][0]
        odd = _each_once(
            (one.host, value) for one, value in zip(facts, values, strict=True) if value != usual
        )
        for host, value in odd:
            yield (
                f"node {host} has {name} {value}, most ranks have {usual}; "
                "make the nodes alike, or leave this one out (--exclude)"
            )


def all_reduce_bytes_per_s(own: Ranks) -> float:
    """Bus bandwidth of an all-reduce over all ranks: the bytes that each sends, 2 (n - 1) / n of its data, a second.

    The median of a few; 0 for one rank.
    """
    if own.world == 1:
        return 0.0
    data = torch.zeros(PROBE_BYTES[own.device.type] // 4, device=own.device)
    dist.all_reduce(data)  # connects
    seconds = []
    for _ in range(PROBE_REPEATS):
        own.barrier()
        start = time.monotonic()
        dist.all_reduce(data)
        if own.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - start)
    return 2 * (own.world - 1) / own.world * data.nbytes / statistics.median(seconds)


def verdict(facts: list[Facts], speed: float, *, probe_bytes: int, seconds: float) -> str:
    """The line that says that all is well."""
    hosts = Counter(one.host for one in facts)
    counts = sorted(set(hosts.values()))
    each = "-".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    kind = facts[0].gpu or "CPU"
    return (
        f"node check: {len(hosts)} node{'s' * (len(hosts) > 1)} x {each} ranks ({kind}) alike: {facts[0].versions}; "
        f"run folder shared and writable; all-reduce of {probe_bytes >> 20} MiB {speed / 1e9:.2f} GB/s; "
        f"{seconds:.1f} s"
    )


def source_sum() -> str:
    """The first digits of the SHA-256 of the package's source files."""
    total = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        total.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:8]


def _answer(folder: Path, rank: int, token: str) -> str:
    """Read what rank 0 wrote and write beside it; what does not work, or nothing."""
    asked = folder / f".node-check-{token}"
    try:
        if asked.read_text(encoding="utf-8") != token:
            return f"{folder} is another folder than rank 0's"
    except FileNotFoundError:
        return f"{folder} is another folder than rank 0's: put the run folder (--out) on a disk that all nodes share"
    except OSError as error:
        return f"{folder} cannot be read: {error.strerror}"
    return _write(_answer_file(folder, rank, token), token)


def _unseen(folder: Path, token: str, facts: list[Facts]) -> list[str]:
    """Nodes whose ranks wrote what rank 0 does not see."""
    missing = [
        (
            one.host,
            f"{folder}: what it writes there does not reach rank 0; put --out on a disk that all nodes share",
        )
        for rank, one in enumerate(facts)
        if not one.folder_problem and not _answer_file(folder, rank, token).is_file()
    ]
    return [f"node {host}: {problem}" for host, problem in _each_once(missing)]


def _answer_file(folder: Path, rank: int, token: str) -> Path:
    return folder / f".node-check-{token}-{rank}"


def _write(path: Path, text: str) -> str:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        return f"{path.parent} is not writable: {error.strerror}; mend that, or choose another --out"
    return ""


def _remove(*paths: Path) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            continue


def _each_once(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [pair for pair in dict.fromkeys(pairs) if pair[1]]

"""The check of all nodes before a training: what differs, injected on one rank, is named by its node."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.pool import RankPool
from wsol_dist.errors import UserError
from wsol_dist.processes import node_check
from wsol_dist.processes.node_check import check_nodes
from wsol_dist.processes.ports import free_port
from wsol_dist.processes.ranks import Ranks

HOSTS = ("n1", "n2")


def checked(own: Ranks, folder: Path, change: str = "") -> tuple[str, float]:
    """The verdict or the refusal, and the seconds it took; rank 1 plays another node, on which something differs."""
    start = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: HOSTS[own.rank])
        if own.rank == 1:
            folder = _change(patch, folder, change)
        try:
            return check_nodes(own, folder), time.monotonic() - start
        except UserError as error:
            return f"refused: {error}", time.monotonic() - start


def _change(patch: pytest.MonkeyPatch, folder: Path, change: str) -> Path:
    if change == "torch":
        patch.setattr("torch.__version__", "2.0.1")
    elif change == "sources":
        copy = Path(shutil.copytree(node_check.PACKAGE, folder / "copy" / "wsol_dist"))
        (copy / "cli.py").write_text((copy / "cli.py").read_text() + "\n")
        patch.setattr(node_check, "PACKAGE", copy)
    elif change == "driver":
        patch.setattr(node_check, "GPU_DEVICE", Path("/dev/null"))
    elif change == "gpu":
        here = node_check.Facts.here

        def pretended(own: Ranks, folder: Path, token: str) -> node_check.Facts:
            return dataclasses.replace(here(own, folder, token), gpu="Tesla K80")

        patch.setattr(node_check.Facts, "here", pretended)
    return _change_folder(patch, folder, change)


def _change_folder(patch: pytest.MonkeyPatch, folder: Path, change: str) -> Path:
    if change == "folder":  # of the same name on another disk
        (folder / "elsewhere").mkdir()
        return folder / "elsewhere"
    elif change == "read-only":  # root may write whatever the permissions say
        write = Path.write_text

        def refuse(path: Path, *args: Any, **named: Any) -> int:
            if path.parent == folder:
                raise OSError(30, "Read-only file system", str(path))
            return write(path, *args, **named)

        patch.setattr(Path, "write_text", refuse)
    elif change == "one way":  # a cache that shows files, and keeps what is written to itself
        patch.setattr(Path, "write_text", lambda path, text, **named: len(text))
    return folder


def test_equal_nodes_get_one_line_in_less_than_two_seconds(rank_pool: RankPool, tmp_path: Path) -> None:
    for text, _ in rank_pool.run(checked, tmp_path):  # reads the sources into the page cache
        assert text.startswith("node check: 2 nodes x 1 ranks (CPU) alike: python 3.")
        assert "torch 2." in text
        assert "deepspeed 0." in text
        assert "wsol_dist 0." in text
        assert "run folder shared and writable; all-reduce of 4 MiB " in text
        assert "\n" not in text
        assert float(text.split("MiB ")[1].split(" GB/s")[0]) > 0
    # The machine may be busy with something else at one time, not at five.
    tries = (max(seconds for _, seconds in rank_pool.run(checked, tmp_path)) for _ in range(5))
    assert any(seconds < 2 for seconds in tries)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("torch", "node n2 has torch 2.0.1, most ranks have 2."),
        ("sources", "node n2 has wsol_dist 0.1.0 ("),
        ("folder", "node n2: {folder}/elsewhere is another folder than rank 0's"),
        ("read-only", "node n2: {folder} is not writable: Read-only file system"),
        ("one way", "node n2: {folder}: what it writes there does not reach rank 0"),
        ("driver", "node n2 has a GPU that torch "),
        ("gpu", "node n2 has gpu Tesla K80, most ranks have no GPU"),
    ],
)
def test_the_node_that_differs_is_named(rank_pool: RankPool, tmp_path: Path, change: str, words: str) -> None:
    refusals = {text for text, _ in rank_pool.run(checked, tmp_path, change)}
    assert len(refusals) == 1  # every rank ends with the same words
    (text,) = refusals
    assert text.startswith(f"refused: node check: {words.format(folder=tmp_path)}")
    assert "\n" not in text
    assert not list(tmp_path.rglob(".node-check*"))


JOIN = """
import sys, torch
from wsol_dist.processes import ranks
from wsol_dist.errors import UserError
device = torch.device(sys.argv[2])
store, rank, world = next(iter(ranks.dist.rendezvous("env://")))
try:
    ranks.check_devices(store, rank, world, device)
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(("second", "words"), [("cpu", "no GPU is visible on node "), ("cuda", "")])
def test_a_node_without_its_gpu_is_named_before_ranks_wait_for_one_another(second: str, words: str) -> None:
    port = str(free_port())
    running = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN, "-", device],
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank, device in enumerate(("cuda", second))
    ]  # fmt: skip
    said = [process.communicate(timeout=100)[0] for process in running]
    assert all((words in text) if words else (text == "") for text in said), said

"""Shared by all tests: real data where it is, tiny shards made on the fly."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import forkserver, groups
from wsol_dist.cli import main
from wsol_dist.processes import ranks

REAL_DATA_TESTS: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Let what tests start as Python be forked; see tests/forkserver."""
    if config.option.collectonly:
        return
    is_first = forkserver.FOLDER_VARIABLE not in os.environ  # no worker, and no pytest that a test started
    folder = forkserver.prepare()
    if is_first:
        os.environ[groups.FILE_VARIABLE] = str(folder / "groups.json")
        config.add_cleanup(lambda: forkserver.remove(folder))
    # The process that starts the workers of pytest-xdist starts them as `sys.executable`.
    if not getattr(config.option, "numprocesses", None):
        forkserver.use(folder)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the groups that take longest."""
    items.sort(key=groups.sort_key)
    if hasattr(config, "workerinput"):
        groups.write_groups(items)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> groups.GroupScheduling:
    """Keep together what shares something costly."""
    return groups.GroupScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def one_process_group() -> Iterator[None]:
    """Keep the first process group of this process: DeepSpeed holds on to it, and takes no other in its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "stop_group", lambda: None)
        yield


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Take back what a test's process group says in the environment: commands run later would believe it."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True)
def nothing_left_at_work() -> Iterator[None]:
    """End here the loaders that a failed loop left: with its traceback they are garbage in a cycle.

    Whichever thread allocates next would collect it otherwise, wait seconds for the loader's processes, and free its
    tensors: a server's thread answers too late then, and one that does so while the interpreter ends aborts it.
    """
    children, threads = set(multiprocessing.active_children()), threading.active_count()
    yield
    if threading.active_count() > threads or not children.issuperset(multiprocessing.active_children()):
        gc.collect()


@pytest.fixture
def real_data(request: pytest.FixtureRequest) -> Path:
    """The folder of real data that WSOL_DATA names; the test is skipped without it."""
    folder = os.environ.get("WSOL_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real data: WSOL_DATA names no folder")
    REAL_DATA_TESTS.append(request.node.nodeid)
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collage of 96 training, 24 validation and 40 test images of 32 px in many small shards."""
    folder = tmp_path_factory.mktemp("some shards") / "collage"  # paths have blanks
    sizes = ["--num-train", "96", "--num-val", "24", "--num-test", "40", "--image-px", "32"]
    assert main(["shards", "pack", "collage", "--out", str(folder), "--samples-per-shard", "8", *sizes]) == 0
    return folder


@pytest.fixture
def own_shards(tiny_shards: Path, tmp_path: Path) -> Path:
    """A copy of the tiny shards that a test may damage."""
    return Path(shutil.copytree(tiny_shards, tmp_path / "shards"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests saw real data."""
    terminalreporter.write_line(f"tests on real data: {len(REAL_DATA_TESTS)} ran")
    for name in REAL_DATA_TESTS:
        terminalreporter.write_line(f"  {name}")

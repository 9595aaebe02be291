"""Shards behind a URL: fetched once, whole or not at all, and read as if they lay here."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.flaky import FlakyServer
from tests.order import order_alone
from wsol_dist.cli import main
from wsol_dist.config.data import DataConfig
from wsol_dist.data.shards import remote
from wsol_dist.data.shards.cache import CACHE_GIB_VARIABLE, CACHE_VARIABLE, cache_limit
from wsol_dist.data.shards.index import INDEX_FILE, SAMPLES_FILE, Index
from wsol_dist.data.stream.stream import ShardReader, evaluation_batches, training_batches
from wsol_dist.errors import UserError, as_user_error

PROTOCOLS = [
    "plain-http",
    pytest.param(
        "http",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("aiohttp") is None, reason="aiohttp is not installed"
        ),
    ),
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(CACHE_GIB_VARIABLE, raising=False)
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.01)
    return tmp_path / "cache"


@pytest.fixture
def server(own_shards: Path, cache: Path) -> Iterator[FlakyServer]:
    with FlakyServer(own_shards) as flaky:
        yield flaky


def batches(index: Index, *, workers: int) -> list[torch.Tensor]:
    data = DataConfig(workers=workers, lanes=4, window=8)
    order = order_alone(index, data, global_batch=12, last_step=8, seed=5)
    return [batch.image_BCHW for batch in training_batches(index, data, order=order, image_px=24)]


def tars(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*/*.tar"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_network_changes_nothing_but_the_time(
    server: FlakyServer,
    own_shards: Path,
    cache: Path,
    protocol: str,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # Every answer but the stalled one must begin sooner, also on a busy machine.
    monkeypatch.setattr(remote, "STALL_S", 2.5)
    faults = {
        INDEX_FILE: ["busy", "drop"],
        SAMPLES_FILE: ["truncate"],
        "train-000000.tar": ["drop"],
        "train-000001.tar": ["truncate", "busy"],
        "train-000002.tar": ["stall"],
        "train-000003.tar": ["other"],
        "train-000004.tar": ["slow"],
    }
    server.faults.update({name: list(kinds) for name, kinds in faults.items()})
    index = Index.load(f"{protocol}://{server.address}/")
    local = Index.load(own_shards)
    assert index.sha256 == local.sha256
    expected, found = batches(local, workers=0), batches(index, workers=workers)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    said = capfd.readouterr().err
    for name, kinds in faults.items():
        failing = [kind for kind in kinds if kind != "slow"]
        assert server.asked[name] == 1 + len(failing), name
        assert said.count(f"/{name}: try ") == len(failing), said
    assert "sha256 differs" in said
    assert tars(cache) == [f"train-{number:06d}.tar" for number in range(12)]
    assert not list(cache.rglob("*.tmp"))
    before = server.asked.copy()
    again = batches(Index.load(f"{protocol}://{server.address}"), workers=workers)
    assert all(torch.equal(one, other) for one, other in zip(expected, again, strict=True))
    assert server.asked - before == {INDEX_FILE: 1}  # whether it is still the same is asked every time


def _fetch(url: str, barrier: object) -> None:
    index = Index.load(url)
    barrier.wait()  # type: ignore[attr-defined]
    os.close(index.open(3))


def test_processes_of_a_machine_fetch_a_shard_once(server: FlakyServer, cache: Path) -> None:
    server.always["train-000003.tar"] = "slow"
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [
        context.Process(target=_fetch, args=(f"plain-http://{server.address}", barrier), daemon=True)
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    assert server.asked["train-000003.tar"] == server.asked[SAMPLES_FILE] == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_stays_away_ends_the_work_in_one_line(
    server: FlakyServer, cache: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(remote, "TRIES", 3)
    server.always["train-000003.tar"] = "drop"
    url = f"plain-http://{server.address}"
    index = Index.load(url)
    with pytest.raises(UserError) as error:
        batches(index, workers=workers)
    told = str(as_user_error(error.value))
    assert told.startswith(f"{url}/train-000003.tar: stays away: 3 tries in ")
    assert "16384 of 32768 bytes came; once that is mended" in told
    assert len(told.splitlines()) == 1
    assert "train-000003.tar" not in tars(cache)
    traceback.clear_frames(error.tb)  # they hold the loader, which ends at once this way
    server.always.clear()
    assert len(batches(index, workers=workers)) == 8


def test_a_shard_that_is_another_is_never_read(
    server: FlakyServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TRIES", 2)
    server.always["test-000000.tar"] = "other"
    index = Index.load(f"plain-http://{server.address}")
    with pytest.raises(UserError, match=r"test-000000\.tar: stays away: 2 tries .*sha256 differs"):
        list(evaluation_batches(index, split="test", rank=0, world=1, batch_size=8, workers=0, image_px=24))
    assert not any(name.startswith("test-000000") for name in tars(cache))


def test_an_address_is_verified_shard_by_shard(
    server: FlakyServer, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"plain-http://{server.address}"
    assert main(["shards", "verify", url, "--deep", "--workers", "1"]) == 0
    assert f"{url}: 160 samples, 0 problems" in capsys.readouterr().out
    for tar in cache.glob("*/*.tar"):
        tar.unlink()
    monkeypatch.setattr(remote, "TRIES", 1)
    server.always["test-000000.tar"] = "other"
    assert main(["shards", "verify", url, "--workers", "1"]) == 1
    told = capsys.readouterr().out
    assert "test-000000.tar: stays away" in told
    assert "1 problems" in told


def test_what_is_not_there_is_not_asked_for_again(server: FlakyServer, own_shards: Path) -> None:
    url = f"plain-http://{server.address}"
    index = Index.load(url)
    (own_shards / "train-000003.tar").unlink()
    with pytest.raises(
        UserError, match=r"train-000003\.tar: not there \(FileNotFoundError: .*\); check the address"
    ):
        index.path(3)
    assert server.asked["train-000003.tar"] == 1
    (own_shards / INDEX_FILE).unlink()
    with pytest.raises(UserError, match=r"index\.json: not there"):
        Index.load(url)


def test_the_cache_keeps_within_its_limit_and_keeps_what_is_open(
    server: FlakyServer, own_shards: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (own_shards / "train-000000.tar").stat().st_size
    monkeypatch.setenv(CACHE_GIB_VARIABLE, str(3.5 * size / 2**30))
    index = Index.load(f"plain-http://{server.address}")
    held = index.open(0)
    for number in (1, 2, 3, 2, 4):
        os.close(index.open(number))
    # 0 is open; of the others 2 was used after 3
    assert tars(cache) == ["train-000000.tar", "train-000002.tar", "train-000004.tar"]
    os.close(held)
    for number in (5, 6):
        os.close(index.open(number))
    assert tars(cache) == ["train-000004.tar", "train-000005.tar", "train-000006.tar"]
    reader, local = ShardReader(index, "train"), ShardReader(Index.load(own_shards), "train")
    for _ in range(2):
        assert all(reader.image(row) == local.image(row) for row in range(0, 96, 4))


@pytest.mark.parametrize("given", ["-1", "many", "nan"])
def test_a_limit_that_is_none(cache: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(CACHE_GIB_VARIABLE, given)
    with pytest.raises(UserError, match=f"{CACHE_GIB_VARIABLE}: '{given}' given"):
        cache_limit()


def test_shards_packed_anew_are_other_shards(server: FlakyServer, own_shards: Path, cache: Path) -> None:
    url = f"plain-http://{server.address}"
    before = Index.load(url)
    before.path(0)
    text = (own_shards / INDEX_FILE).read_text()
    (own_shards / INDEX_FILE).write_text(text.replace('"seed": 0', '"seed": 1'))
    after = Index.load(url)
    assert after.folder != before.folder
    assert not after.remote or not after.remote.has("train-000000.tar")


def test_a_folder_of_this_machine_by_url(own_shards: Path, cache: Path) -> None:
    index = Index.load(f"file://{own_shards}")
    assert index.path(2).read_bytes() == (own_shards / "train-000002.tar").read_bytes()
    assert index.path(2).is_relative_to(cache)
    assert index.place == f"file://{own_shards}"


def test_addresses_that_cannot_be_read(server: FlakyServer, own_shards: Path) -> None:
    for url, said in {
        "pipe://cat /etc/passwd": "Protocol not known: pipe",
        "simplecache::https://example.org/shards": "no such folder of shards",
        "https://example.org/a::file:///b": "chained addresses",
    }.items():
        with pytest.raises(UserError, match=said):
            Index.load(url)
    if importlib.util.find_spec("s3fs") is None:
        with pytest.raises(UserError, match="s3://bucket/shards: a package is missing for s3://"):
            Index.load("s3://bucket/shards")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"train-000003.tar"', '"../train-000003.tar"', "refused file name '../train-000003.tar'"),
        ('"schema": 1', '"schema": 99', "schema version 99 given"),
    ],
)
def test_a_remote_index_is_trusted_no_more_than_a_local_one(
    server: FlakyServer, own_shards: Path, cache: Path, old: str, new: str, said: str
) -> None:
    text = (own_shards / INDEX_FILE).read_text()
    assert old in text
    (own_shards / INDEX_FILE).write_text(text.replace(old, new))
    with pytest.raises(UserError, match=said):
        Index.load(f"plain-http://{server.address}")
    assert not cache.exists()

"""Shards behind an address: what a person is told when the way to them, or what lies there, is bad."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.faults.process import finish, message, small_files, start
from tests.e2e.faults.table import fault
from tests.flaky import FlakyServer
from wsol_dist.cli import main
from wsol_dist.data.shards import remote
from wsol_dist.data.shards.cache import CACHE_GIB_VARIABLE, CACHE_VARIABLE
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError


@pytest.fixture
def cache(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(prepared / "cache"))
    monkeypatch.delenv(CACHE_GIB_VARIABLE, raising=False)
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.01)
    return prepared / "cache"


@pytest.fixture
def server(prepared: Path, cache: Path) -> Iterator[FlakyServer]:
    with FlakyServer(prepared / "shards") as flaky:
        yield flaky


def evaluate(tmp: Path, server: FlakyServer) -> int:
    words = ["evaluate", str(tmp / "recipe.yaml"), "--out", str(tmp / "run"), "--threshold", "fixed"]
    return main([*words, "--index", f"plain-http://{server.address}"])


def test_a_bad_connection(prepared: Path, server: FlakyServer, capfd: pytest.CaptureFixture[str]) -> None:
    server.faults["test-000000.tar"] = ["drop"]
    server.faults["test-000001.tar"] = ["truncate", "busy"]
    server.faults["test-000002.tar"] = ["slow"]
    assert evaluate(prepared, server) == 0
    told, url = capfd.readouterr().err, f"plain-http://{server.address}"
    row = fault("a bad connection")
    assert any(row.pattern(prepared, url=url).fullmatch(line) for line in told.splitlines()), told
    remotely = next((prepared / "run" / "eval").glob("test-*.parquet")).read_bytes()
    words = [
        "evaluate",
        str(prepared / "recipe.yaml"),
        "--out",
        str(prepared / "here"),
        "--threshold",
        "fixed",
    ]
    assert main([*words, "--index", str(prepared / "shards")]) == 0
    assert next((prepared / "here" / "eval").glob("test-*.parquet")).read_bytes() == remotely


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("a remote shard stays away", "drop"),
        ("a remote shard is another", "other"),
        ("a remote shard is missing", ""),
    ],
)
def test_a_remote_shard_that_is_not_to_be_had(
    prepared: Path, server: FlakyServer, cache: Path, capfd: pytest.CaptureFixture[str], what: str, kind: str
) -> None:
    server.always["test-000000.tar"] = kind
    if not kind:
        (prepared / "shards" / "test-000000.tar").unlink()
    assert evaluate(prepared, server) == 2
    told, url = message(capfd.readouterr().err), f"plain-http://{server.address}"
    assert fault(what).pattern(prepared, url=url).fullmatch(told), told
    assert not list((prepared / "run").glob("eval/*.json"))
    assert not list(cache.glob("*/test-000000.tar"))


@pytest.mark.parametrize("what", ["a protocol without its package"])
def test_a_protocol_without_its_package(prepared: Path, what: str) -> None:
    if importlib.util.find_spec("s3fs") is not None:
        pytest.skip("s3fs is installed here")
    with pytest.raises(UserError) as error:
        Index.load("s3://bucket/shards")
    assert fault(what).pattern(prepared).fullmatch(str(error.value)), error.value


def test_a_cache_on_a_full_disk(prepared: Path, cache: Path) -> None:
    """Files of 20 kB are too large here, as if the disk was full there."""
    words = ("shards", "report", f"file://{prepared}/shards", "--out", "page.html", "--workers", "1")
    code, said = finish(start(prepared, *words, limit=small_files(20_000)))
    assert code == 2, said
    row = fault("disk full while shards are fetched")
    (folder,) = cache.iterdir()
    assert row.pattern(prepared, file=f"{folder}/train-000000.tar").fullmatch(message(said)), said
    assert "try 1" not in said
    assert not list(cache.rglob("*.tmp"))
    assert not list(cache.rglob("*.tar"))


def test_a_limit_of_the_cache(
    prepared: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CACHE_GIB_VARIABLE, "many")
    assert main(["shards", "report", f"file://{prepared}/shards"]) == 2
    told = message(capfd.readouterr().err)
    assert fault("a limit of the cache that is none").pattern(prepared).fullmatch(told), told
    assert not cache.exists()

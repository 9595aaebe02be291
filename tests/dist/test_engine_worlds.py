"""A run goes on at another number of ranks and another ZeRO stage, with its optimizer and its place in the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.dist.runs import alone, losses, tiny, train
from tests.pool import RankPool


class Alone:
    """This process in the place of a pool."""

    def run(self, function: Any, *args: Any) -> list[Any]:
        return [function(alone(), *args)]


@pytest.fixture(scope="module")
def whole_losses(
    rank_pool: RankPool, tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[int, float]]:
    """Of runs that were never stopped, on two ranks at stage 0; no dropout, which differs between numbers of ranks."""
    found = {}
    for method in ("molt", "spare"):
        folder = tmp_path_factory.mktemp("whole") / method
        rank_pool.run(train, tiny(tiny_shards, method, drop_path=0.0, zero=0), folder)
        found[method] = losses(folder)
    return found


def stopped_and_continued(
    before: Any, after: Any, shards: Path, folder: Path, *, method: str, zero: tuple[int, int]
) -> dict[int, float]:
    """Losses of a run that was killed after step 4 and went on from step 3 elsewhere."""
    config = tiny(shards, method, drop_path=0.0, zero=zero[0])
    before.run(train, config, folder, 4)
    again = tiny(shards, method, drop_path=0.0, zero=zero[1])
    assert set(after.run(train, again, folder)) == {3}
    return losses(folder)


@pytest.mark.parametrize("zero", [(0, 0), (1, 1), (2, 2), (3, 3), (0, 3), (3, 1)], ids=str)
@pytest.mark.parametrize("method", ["molt", "spare"])
def test_two_ranks_then_one_and_one_then_two(
    rank_pool: RankPool,
    tiny_shards: Path,
    tmp_path: Path,
    whole_losses: dict[str, dict[int, float]],
    method: str,
    zero: tuple[int, int],
) -> None:
    pairs = ((rank_pool, Alone()), (Alone(), rank_pool))
    for number, (before, after) in enumerate(pairs):
        folder = tmp_path / str(number)
        found = stopped_and_continued(before, after, tiny_shards, folder, method=method, zero=zero)
        assert found == pytest.approx(whole_losses[method], abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("zero", [(1, 1), (3, 3), (2, 3)], ids=str)
def test_two_ranks_then_four_and_four_then_two(
    rank_pool: RankPool,
    four_ranks: RankPool,
    tiny_shards: Path,
    tmp_path: Path,
    whole_losses: dict[str, dict[int, float]],
    zero: tuple[int, int],
) -> None:
    for number, (before, after) in enumerate(((rank_pool, four_ranks), (four_ranks, rank_pool))):
        folder = tmp_path / str(number)
        found = stopped_and_continued(before, after, tiny_shards, folder, method="spare", zero=zero)
        assert found == pytest.approx(whole_losses["spare"], abs=2e-5)


def test_a_lost_optimizer_would_show(
    tiny_shards: Path,
    tmp_path: Path,
    whole_losses: dict[str, dict[int, float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The comparison above is fine enough to tell a continued optimizer from a fresh one."""
    from wsol_dist.training.zero import ZeroEngine

    train(alone(), tiny(tiny_shards, drop_path=0.0), tmp_path / "run", 4)
    monkeypatch.setattr(ZeroEngine, "load", lambda self, checkpoint, *, world: None)
    train(alone(), tiny(tiny_shards, drop_path=0.0), tmp_path / "run")
    found = losses(tmp_path / "run")
    lost = np.abs([found[step] - whole_losses["molt"][step] for step in (5, 6)])
    assert lost.max() > 1e-3

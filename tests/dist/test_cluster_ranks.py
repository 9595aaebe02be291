"""Label maps on two ranks and on one: the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pool import RankPool
from wsol_dist.columns.clusters import Labelling, label_column, label_shards
from wsol_dist.data.shards.index import Index
from wsol_dist.processes.ranks import Ranks
from wsol_dist.regions.cluster import backend_class

KNOBS = {"dic": {"iterations": 4, "segments": 20, "batch": 3}, "faiss": {"clusters": 6, "batch": 3}}


@pytest.mark.parametrize("backend", [pytest.param("dic", marks=pytest.mark.slow), "faiss"])
def test_two_ranks_write_what_one_writes(
    rank_pool: RankPool, tiny_shards: Path, tmp_path: Path, backend: str
) -> None:
    index = Index.load(tiny_shards)
    config = backend_class(backend).Config(size_px=20, **KNOBS[backend])
    about = label_column(index, ("val",), backend=backend, config=config, command="test")

    def task(name: str) -> Labelling:
        out = tmp_path / name
        return Labelling(
            index=str(tiny_shards), out=out, about=about, backend=backend, config=config, workers=0
        )

    label_shards(Ranks(), task("one"))
    rank_pool.run(label_shards, task("two"))
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")
    )
    assert len(one) == 3 + 2
    assert one == two

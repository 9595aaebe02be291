"""`wsol cluster --embeddings`: a localizer's patch embeddings join colour and position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from wsol_dist.cli import main
from wsol_dist.columns.clusters import PreparingSet
from wsol_dist.columns.patch_embeddings import PatchEmbedder
from wsol_dist.data.shards.columns import Column
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import ShardReader
from wsol_dist.errors import UserError
from wsol_dist.evaluator.work import plan_work
from wsol_dist.methods.cam.network import CAM
from wsol_dist.methods.molt.network import MOLT
from wsol_dist.methods.segmenter.network import Segmenter
from wsol_dist.methods.ts_cam.network import TSCAM
from wsol_dist.processes.ranks import Ranks
from wsol_dist.regions.kmeans import KMeans, KMeansConfig
from wsol_dist.runs.opening import open_run

SIZE_PX = 24


@pytest.mark.parametrize(
    ("cls", "image_px", "wide", "grid"), [(CAM, 64, 512, 2), (TSCAM, 32, 32, 4), (MOLT, 32, 32, 4)]
)
def test_a_localizer_says_what_it_sees_at_each_patch(cls: type, image_px: int, wide: int, grid: int) -> None:
    torch.manual_seed(0)
    method = cls(cls.tiny_config(), 5).train()
    image_BCHW = torch.randn(2, 3, image_px, image_px)
    found = method.patch_embeddings(image_BCHW)
    assert (tuple(found.shape), found.dtype, found.requires_grad) == (
        (2, wide, grid, grid),
        torch.float32,
        False,
    )
    assert method.training
    torch.testing.assert_close(found[1:], method.patch_embeddings(image_BCHW[1:]), atol=1e-4, rtol=1e-4)
    # What the method's own scores are made of.
    method.eval()
    if cls is CAM:
        logit_BC = method.model.get_classifier()(found.mean(dim=(2, 3)))
        torch.testing.assert_close(logit_BC.softmax(dim=1), method.localize(image_BCHW).prob_BC)
    if cls is TSCAM:
        torch.testing.assert_close(method.head(found), method.score_and_attention(image_BCHW)[0])


def test_a_method_without_says_so() -> None:
    method = Segmenter(Segmenter.tiny_config(), 3)
    with pytest.raises(UserError, match="Segmenter gives no patch embeddings"):
        method.patch_embeddings(torch.zeros(1, 3, 32, 32))


@pytest.fixture(scope="module")
def recipe(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipes"), tiny_shards, {"name": "ts_cam"})


def write_recipe(folder: Path, shards: Path, method: dict[str, object], *, seed: int = 0) -> Path:
    backbone = {"width": 32, "heads": 2, "depth": 1, "patch_px": 8, "drop_path": 0.0}
    knobs = {"image_px": 32, "backbone": backbone} if method["name"] == "ts_cam" else {}
    path = folder / "recipe.yaml"
    raw = {"name": "seen", "seed": seed, "method": method | knobs, "data": {"index": str(shards)}}
    path.write_text(yaml.safe_dump(raw | {"track": {"wandb": "off"}}))
    return path


def cluster(shards: Path, out: Path, recipe: Path, *extra: str) -> int:
    flags = ["--index", str(shards), "--out", str(out), "--size-px", str(SIZE_PX), "--split", "val"]
    flags += ["--procs", "1", "--workers", "0", "--embeddings", str(recipe)]
    return main(["cluster", *flags, *extra])


def test_the_column_holds_clusters_of_colour_place_and_embedding(
    tiny_shards: Path, recipe: Path, tmp_path: Path
) -> None:
    assert cluster(tiny_shards, tmp_path / "labels", recipe, "--clusters", "6", "--embedding", "3") == 0
    index = Index.load(tiny_shards)
    column, reader = Column.open(tmp_path / "labels", index), ShardReader(index, "val")
    config = KMeansConfig(size_px=SIZE_PX, clusters=6, embedding=3.0)
    backend = KMeans(config)
    embedder = PatchEmbedder(plan_work(open_run(recipe), index=str(tiny_shards), splits=("val",)), Ranks())
    moved = 0
    for row in (0, 11, 23):
        item = PreparingSet(reader, backend)[row]
        image_1HWC, prepared, seeds = item.image_HWC[None], [item.prepared], [item.seed]
        with_them = backend.label(image_1HWC, prepared, seeds=seeds, embedding_BDhw=embedder(image_1HWC))[0]
        # Other images of a batch may round an embedding otherwise, so a pixel between two clusters may move.
        assert np.mean(column.value("val", row) == with_them) > 0.98
        moved += np.mean(backend.label(image_1HWC, prepared, seeds=seeds)[0] != with_them) > 0.1
    assert moved == 3
    assert column.about.settings["embeddings"]["method"]["name"] == "ts_cam"


def test_embeddings_of_other_weights_make_another_column(
    tiny_shards: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cluster(tiny_shards, tmp_path / "labels", recipe) == 0
    assert cluster(tiny_shards, tmp_path / "labels", recipe) == 0
    assert "complete, nothing to do" in capsys.readouterr().out
    (tmp_path / "other").mkdir()
    other = write_recipe(tmp_path / "other", tiny_shards, {"name": "ts_cam"}, seed=1)
    assert cluster(tiny_shards, tmp_path / "labels", other) == 2
    assert "holds another column (settings differ)" in capsys.readouterr().err


def test_what_has_no_use_for_embeddings_or_has_none_is_refused(
    tiny_shards: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels"
    assert cluster(tiny_shards, out, recipe, "--backend", "slic") == 2
    assert "--embeddings: --backend slic clusters without; give --backend faiss" in capsys.readouterr().err
    blind = write_recipe(tmp_path, tiny_shards, {"name": "tests.hue:Hue"})
    assert cluster(tiny_shards, out, blind) == 2
    assert "gives no patch embeddings; cam, molt, ts_cam do" in capsys.readouterr().err
    assert cluster(tiny_shards, out, tmp_path / "none.yaml") == 2
    only = ["cluster", "--index", str(tiny_shards), "--out", str(out), "--color", "0", "--position", "0"]
    assert main(only) == 2
    assert "embeddings alone are left; give --embeddings RUN" in capsys.readouterr().err
    assert not out.exists()


def test_show_clusters_with_them_too(tiny_shards: Path, recipe: Path, tmp_path: Path) -> None:
    image_id = Index.load(tiny_shards).rows("val").ids[0].as_py()
    assert cluster(tiny_shards, tmp_path / "with", recipe, "--show", image_id, "--embedding", "5") == 0
    plain = ["cluster", "--index", str(tiny_shards), "--out", str(tmp_path / "without")]
    assert main([*plain, "--size-px", str(SIZE_PX), "--show", image_id]) == 0
    with_them, without = (next((tmp_path / name).glob("*.png")).read_bytes() for name in ("with", "without"))
    assert with_them != without

"""`wsol cluster`: what every backend keeps to, a column that goes on where it was cut off, and bad input."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.damage import break_image
from tests.unit.cluster_images import some_images
from wsol_dist.cli import main
from wsol_dist.columns.clusters import PreparingSet, label_rows
from wsol_dist.data.shards.columns import COLUMN_FILE, Column
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import ShardReader
from wsol_dist.errors import UserError
from wsol_dist.regions.cluster import BACKENDS, Backend, backend_class, image_seed

FAST = {
    "dic": {"iterations": 2, "segments": 12},
    "faiss": {"clusters": 6},
    "slic": {"segments": 12},
}
KNOBS = {name: [f"--{key}={value}" for key, value in knobs.items()] for name, knobs in FAST.items()}


def make(name: str, *, size_px: int) -> Backend:
    cls = backend_class(name)
    return cls(cls.Config(size_px=size_px, **FAST[name]))


def cluster(shards: Path, out: Path, backend: str = "slic", *extra: str) -> int:
    flags = ["--index", str(shards), "--out", str(out), "--backend", backend, "--size-px", "16"]
    return main(["cluster", *flags, "--procs", "1", "--workers", "0", *KNOBS[backend], *extra])


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_labels_are_square_bytes_without_gaps_and_follow_from_the_seed(name: str) -> None:
    images, backend = some_images(3, 20), make(name, size_px=20)
    label_BHW = backend(images, seeds=(4, 5, 6))
    assert (label_BHW.shape, label_BHW.dtype) == ((3, 20, 20), np.uint8)
    for label_HW in label_BHW:
        found = np.unique(label_HW)
        assert found.tolist() == list(range(len(found)))
        assert len(found) > 1
    np.testing.assert_array_equal(label_BHW, make(name, size_px=20)(images, seeds=(4, 5, 6)))


@pytest.mark.parametrize("name", sorted(BACKENDS))
@pytest.mark.parametrize("value", [0, 137, 255])
def test_an_image_of_one_colour_has_labels_too(name: str, value: int) -> None:
    label_BHW = make(name, size_px=16)(np.full((1, 16, 16, 3), value, np.uint8), seeds=(0,))
    assert label_BHW.shape == (1, 16, 16)
    assert label_BHW.max() < 256


@pytest.mark.parametrize(
    ("backend", "knobs", "message"),
    [
        (
            "slic",
            ["--segments", "100", "--size-px", "8"],
            "segments: 100 given, but an image of size_px 8 has 64 pixels",
        ),
        (
            "faiss",
            ["--clusters", "65", "--size-px", "8"],
            "clusters: 65 given, but an image of size_px 8 has 64 pixels",
        ),
        (
            "dic",
            ["--fit-px", "8", "--segments", "65"],
            "segments: 65 given, but an image of fit_px 8 has 64 pixels",
        ),
        ("faiss", ["--clusters", "300"], "--clusters: given 300; allowed: 1 to 256"),
        ("slic", ["--seed", "-1"], "--seed: given -1; allowed: 0 or more"),
    ],
)
def test_more_clusters_than_pixels_or_labels_are_refused(
    tiny_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    backend: str,
    knobs: list[str],
    message: str,
) -> None:
    out = tmp_path / "labels"
    assert (
        main(["cluster", "--index", str(tiny_shards), "--out", str(out), "--backend", backend, *knobs]) == 2
    )
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backend", "dci"], "--backend: unknown backend 'dci'; did you mean 'dic'?"),
        (["--split", "tset"], "--split: no split 'tset'"),
        (["--part", "0/3"], "--part: '0/3' given; I/N allowed, from 1/N to N/N"),
        (["--procs", "0"], "--procs: given 0; allowed: 1 or more"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["cluster", "--index", str(tiny_shards), "--out", str(tmp_path / "labels"), *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_labels_never_go_among_the_shards(own_shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster(own_shards, own_shards) == 2
    assert "holds the shards themselves" in capsys.readouterr().err


def test_the_column_holds_what_the_backend_says_of_each_image(tiny_shards: Path, tmp_path: Path) -> None:
    assert cluster(tiny_shards, tmp_path / "labels", "faiss", "--split", "val,test") == 0
    index = Index.load(tiny_shards)
    column = Column.open(tmp_path / "labels", index)
    assert column.about.splits == ("val", "test")
    assert (column.about.settings["backend"], column.about.settings["clusters"]) == ("faiss", 6)
    reader, backend = ShardReader(index, "test"), make("faiss", size_px=16)
    for row in (0, 17, 39):
        item = PreparingSet(reader, backend)[row]
        assert item.seed == image_seed(0, reader.id(row))
        wanted = backend(item.image_HWC[None], seeds=[item.seed])[0]
        np.testing.assert_array_equal(column.value("test", row), wanted)


def test_cut_off_it_goes_on_and_whole_it_does_nothing(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cluster(tiny_shards, tmp_path / "whole") == 0
    prepare, calls = backend_class("slic").prepare, 0

    def killed(self: Backend, image_HWC: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise KeyboardInterrupt
        return prepare(self, image_HWC)

    monkeypatch.setattr(backend_class("slic"), "prepare", killed)
    out = tmp_path / "labels"
    with pytest.raises(KeyboardInterrupt):
        cluster(tiny_shards, out)
    monkeypatch.undo()
    before = files(out)
    assert len([name for name in before if name.endswith(".tar")]) == 2
    with pytest.raises(UserError, match="its writing did not finish; start it again"):
        Column.open(out, Index.load(tiny_shards))
    (out / "test-000004.tar.99.tmp").write_bytes(b"left by a writer that was killed")
    capsys.readouterr()
    assert cluster(tiny_shards, out) == 0
    assert "20 shards of label maps by slic, 2 are there already" in capsys.readouterr().out
    after = files(out)
    assert all(after[name] == before[name] for name in before if name.endswith(".tar"))
    whole = files(tmp_path / "whole")
    assert {n: d for n, (_, d) in after.items() if n.endswith(".tar")} == {
        n: d for n, (_, d) in whole.items() if n.endswith(".tar")
    }
    assert cluster(tiny_shards, out) == 0
    assert "complete, nothing to do" in capsys.readouterr().out
    assert files(out) == after


def test_a_partial_tar_is_found_out_when_the_column_is_read(tiny_shards: Path, tmp_path: Path) -> None:
    assert cluster(tiny_shards, tmp_path / "labels") == 0
    os.truncate(tmp_path / "labels" / "test-000001.tar", 1000)
    with pytest.raises(UserError, match=r"test-000001.tar: truncated: \d+ bytes expected, 1000 found"):
        Column.open(tmp_path / "labels", Index.load(tiny_shards))


def test_other_settings_or_shards_do_not_mix_in(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cluster(tiny_shards, tmp_path / "labels") == 0
    assert cluster(tiny_shards, tmp_path / "labels", "slic", "--compactness", "5") == 2
    assert "holds another column (settings differ)" in capsys.readouterr().err


def test_parts_leave_the_end_to_a_run_without(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels"
    for part in ("2/3", "1/3"):
        assert cluster(tiny_shards, out, "slic", "--part", part) == 0
    assert "part 1/3 done, 7 shards written" in capsys.readouterr().out
    assert not (out / COLUMN_FILE).exists()
    assert cluster(tiny_shards, out) == 0
    assert "complete, 6 shards written" in capsys.readouterr().out
    assert cluster(tiny_shards, tmp_path / "whole") == 0
    tars = {name: data for name, (_, data) in files(out).items() if name.endswith(".tar")}
    assert tars == {n: d for n, (_, d) in files(tmp_path / "whole").items() if n.endswith(".tar")}


def test_an_image_that_does_not_decode_has_no_label_map_and_is_named(
    own_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_image(own_shards, "test", row=4)
    assert cluster(own_shards, tmp_path / "labels") == 0
    index = Index.load(own_shards)
    image_id = index.rows("test").ids[4].as_py()
    assert f"1 images do not decode and have no label map: {image_id}" in capsys.readouterr().out
    column = Column.open(tmp_path / "labels", index)
    assert column.value("test", 4) is None
    assert column.value("test", 5) is not None


def test_tiny_and_huge_images_are_labelled_on_the_same_square() -> None:
    class Reader:
        sizes = ((1, 1), (1, 3000), (5000, 4000))

        def image(self, row: int) -> bytes:
            width, height = self.sizes[row]
            ok, data = cv2.imencode(".jpg", np.full((height, width, 3), 99, np.uint8))
            assert ok
            return data.tobytes()

        def id(self, row: int) -> str:
            return str(row)

        def ahead(self, batches: list[list[int]]) -> list[list[int]]:
            return batches

    for name in sorted(BACKENDS):
        found = list(label_rows(Reader(), [range(3)], make(name, size_px=16), workers=0))  # type: ignore[arg-type]
        assert all(label_HW is not None and label_HW.shape == (16, 16) for label_HW in found)


def test_show_draws_the_panels_of_each_image(tiny_shards: Path, tmp_path: Path) -> None:
    ids = Index.load(tiny_shards).rows("test").ids.to_pylist()[:2]
    command = ["cluster", "--index", str(tiny_shards), "--out", str(tmp_path), "--size-px", "32"]
    assert main([*command, "--backend", "slic", "--show", *ids]) == 0
    pictures = [cv2.imread(str(path)) for path in sorted(tmp_path.glob("*.png"))]
    assert [picture.shape for picture in pictures] == [(224, 3 * 224 + 2 * 4, 3)] * 2
    assert not np.array_equal(*pictures)


def test_show_names_an_image_that_is_not_there(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["cluster", "--index", str(tiny_shards), "--out", str(tmp_path / "out"), "--show", "nobody"]
    assert main(command) == 2
    assert "--show: no image 'nobody' in" in capsys.readouterr().err


def test_one_thread_computes_on_a_cpu_and_the_number_from_before_comes_back(tiny_shards: Path) -> None:
    before = torch.get_num_threads()
    reader = ShardReader(Index.load(tiny_shards), "test")
    found = label_rows(reader, [[0]], make("faiss", size_px=16), workers=0)
    next(found)
    assert torch.get_num_threads() == 1
    assert list(found) == []
    assert torch.get_num_threads() == before

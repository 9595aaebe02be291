"""Verification finds damage, and a folder that is no folder of shards gets one clear line."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.forkserver import FRESH
from wsol_dist.cli import execute
from wsol_dist.data.images.decode import DecodeError, decode_rgb
from wsol_dist.data.inspection.verify import verify
from wsol_dist.data.packing.pack import PackOptions, make_plan, pack
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.sample import Item, Sample
from wsol_dist.data.shards.shard import decode_mask, encode_sample
from wsol_dist.data.stream.stream import ShardReader
from wsol_dist.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "collage"
    counts = ["--num-train", "32", "--num-val", "8", "--num-test", "8", "--image-px", "48"]
    assert execute(["shards", "pack", "collage", *counts, "--out", str(out), "--workers", "1"]) == 0
    return out


@pytest.fixture
def folder(packed, tmp_path):
    return Path(shutil.copytree(packed, tmp_path / "copy"))


def change_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


def edit_index(folder: Path, **changed) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_folder_has_no_problems(packed, deep):
    assert verify(packed, deep=deep, workers=1) == []


def test_two_processes_find_the_same(folder):
    change_byte(folder / "train-000001.tar", 600)
    assert verify(folder, deep=True, workers=2) == verify(folder, deep=True, workers=1) != []


def test_a_changed_byte_of_an_image(folder):
    change_byte(folder / "train-000000.tar", 512 + 300)
    of_the_tar, of_the_sample = verify(folder, workers=1)
    assert "train-000000.tar: sha256 differs" in of_the_tar
    first = Index.load(folder).rows("train").ids[0].as_py()
    assert f"{first}: the image's bytes are not those that were packed" in of_the_sample


def test_deep_finds_an_image_that_does_not_decode(folder):
    index = Index.load(folder)
    path = folder / "val-000000.tar"
    data = bytearray(path.read_bytes())
    data[512 : 512 + 4] = b"nope"
    path.write_bytes(data)
    problems = verify(folder, deep=True, workers=1)
    first = index.rows("val").ids[0].as_py()
    assert any(first in problem and "does not decode" in problem for problem in problems)


def test_a_truncated_and_a_missing_tar_are_each_one_line(folder):
    path = folder / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:-5000])
    (folder / "val-000000.tar").unlink()
    truncated, missing = verify(folder, workers=1)
    assert "truncated" in truncated
    assert "train-000000.tar" in truncated
    assert "val-000000.tar: missing" in missing


def test_a_changed_header_and_swapped_rows(folder):
    change_byte(folder / "train-000000.tar", 257)
    assert any("no tar header at byte 0" in problem for problem in verify(folder, workers=1))


def test_a_changed_table(folder):
    change_byte(folder / "samples.parquet", 100)
    assert "sha256 differs" in verify(folder, workers=1)[0]


def test_counts_that_do_not_add_up(folder):
    raw = json.loads((folder / "index.json").read_text())
    raw["splits"]["train"]["num_images_per_class"][0] += 1
    edit_index(folder, splits=raw["splits"])
    assert any("images per class" in problem for problem in verify(folder, workers=1))


class TestLoad:
    def test_no_folder(self, tmp_path):
        with pytest.raises(UserError, match="nowhere: no such folder"):
            Index.load(tmp_path / "nowhere")

    def test_no_index(self, folder):
        (folder / "index.json").unlink()
        with pytest.raises(UserError, match=r"no index\.json.*did not finish.*pack\.py"):
            Index.load(folder)

    @pytest.mark.parametrize("version", [2, "1", None])
    def test_another_schema_version(self, folder, version):
        edit_index(folder, schema=version)
        with pytest.raises(UserError, match=rf"{version!r} given, 1 supported"):
            Index.load(folder)

    @pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema": 1}', "\xff"])
    def test_an_index_that_is_none(self, folder, text):
        (folder / "index.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match=r"index\.json: "):
            Index.load(folder)

    @pytest.mark.parametrize("name", ["../other.tar", "/etc/hostname", "a/b.tar", ".."])
    def test_a_shard_elsewhere_is_refused(self, folder, name):
        shards = json.loads((folder / "index.json").read_text())["shards"]
        shards[0]["file"] = name
        edit_index(folder, shards=shards)
        with pytest.raises(UserError, match="refused file name"):
            Index.load(folder)

    def test_a_truncated_tar(self, folder):
        path = folder / "train-000001.tar"
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(
            UserError, match=rf"train-000001\.tar: truncated: {size} bytes expected, 1000 found"
        ):
            Index.load(folder)

    def test_a_missing_tar(self, folder):
        (folder / "train-000001.tar").unlink()
        with pytest.raises(UserError, match=r"train-000001\.tar: missing"):
            Index.load(folder)

    def test_a_missing_or_changed_table(self, folder):
        change_byte(folder / "samples.parquet", 50)
        with pytest.raises(UserError, match=r"samples\.parquet.*sha256 differs"):
            Index.load(folder)
        (folder / "samples.parquet").unlink()
        with pytest.raises(UserError, match=r"samples\.parquet: missing"):
            Index.load(folder)

    def test_an_unknown_split(self, folder):
        with pytest.raises(UserError, match="did you mean 'train'"):
            Index.load(folder).rows("trian")


def test_index_and_packing_load_without_torch(packed):
    code = (
        "import sys, wsol_dist.data.packing.pack, wsol_dist.commands.shards.pack\n"
        "from wsol_dist.data.shards.index import Index\n"
        f"Index.load({str(packed)!r}).rows('train'); assert 'torch' not in sys.modules"
    )
    subprocess.run([FRESH, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(("damage", "code"), [("none", 0), ("byte", 1), ("no index", 2)])
def test_the_script_tells_by_its_exit_code(folder, damage, code):
    if damage == "byte":
        change_byte(folder / "test-000000.tar", 800)
    if damage == "no index":
        (folder / "index.json").unlink()
    command = [sys.executable, str(ROOT / "shards" / "verify.py"), str(folder), "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (1 if code == 2 else 0)


def packed_as(folder: Path, **changed) -> Path:
    """A folder of shards with one image that says of itself what is given."""
    sample = Sample(**{"id": "a", "image": b"", "extension": "bmp", "labels": (0,)} | changed)

    class One:
        classes = ("a", "b")
        known_counts: dict[str, int] = {}

        def items(self):
            yield Item(id="a", split="test", labels=(0,), where=0)

        def read(self, item):
            return sample

    options = PackOptions(out=folder, workers=1)
    pack(make_plan("one", One(), options, options), One(), options)
    return folder


@pytest.mark.parametrize(("mode", "kind"), [("RGB", "bmp"), ("LA", "png"), ("CMYK", "jpg"), ("P", "webp")])
@pytest.mark.parametrize("cut", [0, 30])
def test_deep_and_the_stream_agree_on_what_decodes(tmp_path, mode, kind, cut):
    buffer = io.BytesIO()
    Image.new(mode, (40, 30), 1 if mode == "P" else None).save(buffer, {"jpg": "jpeg"}.get(kind, kind))
    data = buffer.getvalue()
    folder = packed_as(tmp_path, image=data[: len(data) - cut], extension=kind)
    sample = ShardReader(Index.load(folder), "test").sample(0)
    try:
        decode_rgb(sample.image)
        decodes = True
    except DecodeError:
        decodes = False
    found = verify(folder, deep=True, workers=1)
    assert any("does not decode" in problem for problem in found) != decodes
    assert decodes or cut


@pytest.mark.parametrize("png", [b"", b"\x89PNG", b"nothing of the kind"])
def test_a_damaged_mask_is_a_value_error(png):
    with pytest.raises(ValueError, match="no 8-bit grey PNG"):
        decode_mask(png)


def test_deep_names_a_mask_that_does_not_decode(tmp_path):
    mask = np.ones((9, 9), np.uint8)
    folder = packed_as(tmp_path, image=b"no image", mask=mask)
    path = folder / "test-000000.tar"
    data = bytearray(path.read_bytes())
    at = data.index(b"IHDR")
    data[at : at + 4] = b"xxxx"
    path.write_bytes(data)
    assert any("a: a mask that is no 8-bit grey PNG" in line for line in verify(folder, deep=True, workers=1))


def replace_sample(folder: Path, sample: Sample) -> None:
    """Put another sample, whose sums agree, in the place of the only one."""
    blob = encode_sample(0, sample)
    (folder / "test-000000.tar").write_bytes(blob + bytes(1024))
    table = pq.read_table(folder / "samples.parquet")
    ((row,), schema) = table.to_pylist(), table.schema
    row |= {"bytes": len(blob), "image_crc32": None, "truth_crc32": None}
    pq.write_table(pa.Table.from_pylist([row], schema=schema), folder / "samples.parquet")
    raw = json.loads((folder / "index.json").read_text())
    raw["samples"]["sha256"] = hashlib.sha256((folder / "samples.parquet").read_bytes()).hexdigest()
    tar = (folder / "test-000000.tar").read_bytes()
    raw["shards"][0] |= {"bytes": len(tar), "sha256": hashlib.sha256(tar).hexdigest()}
    (folder / "index.json").write_text(json.dumps(raw))


@pytest.mark.parametrize(("semantic", "value", "most"), [(False, 2, 1), (True, 3, 2)])
def test_mask_values_that_mean_nothing(tmp_path, semantic, value, most):
    image = io.BytesIO()
    Image.new("RGB", (6, 4)).save(image, "BMP")
    mask = np.full((4, 6), 255, np.uint8)
    mask[0, :2] = 1, value
    sample = {"image": image.getvalue(), "mask": mask, "semantic": semantic}
    with pytest.raises(UserError, match=f"a: the mask has the value {value}, .* correct the mask"):
        packed_as(tmp_path / "packed", **sample)
    # Shards of other hands: what no packing looked at.
    folder = packed_as(tmp_path / "other", **sample | {"mask": np.minimum(mask, most)})
    replace_sample(folder, Sample(id="a", extension="bmp", labels=(0,), **sample))
    (problem,) = verify(folder, deep=True, workers=1)
    assert f"the mask has the value {value}, 0 to {most} and 255 allowed" in problem


def test_a_mask_of_another_size_is_refused_where_it_says_every_pixels_class(tmp_path):
    image = io.BytesIO()
    Image.new("RGB", (6, 4)).save(image, "BMP")
    turned = {"image": image.getvalue(), "mask": np.ones((6, 4), np.uint8)}
    with pytest.raises(UserError, match="a: the mask has 4 x 6 pixels, the image 6 x 4; "):
        packed_as(tmp_path / "classes", **turned, semantic=True)
    packed_as(tmp_path / "object", **turned)  # PxAP's are of any size

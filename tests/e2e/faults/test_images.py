"""Images and boxes as people have them: shown right, or named and counted, in packing, training and evaluation."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.damage import break_image, flip_bit
from tests.e2e.faults.process import finish, message, start
from tests.e2e.faults.shards import PACK, photos
from tests.e2e.faults.table import fault
from tests.e2e.faults.test_table import call
from tests.forkserver import FRESH
from tests.unit.test_track import finished_records
from wsol_dist.cli import main
from wsol_dist.data.images.decode import MAX_PIXELS, DecodeError, decode_rgb
from wsol_dist.data.images.orientation import TAG
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.sample import Sample
from wsol_dist.data.stream.stream import ShardReader, evaluation_batches
from wsol_dist.errors import UserError, as_user_error

Damage = Callable[[Path, str], str]
"""Of an image of a split of a folder of shards; gives its id."""
RED, GREEN = (220, 30, 40), (30, 200, 60)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pack(tmp: Path, *arguments: str) -> int:
    return call(PACK.replace("{tmp}", str(tmp)) + " " + " ".join(arguments))


def stored(tmp: Path, sample_id: str) -> Sample:
    reader = ShardReader(Index.load(tmp / "out"), "train")
    return next(reader.sample(row) for row in range(len(reader)) if reader.id(row) == sample_id)


def lines(text: str) -> list[str]:
    """What was said, without times of day and `error: `."""
    kept = [line.removeprefix("error: ") for line in text.splitlines()]
    return [line.split("  ", 1)[1] if line[2:3] == ":" and "  " in line else line for line in kept]


def said(what: str, tmp: Path, text: str, **words: object) -> bool:
    """Whether a line of the output is the row's message."""
    return any(fault(what).pattern(tmp, **words).fullmatch(line) for line in lines(text))


HALVES = np.concatenate([np.full((20, 30, 3), RED, np.uint8), np.full((20, 30, 3), GREEN, np.uint8)], axis=1)


def sixteen_bit_grey(left: int, right: int) -> bytes:
    pixels = np.concatenate([np.full((20, 30), left, np.uint16), np.full((20, 30), right, np.uint16)], axis=1)
    return encoded(Image.fromarray(pixels), "png")


def sixteen_bit_rgb() -> bytes:
    """PIL cannot write one: 16 bits a channel, value 257 times that of `HALVES`."""
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in HALVES)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60, 20, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


COLOUR = Image.fromarray(HALVES)
GREY = COLOUR.convert("L")
GREY_VALUES = [(v, v, v) for v in (GREY.getpixel((5, 5)), GREY.getpixel((55, 5)))]
KINDS = {
    "colour.jpg": (encoded(COLOUR, "jpeg", quality=95), [RED, GREEN]),
    "grey.jpg": (encoded(GREY, "jpeg", quality=95), GREY_VALUES),
    "grey.png": (encoded(GREY, "png"), GREY_VALUES),
    "cmyk.jpg": (encoded(COLOUR.convert("CMYK"), "jpeg", quality=95), [RED, GREEN]),
    "palette.png": (encoded(COLOUR.quantize(2), "png"), [RED, GREEN]),
    "alpha.png": (encoded(COLOUR.convert("RGBA"), "png"), [RED, GREEN]),
    "bits16.png": (sixteen_bit_grey(0x2800, 0xC8FF), [(40,) * 3, (200,) * 3]),
    "bits16rgb.png": (sixteen_bit_rgb(), [RED, GREEN]),
    "colour.webp": (encoded(COLOUR, "webp", lossless=True), [RED, GREEN]),
    "bilevel.bmp": (encoded(COLOUR.convert("L").point(lambda v: 255 * (v > 100)).convert("1"), "bmp"), None),
}


@pytest.mark.parametrize("what", ["grey, palette, CMYK, 16-bit images"])
def test_pixels_are_those_that_a_person_sees(prepared: Path, what: str) -> None:
    assert fault(what).message == ""
    folder = photos(prepared) / "cats"
    for name, (data, _) in KINDS.items():
        (folder / name).write_bytes(data)
    assert pack(prepared) == 0
    for name, (data, halves) in KINDS.items():
        sample = stored(prepared, f"cats/{name}")
        assert sample.image == data  # never encoded anew
        rgb = decode_rgb(sample.image).astype(int)
        assert rgb.shape == (20, 60, 3)
        left, right = halves or [(0,) * 3, (255,) * 3]
        assert abs(rgb[2:-2, 2:24] - left).max() <= 4, name
        assert abs(rgb[2:-2, 36:-2] - right).max() <= 4, name


@pytest.mark.parametrize("what", ["an image turned by its EXIF orientation"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_a_turned_photograph_and_its_box(prepared: Path, what: str, turned: int) -> None:
    """A person sees an object, draws its box, and the packed pixels in the box are that object."""
    assert fault(what).message == ""
    seen = np.full((64, 96, 3), 90, np.uint8)
    seen[8:24, 56:88] = RED
    inverse = {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE}
    inverse |= {8: Image.Transpose.ROTATE_270, 2: Image.Transpose.FLIP_LEFT_RIGHT}
    inverse |= {3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM}
    image = Image.fromarray(seen)
    image = image.transpose(inverse[turned]) if turned in inverse else image
    exif = Image.Exif()
    exif[TAG] = turned
    (photos(prepared) / "cats" / "turned.jpg").write_bytes(encoded(image, "jpeg", quality=95, exif=exif))
    (prepared / "boxes.csv").write_text("image,x0,y0,x1,y1\ncats/turned.jpg,56,8,87,23\n")
    assert pack(prepared, f"--boxes {prepared}/boxes.csv") == 0
    sample = stored(prepared, "cats/turned.jpg")
    assert sample.box_frame_wh == (96, 64)
    assert sample.boxes_xyxy is not None
    x0, y0, x1, y1 = sample.boxes_xyxy[0].astype(int)
    rgb = decode_rgb(sample.image).astype(int)
    assert rgb.shape == (64, 96, 3)
    assert abs(rgb[y0 + 2 : y1 - 1, x0 + 2 : x1 - 1] - RED).max() <= 6
    assert abs(rgb[y1 + 4 :] - 90).max() <= 6
    row = Index.load(prepared / "out").table().to_pylist()
    assert {(one["width"], one["height"]) for one in row if one["id"] == sample.id} == {(96, 64)}


def broken_photos(tmp: Path, num: int) -> list[str]:
    """Twelve photos, some of them damaged; returns the ids of these."""
    folder = photos(tmp, num=6) / "cats"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    (folder / "0.png").unlink()
    (folder / "0.jpg").write_bytes(encoded(Image.fromarray(noise), "jpeg")[:1500])
    if num > 1:
        (folder / "1.png").write_text("not an image\n")
    return ["cats/0.jpg", "cats/1.png"][:num]


def test_a_broken_image_is_named_while_packing(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (broken,) = broken_photos(prepared, 1)
    assert pack(prepared) == 0
    assert said("an image that does not decode, packed", prepared, capsys.readouterr().out, id=broken)
    assert Index.load(prepared / "out").splits["train"].num_samples == 12


def test_packing_ends_with_the_list(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = broken_photos(prepared, 2)
    assert pack(prepared) == 2
    heard = capsys.readouterr().err
    orders = [", ".join(broken), ", ".join(reversed(broken))]
    assert any(said("too many that do not decode, packed", prepared, heard, ids=ids) for ids in orders)
    assert not (prepared / "out" / "index.json").exists()
    assert pack(prepared, "--max-bad 0.2") == 0
    assert pack(prepared, "--force --max-bad 0") == 2


def test_packing_refuses_a_box_outside_its_image(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = fault("a box outside its image")
    row.damage(prepared)
    assert call(row.command.replace("{tmp}", str(prepared))) == 2
    assert said(row.what, prepared, capsys.readouterr().err)
    assert not (prepared / "out" / "index.json").exists()


def test_a_box_over_the_border_is_kept_and_named(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fault("a box over the border of its image").damage(prepared)
    assert pack(prepared, f"--boxes {prepared}/boxes.csv") == 0
    assert said("a box over the border of its image", prepared, capsys.readouterr().out)
    boxes = stored(prepared, "dogs/1.png").boxes_xyxy
    assert boxes is not None
    assert boxes.tolist() == [[2, 1, 15, 5]]


def train(tmp: Path, *arguments: str) -> int:
    return main(["train", str(tmp / "recipe.yaml"), "--out", str(tmp / "run"), *arguments])


def evaluate(tmp: Path, *arguments: str) -> int:
    words = ["evaluate", str(tmp / "recipe.yaml"), "--out", str(tmp / "run"), "--threshold", "fixed"]
    return main([*words, *arguments])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "damage"),
    [
        ("an image that does not decode, trained on", break_image),
        ("an image with a flipped bit, trained on", flip_bit),
    ],
)
def test_training_names_and_replaces_a_broken_image(
    prepared: Path, what: str, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = damage(prepared / "shards", "train")
    assert train(prepared, "--track.wandb", "offline") == 0
    heard = capsys.readouterr().out
    assert said(what, prepared, heard, id=broken), heard
    rows = [json.loads(line) for line in (prepared / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["data/broken_images"] == 1
    (log,) = (prepared / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    finished_records(log)  # W&B's own process completes it a moment after the run ends
    assert f"the next one stands in for each: {broken}".encode() in log.read_bytes()


@pytest.mark.slow
def test_training_ends_with_the_list(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = [break_image(prepared / "shards", "train", row=row) for row in (2, 40, 80)]
    assert train(prepared) == 2
    row, heard = fault("too many that do not decode, trained on"), lines(capsys.readouterr().err)[-1]
    assert row.pattern(prepared, ids="...").fullmatch(heard), heard
    assert all(one in heard for one in broken)
    assert train(prepared, "--data.max-bad", "0.04") == 0


@pytest.mark.slow
def test_a_mistake_in_a_loader_process_is_one_line(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for row in range(96):
        break_image(prepared / "shards", "train", row=row)
    assert train(prepared) == 2
    heard = capsys.readouterr().err
    assert heard.count("error: ") == 1
    assert fault("no image of a split decodes").pattern(prepared).fullmatch(lines(heard)[-1]), heard


@pytest.mark.slow
def test_a_mistake_in_a_loader_process_ends_a_real_process_in_order(prepared: Path) -> None:
    """Its loaders are gone before the interpreter ends, which would hang or abort (exit code 134) otherwise."""
    for path in (prepared / "shards").glob("train-*.tar"):
        path.write_bytes(bytes(path.stat().st_size))
    words = ("train", "recipe.yaml", "--out", "run", "--data.workers", "2")
    code, said = finish(start(prepared, *words, python=FRESH))  # in time
    assert code == 2, said
    assert "no image of the split decodes" in message(said)


@pytest.mark.parametrize(
    ("what", "damage"),
    [
        ("an image that does not decode, scored", break_image),
        ("an image with a flipped bit, scored", flip_bit),
    ],
)
def test_evaluation_counts_a_broken_image_as_missed(
    prepared: Path, what: str, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = damage(prepared / "shards", "test")
    assert evaluate(prepared) == 0
    heard = capsys.readouterr().out
    assert said(what, prepared, heard, id=broken), heard
    record = json.loads((prepared / "run" / "eval" / "test-step-00000000.json").read_text())
    assert (record["num_images"], record["broken"]) == (40, [broken])
    assert '"eval/test/broken_images": 1' in (prepared / "run" / "metrics-evaluate.jsonl").read_text()


@pytest.mark.parametrize("deep", [(), ("--deep",)], ids=["plain", "deep"])
def test_verify_names_an_image_with_a_flipped_bit(
    prepared: Path, deep: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    shards = prepared / "shards"
    broken = flip_bit(shards, "test")
    assert main(["shards", "verify", str(shards), "--workers", "1", *deep]) == 1
    assert said("an image with a flipped bit, verified", prepared, capsys.readouterr().out, id=broken)


def test_evaluation_ends_with_the_list(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = [break_image(prepared / "shards", "test", row=row) for row in (2, 20, 30)]
    assert evaluate(prepared) == 2
    heard = lines(capsys.readouterr().err)[-1]
    row = fault("too many that do not decode, scored")
    assert row.pattern(prepared, ids=", ".join(broken)).fullmatch(heard), heard
    assert not list((prepared / "run").glob("eval/*.json"))


def jpeg_that_claims(side: int) -> bytes:
    """A small JPEG whose header says another size: decoders take the memory for it all the same."""
    data = bytearray(encoded(COLOUR, "jpeg"))
    start_of_frame = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, start_of_frame + 5, side, side)
    return bytes(data)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_bomb_is_not_unpacked(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    side = 12_000
    bomb = jpeg_that_claims(side) if kind == "jpeg" else encoded(Image.new("1", (side, side)), "png")
    assert len(bomb) < 100_000 < MAX_PIXELS < side * side
    for decoder in ("PIL.ImageFile.ImageFile.load", "simplejpeg.decode_jpeg", "cv2.imdecode"):
        monkeypatch.setattr(decoder, lambda *_, **__: pytest.fail("the pixels are unpacked"))
    with pytest.raises(pytest.fail.Exception):  # so does any image that is not refused
        decode_rgb(encoded(COLOUR, kind))
    with pytest.raises(DecodeError) as error:
        decode_rgb(bomb)
    assert fault("a decompression bomb").pattern(tmp_path).fullmatch(str(error.value))


@pytest.mark.parametrize(
    ("what", "at", "data"),
    [
        ("tar members with absolute paths, verified", 0, b"/etc/passwd\0"),
        ("tar members that are links, verified", 156, b"2"),
    ],
)
def test_members_that_are_no_plain_files_are_broken_images(
    prepared: Path, what: str, at: int, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = prepared / "shards"
    with (shards / "train-000003.tar").open("r+b") as tar:
        tar.seek(at)
        tar.write(data)
    assert main(["shards", "verify", str(shards), "--workers", "1"]) == 1
    assert said(what, prepared, capsys.readouterr().out)
    reader = ShardReader(Index.load(shards), "train")
    (first,) = np.flatnonzero((reader.rows.shard == 3) & (reader.rows.offset == 0))
    with pytest.raises(DecodeError, match=fault(what).message.rpartition(": ")[2]):
        reader.sample(int(first))
    assert not (prepared / "etc").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_removed_while_it_is_read(prepared: Path, workers: int) -> None:
    row, index = fault("shard gone while it is read"), Index.load(prepared / "shards")
    row.damage(prepared)
    with pytest.raises(UserError) as error:
        list(
            evaluation_batches(
                index, split="test", rank=0, world=1, batch_size=8, workers=workers, image_px=24
            )
        )
    told = str(as_user_error(error.value))
    assert row.pattern(prepared).fullmatch(told), told

"""What is wrong with images, their boxes, and folders of shards."""

from __future__ import annotations

import csv
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.e2e.faults.fault import GOOD, Fault, fill
from tests.e2e.faults.given import EVALUATE, SUBMIT, TRAIN
from wsol_dist import cli

TRUNCATED = (
    "{shards}/train-000003.tar: truncated: 32768 bytes expected, 5000 found; "
    "pack again, or copy the folder again"
)
PACK = "wsol shards pack folder --root {tmp}/photos --out {tmp}/out --workers 1 --val-fraction 0"
ONE_A_SHARD = f"{PACK} --samples-per-shard 1"


def edit(file: str, old: str, new: str) -> Callable[[Path], object]:
    """Damage: other text in a file."""

    def damage(tmp: Path) -> None:
        path = tmp / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return damage


def truncate(tmp: Path) -> None:
    """Damage: a tar of which the end is missing."""
    os.truncate(tmp / "shards" / "train-000003.tar", 5000)


def remove(file: str) -> Callable[[Path], object]:
    """Damage: a file of the shards is missing."""
    return lambda tmp: (tmp / "shards" / file).unlink()


def flip_byte(file: str, at: int) -> Callable[[Path], object]:
    """Damage: one byte of a file of the shards is another."""

    def damage(tmp: Path) -> None:
        with (tmp / "shards" / file).open("r+b") as opened:
            opened.seek(at)
            byte = opened.read(1)[0]
            opened.seek(at)
            opened.write(bytes([byte ^ 0xFF]))

    return damage


def edit_index(**changed: object) -> Callable[[Path], object]:
    """Damage: other values in `index.json`."""

    def damage(tmp: Path) -> None:
        path = tmp / "shards" / "index.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return damage


def shard_outside(tmp: Path) -> None:
    """Damage: an index that names a file elsewhere."""
    edit("shards/index.json", '"train-000003.tar"', '"../train-000003.tar"')(tmp)


def photos(tmp: Path, *, num: int = 2) -> Path:
    """Damage: none; two class folders of images in `{tmp}/photos`."""
    for label, name in enumerate(("cats", "dogs")):
        folder = tmp / "photos" / name
        folder.mkdir(parents=True)
        for number in range(num):
            Image.fromarray(np.full((8, 10, 3), 99 * label, np.uint8)).save(folder / f"{number}.png")
    return tmp / "photos"


def empty_class(tmp: Path) -> None:
    """Damage: a class folder without images."""
    for path in (photos(tmp) / "dogs").iterdir():
        path.unlink()


def boxes(*rows: str) -> Callable[[Path], object]:
    """Damage: a CSV of boxes with these rows beside the photos."""

    def damage(tmp: Path) -> None:
        photos(tmp)
        with (tmp / "boxes.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["image", "x0", "y0", "x1", "y1"], *(row.split(",") for row in rows)])

    return damage


def foreign_folder(tmp: Path) -> None:
    """Damage: the wanted folder holds somebody's files."""
    photos(tmp)
    (tmp / "out").mkdir()
    (tmp / "out" / "letter.txt").write_text("dear reader\n")


def out_is_a_file(tmp: Path) -> None:
    """Damage: the wanted folder is a file."""
    photos(tmp)
    (tmp / "out").write_text("")


def begun(tmp: Path) -> None:
    """Damage: a packing of the photos that wrote its first shard and no more."""
    photos(tmp)
    assert cli.main(shlex.split(fill(f"{ONE_A_SHARD} --part 1/4", tmp))[1:]) == 0


def begun_and_changed(tmp: Path) -> None:
    """Damage: as `begun`, and other images since then."""
    begun(tmp)
    for path in (tmp / "photos").rglob("*.png"):
        Image.fromarray(np.full((8, 10, 3), 7, np.uint8)).save(path)


PACKING = [
    Fault(
        what="unknown source",
        command="wsol shards pack colage --out {tmp}/out",
        message="unknown source 'colage'; did you mean 'collage'? allowed: ...",
        fix="write it as suggested",
    ),
    Fault(
        what="no source",
        command="wsol shards pack --out {tmp}/out",
        message="SOURCE is needed; see wsol shards pack --help",
        fix="name the source, of those that the help lists",
    ),
    Fault(
        what="missing root",
        command="wsol shards pack imagenet --root {tmp}/nowhere --out {tmp}/out",
        message="{tmp}/nowhere: no such folder; expected the folder of ImageNet...",
        fix="correct the path",
    ),
    Fault(
        what="root of another data set",
        command="wsol shards pack caltech-101 --root {tmp} --out {tmp}/out",
        message="{tmp}: no 101_ObjectCategories in it; expected the folder that holds 101_ObjectCategories and "
        "Annotations, or caltech-101.zip",
        fix="give the folder that holds them",
    ),
    Fault(
        what="a class without images",
        command=PACK,
        message="{tmp}/photos/dogs: a class without images; put images (jpg, png, webp, bmp) there or remove it",
        fix="as it says",
        damage=empty_class,
    ),
    Fault(
        what="a box outside its image",
        command=PACK + " --boxes {tmp}/boxes.csv",
        message="dogs/1.png: box x0,y0,x1,y1 = 12, 1, 15, 5 lies outside the image of 10 x 8 pixels; "
        "correct or remove the box",
        fix="as it says; are x and y swapped?",
        then="exit 2; no index, so no folder of shards",
        damage=boxes("dogs/1.png,12,1,15,5"),
        test="test_images.py::test_packing_refuses_a_box_outside_its_image",
    ),
    Fault(
        what="a box over the border of its image",
        command="a box that reaches more than a pixel out",
        message="1 samples have a box more than a pixel over the border of their image, kept as given: dogs/1.png",
        fix="nothing, or correct the box",
        then="named on stdout; packed as the metadata has it, and cut or not as the protocol says",
        damage=boxes("dogs/1.png,2,1,15,5"),
        test="test_images.py::test_a_box_over_the_border_is_kept_and_named",
    ),
    Fault(
        what="a box upside down",
        command=PACK + " --boxes {tmp}/boxes.csv",
        message="{tmp}/boxes.csv: row 2: 'dogs/1.png,5,1,2,5' given, "
        "image,x0,y0,x1,y1 with x0 <= x1 and y0 <= y1 expected",
        fix="give corners, not x, y, width, height",
        damage=boxes("dogs/1.png,5,1,2,5"),
    ),
    Fault(
        what="a box of no image",
        command=PACK + " --boxes {tmp}/boxes.csv",
        message="{tmp}/boxes.csv: row 2: no image 'birds/1.png' below {tmp}/photos",
        fix="give the path below the root",
        damage=boxes("birds/1.png,1,1,2,5"),
    ),
    Fault(
        what="a box of an image elsewhere",
        command=PACK + " --boxes {tmp}/boxes.csv",
        message="'../1.png': refused: a path that leaves {tmp}/photos",
        fix="give a path below the root",
        damage=boxes("../1.png,1,1,2,5"),
    ),
    Fault(
        what="the folder of shards holds other files",
        command=PACK,
        message="{tmp}/out: not empty and no folder of shards; give another --out",
        fix="as it says",
        damage=foreign_folder,
    ),
    Fault(
        what="the folder of shards is a file",
        command=PACK,
        message="{tmp}/out: a file, not a folder; give another --out",
        fix="as it says",
        damage=out_is_a_file,
    ),
    Fault(
        what="packed already with other arguments",
        command="wsol shards pack collage --out {shards} --num-train 104",
        message="{shards}: already packed with other arguments or data (options, list of samples); give another --out, "
        "or --force to pack over it",
        fix="as it says",
    ),
    Fault(
        what="packing was killed, then other arguments",
        command=f"{ONE_A_SHARD} --seed 1",
        message="{tmp}/out: has finished shards of a packing with other arguments or data (seed) that was not "
        "finished; give another --out, or --force to pack over it",
        fix="as it says; the same arguments go on where it was killed",
        damage=begun,
    ),
    Fault(
        what="packing was killed, then other images",
        command=ONE_A_SHARD,
        message="{tmp}/out/train-000000.tar: the files of ... changed since this shard was packed; "
        "--force packs all of them again",
        fix="as it says. The first and the last image of each finished shard are compared",
        damage=begun_and_changed,
    ),
    Fault(
        what="a part that is none",
        command=PACK + " --part 3/2",
        message="--part: '3/2' given; I/N allowed, from 1/N to N/N, say 3/16",
        fix="as it says",
        damage=photos,
    ),
    Fault(
        what="a part, and everything anew",
        command=PACK + " --part 1/2 --force",
        message="--part and --force both given: parts keep each other's shards; remove the folder instead",
        fix="as it says",
        damage=photos,
    ),
    Fault(
        what="two sizes of shards",
        command=ONE_A_SHARD + " --shard-mib 256",
        message="--shard-mib and --samples-per-shard both given; give one of them",
        fix="as it says",
        damage=photos,
    ),
    Fault(
        what="nothing left for a split",
        command=PACK.replace("--val-fraction 0", "--val-fraction 0.0001"),
        message="--val-fraction: 0.0001 leaves no image for val; give another --val-fraction or --seed, "
        "or --val-fraction 0 for no val split",
        fix="as it says",
        damage=photos,
    ),
    Fault(
        what="negative number of workers",
        command=PACK + " --workers -2",
        message="--workers: given -2; allowed: 0 or more",
        fix="as it says",
        damage=photos,
    ),
    Fault(
        what="disk full while packing",
        command="packing onto a disk with too little space",
        message="{file}: cannot be written (...); free space there, or choose another folder",
        fix="free space, then the same command goes on: finished shards are kept",
        then="exit 2; no tar that is not whole, no index, so no folder of shards",
        test="test_disk.py::test_packing_onto_a_full_disk",
    ),
]

IMAGES = [
    Fault(
        what="an image that does not decode, packed",
        command="a truncated JPEG, or a text with the name of an image, among the images",
        message="image does not decode, packed as it is: {id} (...)",
        fix="repair or remove it, or leave it: it counts as missed",
        then="named on stdout; packed as it is, so that no image of a split is lost from its denominator",
        test="test_images.py::test_a_broken_image_is_named_while_packing",
    ),
    Fault(
        what="too many that do not decode, packed",
        command="more than `--max-bad` of the images",
        message="2 of 12 images do not decode, --max-bad 0.001 allows 1: {ids}; "
        "repair or remove them, or raise --max-bad",
        fix="is it the right folder? a copy that was cut off?",
        then="exit 2; no index, so no folder of shards",
        test="test_images.py::test_packing_ends_with_the_list",
    ),
    Fault(
        what="an image that does not decode, trained on",
        command="damage inside a tar of the right length",
        message="ALERT 1 image does not decode: the next one stands in for each: {id}",
        fix="`wsol shards verify --deep`, then pack again",
        then="named in the log and by a W&B alert, counted as `data/broken_images`; the next image of its class stands "
        "in, of any class where none is left",
        test="test_images.py::test_training_names_and_replaces_a_broken_image",
    ),
    Fault(
        what="an image with a flipped bit, trained on",
        command="one bit inside a tar, after which the image still decodes, to other pixels",
        message="ALERT 1 image does not decode: the next one stands in for each: {id}",
        fix="`wsol shards verify` names it, then pack again or copy the tar again",
        then="as an image that does not decode: its bytes have another crc32 than the table of samples says. Shards "
        "that were packed without this column are read without the check",
        test="test_images.py::test_training_names_and_replaces_a_broken_image",
    ),
    Fault(
        what="too many that do not decode, trained on",
        command="more than `data.max_bad` of the split, over all ranks",
        message="3 of 96 images do not decode, data.max_bad 0.001 allows 1: {ids}; "
        "run `wsol shards verify --deep {shards}`, or raise data.max_bad",
        fix="as it says",
        then="exit 2 at the next log row, all ranks together; checkpoints stay",
        test="test_images.py::test_training_ends_with_the_list",
    ),
    Fault(
        what="no image of a split decodes",
        command="a split of damaged images",
        message="no image of the split decodes, the first are ...; run shards/verify.py --deep",
        fix="as it says",
        then="exit 2, one line though a loader process raised it",
        test="test_images.py::test_a_mistake_in_a_loader_process_is_one_line",
    ),
    Fault(
        what="an image that does not decode, scored",
        command="damage inside a tar of the right length",
        message="ALERT test: 1 image does not decode: counted as missed: {id}",
        fix="`wsol shards verify --deep`, then pack again",
        then="named in the log, by a W&B alert, in the record and on the page, counted as `eval/SPLIT/broken_images`; "
        "it stays in the denominator",
        test="test_images.py::test_evaluation_counts_a_broken_image_as_missed",
    ),
    Fault(
        what="an image with a flipped bit, scored",
        command="one bit inside a tar, after which the image still decodes, to other pixels",
        message="ALERT test: 1 image does not decode: counted as missed: {id}",
        fix="`wsol shards verify` names it, then pack again or copy the tar again",
        then="as an image that does not decode",
        test="test_images.py::test_evaluation_counts_a_broken_image_as_missed",
    ),
    Fault(
        what="an image with a flipped bit, verified",
        command="`wsol shards verify shards`, with or without `--deep`",
        message="{shards}/test-....tar: {id}: the image's bytes are not those that were packed (crc32 differs)",
        fix="pack again, or copy the tar again",
        then="exit 1, beside the line about the tar's sha256",
        test="test_images.py::test_verify_names_an_image_with_a_flipped_bit",
    ),
    Fault(
        what="too many that do not decode, scored",
        command="more than `data.max_bad` of the split",
        message="3 of 40 images do not decode, data.max_bad 0.001 allows 1: {ids}; "
        "run `wsol shards verify --deep {shards}`, or raise data.max_bad",
        fix="as it says",
        then="exit 2; no record is written",
        test="test_images.py::test_evaluation_ends_with_the_list",
    ),
    Fault(
        what="a decompression bomb",
        command="a PNG of 12000 x 12000 pixels in 20 kB",
        message="12000 x 12000 pixels, more than 100000000",
        fix="store it smaller",
        then="as an image that does not decode; its pixels are never unpacked",
        test="test_images.py::test_a_bomb_is_not_unpacked",
    ),
    Fault(
        what="grey, palette, CMYK, 16-bit images",
        command="a JPEG, PNG, WebP or BMP of any such kind",
        message="",
        fix="nothing",
        then="shown in RGB as a viewer does; 16 bits are scaled to 8",
        test="test_images.py::test_pixels_are_those_that_a_person_sees",
    ),
    Fault(
        what="an image turned by its EXIF orientation",
        command="a photograph taken upright",
        message="",
        fix="nothing; boxes are those of the picture as a viewer shows it",
        then="shown upright. Where a data set's metadata gives the size of the stored pixels, as they are stored",
        test="test_images.py::test_a_turned_photograph_and_its_box",
    ),
]

SHARDS = [
    Fault(
        what="no shards given",
        command=SUBMIT,
        message="data.index: no shards given; pack some (shards/pack.py) and add --data.index FOLDER",
        fix="as it says",
        recipe=GOOD.replace("{shards}", ""),
    ),
    Fault(
        what="no such folder of shards",
        command=SUBMIT + " --data.index {tmp}/nowhere",
        message="{tmp}/nowhere: no such folder of shards; "
        "make one with `python shards/pack.py SOURCE --out {tmp}/nowhere`",
        fix="as it says",
    ),
    Fault(
        what="a file in place of the folder",
        command=TRAIN + " --data.index {shards}/index.json",
        message="{shards}/index.json: a file; give the folder of shards that holds index.json",
        fix="as it says",
    ),
    Fault(
        what="index missing",
        command=SUBMIT,
        message="{shards}: no index.json in it: packing did not finish, or this is no folder of shards; "
        "run `python shards/pack.py SOURCE --out {shards}`",
        fix="as it says",
        damage=remove("index.json"),
    ),
    Fault(
        what="index of a newer version",
        command=SUBMIT,
        message="{shards}/index.json: schema version 99 given, 1 supported; "
        "pack again with this version, or update wsol_dist",
        fix="as it says",
        damage=edit("shards/index.json", '"schema": 1', '"schema": 99'),
    ),
    Fault(
        what="index damaged",
        command=SUBMIT,
        message="{shards}/index.json: damaged: ...; pack again",
        fix="as it says",
        damage=edit("shards/index.json", '"seed": 0', '"seed": '),
    ),
    Fault(
        what="index that names files elsewhere",
        command=TRAIN,
        message="{shards}/index.json: refused file name '../train-000003.tar': shards lie beside the index",
        fix="do not use these shards: somebody changed them",
        damage=shard_outside,
    ),
    Fault(
        what="table of samples missing",
        command=TRAIN,
        message="{shards}/samples.parquet: missing, but index.json names it; pack again, or copy the folder again",
        fix="as it says",
        damage=remove("samples.parquet"),
    ),
    Fault(
        what="table of samples changed",
        command=TRAIN,
        message="{shards}/samples.parquet: not the file that index.json names (sha256 differs); pack again",
        fix="as it says",
        damage=flip_byte("samples.parquet", 60),
    ),
    Fault(
        what="shard missing, trained",
        command=TRAIN,
        message="{shards}/train-000003.tar: missing, but index.json names it; pack again, or copy the folder again",
        fix="as it says",
        damage=remove("train-000003.tar"),
    ),
    Fault(
        what="truncated tar, submitted",
        command=SUBMIT,
        message=TRUNCATED,
        fix="as it says",
        damage=truncate,
    ),
    Fault(what="truncated tar, trained", command=TRAIN, message=TRUNCATED, fix="as it says", damage=truncate),
    Fault(
        what="truncated tar, scored", command=EVALUATE, message=TRUNCATED, fix="as it says", damage=truncate
    ),
    Fault(
        what="shard gone while it is read",
        command="a tar that is removed after the start",
        message="{shards}/test-000000.tar: gone, it was there at the start; copy it back, and the same command goes on",
        fix="as it says",
        then="exit 2, one line though a loader process raised it; checkpoints stay",
        damage=remove("test-000000.tar"),
        test="test_images.py::test_a_shard_that_is_removed_while_it_is_read",
    ),
    Fault(
        what="truncated tar, verified",
        command="`wsol shards verify shards`",
        message="{shards}/train-000003.tar: truncated: 32768 bytes expected, 5000 found",
        fix="pack again, or copy the folder again",
        then="exit 1, a line on stdout for every problem",
        damage=truncate,
        test="test_table.py::test_verify_finds_damage",
    ),
    Fault(
        what="shard missing, verified",
        command="`wsol shards verify shards`",
        message="{shards}/train-000003.tar: missing, but index.json names it",
        fix="pack again, or copy the folder again",
        then="exit 1",
        damage=remove("train-000003.tar"),
        test="test_table.py::test_verify_finds_damage",
    ),
    Fault(
        what="wrong checksum, verified",
        command="`wsol shards verify shards`",
        message="{shards}/train-000003.tar: sha256 differs from the index",
        fix="pack again, or copy the folder again",
        then="exit 1; training checks the lengths of tars, and the crc32 of every image that it reads",
        damage=flip_byte("train-000003.tar", 900),
        test="test_table.py::test_verify_finds_damage",
    ),
    Fault(
        what="tar members with absolute paths, verified",
        command="`wsol shards verify shards`",
        message="{shards}/train-000003.tar: ...: refused member name '/etc/passwd'",
        fix="do not use these shards: somebody changed them",
        then="exit 1; in training and evaluation as an image that does not decode. Nothing is ever unpacked to disk",
        test="test_images.py::test_members_that_are_no_plain_files_are_broken_images",
    ),
    Fault(
        what="tar members that are links, verified",
        command="`wsol shards verify shards`",
        message="{shards}/train-000003.tar: ...: no regular file at byte 0 of the sample",
        fix="do not use these shards: somebody changed them",
        then="as above",
        test="test_images.py::test_members_that_are_no_plain_files_are_broken_images",
    ),
    Fault(
        what="another class count, submitted",
        command=SUBMIT + " --data.num-classes 1000",
        message="data.num_classes: the recipe is for 1000 classes, the shards in {shards} have 8; "
        "choose other shards or set --data.num-classes 8",
        fix="as it says",
    ),
    Fault(
        what="another class count, scored",
        command=EVALUATE + " --data.num-classes 1000",
        message="the recipe (data.num_classes) is for 1000 classes, the shards in {shards} have 8; "
        "give the shards that belong to it with --index",
        fix="as it says",
    ),
    Fault(
        what="no such split to train on",
        command=TRAIN + " --data.train-split trian",
        message="data.train_split: no split 'trian' in {shards}; did you mean 'train'? allowed: train, val, test",
        fix="as it says",
    ),
    Fault(
        what="no such split to score, submitted",
        command=SUBMIT + " --splits vla",
        message="--splits: no split 'vla' in {shards}; did you mean 'val'? allowed: train, val, test, joined by commas",
        fix="as it says",
    ),
    Fault(
        what="no such split to score",
        command=EVALUATE + " --split vla",
        message="--split: no split 'vla' in {shards}; did you mean 'val'? allowed: train, val, test",
        fix="as it says",
    ),
    Fault(
        what="no split to score",
        command=EVALUATE + " --split ,",
        message="--split: no split '' in {shards}; allowed: train, val, test",
        fix="name one or several",
    ),
    Fault(
        what="no such image",
        command="wsol shards show {shards} train/zebra/1",
        message="{shards}: no sample 'train/zebra/1'; ids look like ...",
        fix="`wsol shards ls` shows what there is",
    ),
]

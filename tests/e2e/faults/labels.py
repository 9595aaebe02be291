"""From class folders to labels: what is wrong with a folder, a model, or the place where labels are to go."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.e2e.faults.fault import Fault
from tests.predictions import make_predictions

FIT = "wsol fit {tmp}/photos --out {tmp}/run"
PREDICT = "wsol predict {tmp}/model {tmp}/photos --out {tmp}/labels"
HERE = "test_labels.py"
GIVE_A_MODEL = "give a run folder, or a folder that wsol export wrote"


def class_folders(*names: str, num: int = 5) -> Callable[[Path], object]:
    """Damage: `{tmp}/photos` with these class folders, and images of noise in each."""

    def make(tmp: Path) -> None:
        for label, name in enumerate(names):
            (tmp / "photos" / name).mkdir(parents=True)
            for number in range(num):
                pixels = np.random.default_rng((label, number)).integers(0, 255, (20, 24, 3), np.uint8)
                Image.fromarray(pixels).save(tmp / "photos" / name / f"{number}.png")

    return make


def empty_folder(tmp: Path) -> None:
    """Damage: `{tmp}/photos` has nothing in it."""
    (tmp / "photos").mkdir()


def strip(tmp: Path) -> None:
    """Damage: among the images of `{tmp}/photos` is one of 100,000 x 1 px."""
    class_folders("cat", "dog", num=12)(tmp)
    Image.fromarray(np.zeros((1, 100_000, 3), np.uint8)).save(tmp / "photos/cat/strip.png")


def a_program(path: Path) -> None:
    """A pickle that makes a file `ran` beside it when it is read as pickles are."""

    class Program:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(path.with_name("ran")),)

    torch.save({"state_dict": Program()}, path)


def brought_program(tmp: Path) -> None:
    """Damage: the weights that are brought along are a program."""
    class_folders("cat", "dog")(tmp)
    a_program(tmp / "weights.pth")


def sign_again(model: Path) -> None:
    """Checksums that fit: whoever changes a model can write them too."""
    names = sorted(path.name for path in model.iterdir() if path.name != "SHA256SUMS")
    sums = (f"{hashlib.sha256((model / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (model / "SHA256SUMS").write_text("".join(sums))


def change_weights(tmp: Path) -> None:
    """Damage: a byte of an exported model's weights is another one."""
    path = tmp / "model/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def weights_are_a_program(tmp: Path) -> None:
    """Damage: the weights of an exported model are a pickle that runs code."""
    a_program(tmp / "model/model.safetensors")
    sign_again(tmp / "model")


def config_names_code(tmp: Path) -> None:
    """Damage: the configuration of an exported model names a class outside of the registry."""
    path = tmp / "model/config.yaml"
    assert "name: cam" in path.read_text()
    path.write_text(path.read_text().replace("name: cam", "name: stolen:Method"))
    sign_again(tmp / "model")


def config_runs_code(tmp: Path) -> None:
    """Damage: the configuration of an exported model has a YAML tag that makes Python objects."""
    with (tmp / "model/config.yaml").open("a") as file:
        file.write(f"evil: !!python/object/apply:os.mkdir ['{tmp}/ran']\n")
    sign_again(tmp / "model")


def names_a_file_elsewhere(tmp: Path) -> Path:
    """Damage: predictions of which one image is a link out of the folder that was predicted on."""
    folder = make_predictions(tmp, 3)
    shutil.move(tmp / "images/cat/00000.jpg", tmp / "secret.jpg")
    (tmp / "images/cat/00000.jpg").symlink_to(tmp / "secret.jpg")
    return folder


LABELS = [
    Fault(
        what="class folders that are not there",
        command=FIT,
        message="{tmp}/photos: no such folder; expected one folder of images a class: {tmp}/photos/cat/1.jpg, "
        "{tmp}/photos/dog/2.jpg (or the same below train, val, test)",
        fix="correct the path",
    ),
    Fault(
        what="an empty folder",
        command=FIT,
        message="{tmp}/photos: an empty folder; needed is one folder of images a class: {tmp}/photos/cat/1.jpg, "
        "{tmp}/photos/dog/2.jpg (or the same below train, val, test)",
        fix="as it says",
        damage=empty_folder,
    ),
    Fault(
        what="one class only",
        command=FIT,
        message="{tmp}/photos: one class only, 'cat': where it is can only be learned by telling it from something "
        "else; add a second folder of images without it, such as {tmp}/photos/background with photographs of the "
        "same places",
        fix="as it says",
        damage=class_folders("cat"),
    ),
    Fault(
        what="two spellings of a class",
        command=FIT,
        message="{tmp}/photos: 'Red Car' and 'red_car' are spellings of one class; move the images into one of these "
        "folders, or rename one if they are different things",
        fix="as it says",
        damage=class_folders("Red Car", "dog", "red_car"),
    ),
    Fault(
        what="a class with too few images",
        command=FIT,
        message="{tmp}/photos: classes with too few images to train on, at least 5 are needed: 'cat' has 4, 'dog' has "
        "4; add images, or move these folders out",
        fix="as it says",
        damage=class_folders("cat", "dog", num=4),
    ),
    Fault(
        what="an image of 100,000 x 1 px to learn from",
        command="`wsol fit photos` with such an image among others",
        message="note: left out: cat/strip.png (100000 x 1 px, a strip that shows no object)",
        fix="nothing; over `--max-bad` (5 %) of such images end it with exit 2",
        then="goes on without it",
        damage=strip,
        test=f"{HERE}::test_a_strip_is_left_out_by_name",
    ),
    Fault(
        what="an image of 100,000 x 1 px to localize in",
        command="`wsol predict run photos --out labels` with such an image",
        message="",
        fix="nothing",
        then="works: a box, a mask and an overlay of its size",
        test="../../unit/test_predict.py::test_images_of_a_pixel_and_of_extreme_sides_are_predicted",
    ),
    Fault(
        what="weights from an untrusted place that are a program",
        command=FIT + " --weights {tmp}/weights.pth",
        message="checkpoint {tmp}/weights.pth: not a readable weight file (...); give .safetensors or .pth",
        fix="ask for the tensors alone",
        then="exit 2 before anything is written; the program does not run",
        damage=brought_program,
    ),
    Fault(
        what="a model that is not there",
        command=PREDICT,
        message="{tmp}/model: no such folder; " + GIVE_A_MODEL,
        fix="correct the path",
    ),
    Fault(
        what="a model that was changed",
        command="`wsol predict model photos --out labels` with another byte in its weights",
        message="{tmp}/model/model.safetensors: not the file that was exported (SHA256SUMS has another sha256): "
        "damaged or changed; copy the model again",
        fix="as it says",
        damage=change_weights,
        test=f"{HERE}::test_a_model_from_an_untrusted_place",
    ),
    Fault(
        what="a model from an untrusted place whose weights are a program",
        command="`wsol predict model photos --out labels`; its checksums fit",
        message="{tmp}/model/model.safetensors: ...",
        fix="do not use it",
        then="exit 2 before anything is written; the program does not run",
        damage=weights_are_a_program,
        test=f"{HERE}::test_a_model_from_an_untrusted_place",
    ),
    Fault(
        what="a model from an untrusted place that names code",
        command="`wsol predict model photos --out labels`; its `method.name` is `stolen:Method`, its checksums fit",
        message="{tmp}/model/config.yaml: method.name: 'stolen:Method' would import code that the registry does not "
        "know; if you trust where this model comes from, say --trust-code (load(..., trust_code=True))",
        fix="as it says; code is imported then, and only then",
        damage=config_names_code,
        test=f"{HERE}::test_a_model_from_an_untrusted_place",
    ),
    Fault(
        what="a model from an untrusted place with Python in its YAML",
        command="`wsol predict model photos --out labels`; a tag `!!python/object/apply` in `config.yaml`",
        message="{tmp}/model/config.yaml: ...!!python/object/apply...",
        fix="do not use it",
        then="exit 2 before anything is written; nothing runs",
        damage=config_runs_code,
        test=f"{HERE}::test_a_model_from_an_untrusted_place",
    ),
    Fault(
        what="no predictions to review",
        command="wsol review {tmp}/labels",
        message="{tmp}/labels: no predictions in it; give the --out of a wsol predict that is through",
        fix="as it says",
    ),
    Fault(
        what="port in use, review",
        command="`wsol review labels --port 8787` while another program has the port",
        message="--port: {port} is in use on this machine; give another one, or 0 for any that is free",
        fix="as it says",
        then="exit 2",
        test=f"{HERE}::test_a_port_in_use",
    ),
    Fault(
        what="a path outside of the served folder",
        command="`GET /../../etc/passwd`, `/review.jsonl`, and other paths of files asked of the review server",
        message="there is nothing here",
        fix="nothing: no request names a file; pictures go by the number of their card",
        then="status 404 with this line",
        test=f"{HERE}::test_paths_of_files_are_not_served",
    ),
    Fault(
        what="predictions that name a file elsewhere",
        command="a record, or a link in the folder of images, that leads out of the folder",
        message="'cat/00000.jpg' leaves {tmp}/images for a file that was not predicted",
        fix="predict again; a link to the very file that was predicted is followed",
        then="the card shows this line instead of the picture",
        damage=names_a_file_elsewhere,
        test=f"{HERE}::test_a_picture_elsewhere_is_not_served",
    ),
    Fault(
        what="another page in the browser chooses",
        command="a request to the review server that its own page did not send",
        message="not from the review page; load it again",
        fix="load the page again: each start of `wsol review` has a token of its own",
        then="status 403 with this line; nothing is saved",
        test=f"{HERE}::test_a_page_elsewhere_cannot_choose",
    ),
    Fault(
        what="nothing accepted yet",
        command="`wsol review labels --export reviewed` before any box is accepted",
        message="no box is accepted yet, nothing to export; accept some, or also export those that nobody has judged "
        "(--with-open)",
        fix="as it says",
        then="exit 2; no labels are written",
        test=f"{HERE}::test_nothing_to_export",
    ),
    Fault(
        what="disk full while a model is exported",
        command="`wsol export run --out model` onto a disk with too little space",
        message="{tmp}/model: cannot be written (...); free space there, or give another --out",
        fix="as it says",
        then="exit 2; no folder, also no unfinished one, is left",
        test=f"{HERE}::test_a_model_onto_a_full_disk",
    ),
    Fault(
        what="disk full while labels are exported",
        command="`wsol review labels --export reviewed` onto a disk with too little space",
        message="{tmp}/reviewed/coco.json: cannot be written (...); free space there, or choose another folder",
        fix="as it says; the choices are safe, the same command writes them all",
        then="exit 2; `exported.json`, which says that all is there, is without counts",
        test=f"{HERE}::test_labels_onto_a_full_disk",
    ),
    Fault(
        what="disk full while a choice is saved",
        command="a click on Accept, with a full disk",
        message="not saved: {tmp}/O/review.jsonl: cannot be written (No space left on device); free space there, or "
        "choose another folder",
        fix="free space; the page goes on",
        then="status 507 with this line, which the page shows; the card stays as it was",
        test=f"{HERE}::test_a_choice_onto_a_full_disk",
    ),
]

"""A person's class folders looked at before anything is made of them: every mistake at once, every stray file named."""

from __future__ import annotations

import statistics
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wsol_dist.data.images.broken import name_some
from wsol_dist.data.images.decode import image_problem
from wsol_dist.data.packing.parallel import in_order, num_cores
from wsol_dist.data.raw.files import extension_of, folders_in, images_in, need_folder
from wsol_dist.data.shards.shard import IMAGE_EXTENSIONS, image_size
from wsol_dist.data.sources.folder import SPLITS
from wsol_dist.errors import UserError

LEAST_IMAGES = 5
"""Of a class to train on: of fewer nothing is left when some are held out."""
FEW_IMAGES = 20
"""Of a class; below, it is said that little can be expected."""
LEAST_SIDE_PX, MOST_ELONGATED = 8, 50
"""An image with a shorter side, or longer than this many times its width, shows no object once it is a square."""
LAYOUT = (
    "one folder of images a class: {root}/cat/1.jpg, {root}/dog/2.jpg (or the same below train, val, test)"
)
CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class Found:
    """Class folders that can be trained on."""

    root: Path
    splits: tuple[str, ...]
    """Those that are folders of their own; none where the class folders lie in the root."""
    classes: tuple[str, ...]
    counts: dict[str, int]
    """Usable images to train on, val taken out or not, by class."""
    image_px: int
    """Median over the images of the shorter side."""
    left_out: dict[str, str]
    """Path below the root -> why it is not used."""
    notes: tuple[str, ...]
    """What a person should know, a line each."""

    @property
    def num_images(self) -> int:
        return sum(self.counts.values())


def look(root: Path, *, max_bad: float, workers: int = 0) -> Found:
    """Read every image once and judge what is there.

    Args:
        max_bad: share of the images that may be unusable; those are left out by name.
        workers: processes that read; 0 for one a core.

    Raises:
        UserError: no folder, nothing in it, no class folders, one class, two spellings of one, classes with too few
            images, or too many unusable images; what is independent of each other comes at once.
    """
    splits, names = _class_folders(root)
    _check_names(root, names)
    folders = [f"{split}/{name}" if split else name for split in splits or ("",) for name in names]
    present = [folder for folder in folders if (root / folder).is_dir()]
    images = [f"{folder}/{file}" for folder in present for file in images_in(root / folder)]
    if not images:
        raise UserError(f"{root}: no image ({', '.join(IMAGE_EXTENSIONS)}) in any of its class folders")
    sizes, left_out = _read_all(root, images, workers=workers)
    _check_bad(left_out, len(images), max_bad)
    trained = "train/" if splits else ""
    counts = {
        name: sum(path not in left_out and path.startswith(f"{trained}{name}/") for path in images)
        for name in names
    }
    _check_counts(root, counts)
    strays = sorted(_strays(root, present))
    return Found(
        root=root,
        splits=splits,
        classes=names,
        counts=counts,
        image_px=round(statistics.median(min(size) for size in sizes.values())),
        left_out=left_out,
        notes=tuple(_notes(counts, left_out, strays)),
    )


def spelling(name: str) -> str:
    """What two spellings of one class have in common: no case, no blanks, dashes, underscores; Unicode composed."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in text if letter.isalnum()) or text


def _class_folders(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The splits, if these are what the root holds, and the names of the classes."""
    need_folder(root, LAYOUT.format(root=root))
    inside = folders_in(root)
    if not inside:
        here = images_in(root)
        what = f"{len(here)} images and no class folders in it" if here else "an empty folder"
        raise UserError(f"{root}: {what}; needed is {LAYOUT.format(root=root)}")
    splits = tuple(name for name in SPLITS if name in inside) if set(inside) <= set(SPLITS) else ()
    if splits and "train" not in splits:
        raise UserError(f"{root}: has {', '.join(splits)} and no folder 'train' to learn from")
    places = [root / split for split in splits] or [root]
    return splits, tuple(sorted({name for place in places for name in folders_in(place)}))


def _check_names(root: Path, names: tuple[str, ...]) -> None:
    """Classes that are one class, or only one of them."""
    by_spelling: dict[str, list[str]] = {}
    for name in names:
        by_spelling.setdefault(spelling(name), []).append(name)
    twice = [same for same in by_spelling.values() if len(same) > 1]
    if twice:
        raise UserError(
            "\n".join(
                f"{root}: {' and '.join(map(repr, same))} are spellings of one class; move the images into one of "
                "these folders, or rename one if they are different things"
                for same in twice
            )
        )
    if not names:
        raise UserError(f"{root}: an empty folder; needed is {LAYOUT.format(root=root)}")
    if len(names) == 1:
        raise UserError(
            f"{root}: one class only, {names[0]!r}: where it is can only be learned by telling it from something "
            f"else; add a second folder of images without it, such as {root}/background with photographs of the "
            "same places"
        )


def _read_all(
    root: Path, images: list[str], *, workers: int
) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Sizes of the usable images, and why the others are not."""
    sizes, bad = {}, {}
    chunks = [images[at : at + CHUNK] for at in range(0, len(images), CHUNK)]
    for seen in in_order(_read_some, chunks, shared=root, num_workers=workers or num_cores()):
        for path, size, problem in seen:
            if problem:
                bad[path] = problem
            else:
                sizes[path] = size
    return sizes, bad


def _read_some(root: Path, paths: list[str]) -> list[tuple[str, tuple[int, int], str]]:
    return [(path, *_size_and_problem(root / path)) for path in paths]


def _size_and_problem(path: Path) -> tuple[tuple[int, int], str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        return (0, 0), f"cannot be read: {error.strerror}"
    size = image_size(data)
    if min(size) > 0 and (min(size) < LEAST_SIDE_PX or max(size) > MOST_ELONGATED * min(size)):
        return size, f"{size[0]} x {size[1]} px, a strip that shows no object"
    return size, "" if (problem := image_problem(data, size)) is None else f"no image: {problem}"


def _check_bad(bad: dict[str, str], num_images: int, max_bad: float) -> None:
    if len(bad) > max(1, max_bad * num_images):
        shown = name_some([f"{path} ({why})" for path, why in bad.items()])
        raise UserError(
            f"{len(bad)} of {num_images} images cannot be used, --max-bad {max_bad:g} allows "
            f"{max(1, int(max_bad * num_images))}: {shown}; repair or remove them, or raise --max-bad"
        )


def _check_counts(root: Path, counts: dict[str, int]) -> None:
    few = [f"{name!r} has {count}" for name, count in counts.items() if count < LEAST_IMAGES]
    if few:
        raise UserError(
            f"{root}: classes with too few images to train on, at least {LEAST_IMAGES} are needed: {name_some(few)}; "
            "add images, or move these folders out"
        )


def _strays(root: Path, folders: list[str]) -> Iterator[str]:
    """Files that are no images by their names, and folders inside of class folders."""
    for folder in folders:
        for entry in (root / folder).iterdir():
            if entry.name.startswith(".") or (
                extension_of(entry.name) in IMAGE_EXTENSIONS and entry.is_file()
            ):
                continue
            yield f"{folder}/{entry.name}" + ("/" if entry.is_dir() else "")


def _notes(counts: dict[str, int], left_out: dict[str, str], strays: list[str]) -> Iterator[str]:
    if strays:
        formats = ", ".join(IMAGE_EXTENSIONS)
        yield f"not read, as only {formats} files right in a class folder are: {name_some(strays)}"
    if left_out:
        yield "left out: " + name_some([f"{path} ({why})" for path, why in left_out.items()])
    few = [f"{name} ({count})" for name, count in counts.items() if count < FEW_IMAGES]
    if few:
        yield f"classes with under {FEW_IMAGES} images, of which little can be expected: {name_some(few)}"
    if max(counts.values()) > 20 * min(counts.values()):
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        yield f"very unequal classes: {most} has {counts[most]} images, {least} has {counts[least]}"

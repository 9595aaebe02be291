"""Train a recipe: wsol train RECIPE [--out RUN] [overrides]; started again in the same folder it goes on."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsol_dist.config import Config, dump, parse_with_recipe, read_yaml, to_dict
from wsol_dist.data.index import Index
from wsol_dist.errors import UserError, did_you_mean


def main(argv: list[str]) -> int:
    """Entry of `wsol train`; under torchrun, submitit or srun each rank calls it."""
    parser = argparse.ArgumentParser(
        prog="wsol train", description=__doc__, allow_abbrev=False, add_help=False
    )
    parser.add_argument("recipe", help="name of a recipe, or a path to a .yaml file")
    parser.add_argument("--out", type=Path, help="run folder; default runs/NAME")
    own, config = parse_with_recipe(parser, argv)
    train(config, own.out or Path("runs") / config.name)
    return 0


def train(config: Config, folder: Path) -> None:
    """Run or continue a training in its folder, on the ranks that the environment describes."""
    from wsol_dist import ranks

    own = ranks.from_environment()
    try:
        index = check(config, world=own.world)
        prepare_folder(config, folder, write=own.is_main)
        own.barrier()
        from wsol_dist.trainer.trainer import Trainer

        Trainer(config, folder, index, own).run()
    finally:
        ranks.stop_group()


def check(config: Config, *, world: int) -> Index:
    """Every contradiction between recipe, shards and ranks that can be seen before training.

    Raises:
        UserError: what does not fit, and how to mend it.
    """
    data, batch = config.data, config.train.global_batch
    if not data.index:
        raise UserError("data.index: no shards given; pack some (shards/pack.py) and add --data.index FOLDER")
    index = Index.load(data.index)
    if data.num_classes not in (None, len(index.classes)):
        raise UserError(
            f"data.num_classes: the recipe is for {data.num_classes} classes, the shards in {data.index} have "
            f"{len(index.classes)}; choose other shards or set --data.num-classes {len(index.classes)}"
        )
    if data.train_split not in index.splits:
        raise UserError(
            f"data.train_split: no split {data.train_split!r} in {data.index}; "
            f"{did_you_mean(data.train_split, list(index.splits))}"
        )
    share = world * config.train.accumulation
    if batch % share:
        raise UserError(
            f"train.global_batch: {batch} is no multiple of {share} ({world} ranks x accumulation "
            f"{config.train.accumulation}); try --train.global-batch {max(share, batch // share * share)}"
        )
    num_samples = index.splits[data.train_split].num_samples
    if num_samples < batch:
        raise UserError(
            f"train.global_batch: {batch} images a step, but split {data.train_split!r} has only {num_samples}"
        )
    _check_init(config)
    return index


def _check_init(config: Config) -> None:
    """Refuse weights to start from that are not there, or that another method wrote."""
    if not config.train.init:
        return
    from wsol_dist.model import check_belongs, weights_file

    for name in config.train.init:
        check_belongs(weights_file(Path(name)), config.method_name)


def prepare_folder(config: Config, folder: Path, *, write: bool) -> None:
    """Store the resolved configuration, or check that a folder to go on in was made with the same one.

    Raises:
        UserError: the folder belongs to another configuration.
    """
    stored = folder / "config.yaml"
    if stored.is_file():
        differing = differences(read_yaml(stored), to_dict(config))
        if differing:
            raise UserError(
                f"{folder}: holds a run of another configuration ({'; '.join(differing[:5])}); "
                "choose another --out, or remove the folder"
            )
    elif write:
        folder.mkdir(parents=True, exist_ok=True)
        stored.write_text(dump(config), encoding="utf-8")


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Dotted keys whose values differ, as `key: old -> new`; watching and scoring may change on the way."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        if not prefix and key in ("track", "evaluate"):
            continue
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before} -> {after}")
    return found

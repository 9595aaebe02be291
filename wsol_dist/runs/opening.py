"""Open a trained model: run folder, exported model, weight file or recipe -> configuration, weights, step.

This is the one place that decides which checkpoint of a run is meant: the one that --step names, else the best that
best.json names, else the newest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from wsol_dist.errors import UserError
from wsol_dist.files import sha256_of
from wsol_dist.options import Overrides, Switch
from wsol_dist.processes.environment import is_first_rank
from wsol_dist.recipe import Config, from_dict, load, override, overrides_help, read_yaml, recipe_names
from wsol_dist.runs import checkpoint
from wsol_dist.runs.run_state import BEST_FILE, CONFIG_FILE, read_best

MODEL_FILE, SUMS_FILE = "model.json", "SHA256SUMS"
"""Of an exported model, beside its weights and configuration."""
MODEL_SCHEMA = 1
MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """Which checkpoint of a run."""

    step: str | None = None
    """Checkpoint of RUN: a number, best or last; by default the best known, else the newest."""
    trust_code: Switch = False
    """Import a method that the configuration names as module:Class."""


@dataclass(frozen=True, kw_only=True)
class WeightsOptions(StepOptions):
    """Which weights of a target: what `open_run` takes."""

    init: Path | None = None
    """Other weights than the target's: a file, or a run folder."""

    @property
    def weights(self) -> dict[str, Any]:
        """As `open_run` takes them."""
        return {"step": self.step, "init": self.init, "trust_code": self.trust_code or None}


@dataclass(frozen=True, kw_only=True)
class TargetOptions(WeightsOptions):
    """What every command takes that opens a run or a recipe."""

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|RECIPE")]
    """Run folder, one checkpoint of it, folder of wsol export, name of a recipe, or .yaml file."""
    overrides: Overrides = ()

    @classmethod
    def epilog(cls) -> str:
        """What the help ends with."""
        return overrides_help("RUN or RECIPE")

    def open(self) -> OpenedRun:
        """The configuration and the weights of the target."""
        return open_run(self.target, overrides=self.overrides, **self.weights)


@dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """A configuration with the weights that go with it, which are not read yet; picklable."""

    config: Config
    weights: Path | None = None
    """None: those that the recipe itself names."""
    step: int = 0
    """At which the weights were written; 0 where that is not known."""
    name: str = "the recipe's own weights"
    """What the weights are called in logs and records: `step-00000030`."""
    chosen: str = "weights: as the recipe itself names them"
    """One line: which weights, and why these."""
    folder: Path | None = None
    """The run folder; None for a recipe or an exported model."""
    whole: bool = False
    """The weights hold every tensor of the method."""


def open_run(
    target: str | Path,
    *,
    step: str | None = None,
    init: Path | None = None,
    overrides: Sequence[str] = (),
    trust_code: bool | None = None,
) -> OpenedRun:
    """Find the configuration and the weights of a target.

    Args:
        target: a run folder, one checkpoint (its folder or weight file), a folder that `wsol export` wrote or its
            weight file, or a recipe (its name or a .yaml file).
        step: checkpoint of a run folder: a number, `best` or `last`; None for the best that is known, else the newest.
        init: weights to take instead of the target's own, as `find_weights` takes them.
        overrides: command-line arguments over the configuration.
        trust_code: allow the configuration of a folder to name a method `module:Class`, which is imported; None allows
            it to a run folder, which is the user's own, and not to a model without one, which may be anybody's.

    Raises:
        UserError: there is no such target, checkpoint or file, or it is damaged.
    """
    folder = folder_of(target)
    config = read_target(target, overrides, trust_code=trust_code)
    is_run = (folder / CONFIG_FILE).is_file() and not (folder / checkpoint.WEIGHTS).is_file()
    if step is not None and (not is_run or init is not None):
        raise UserError(
            "--step: chooses a checkpoint of a RUN; it goes with neither a recipe, a model, a checkpoint nor --init"
        )
    if init is not None:
        weights = find_weights(init)
        run = folder if is_run else None
        return OpenedRun(
            config=config, weights=weights, name=init.name, chosen=f"weights: {weights}", folder=run
        )
    if is_run:
        path, chosen = choose_checkpoint(folder, step)
        return _open_checkpoint(config, checkpoint.evaluated_weights(path), run=folder, chosen=chosen)
    if is_exported(folder):
        return _open_exported(config, folder)
    if not (folder / checkpoint.WEIGHTS).is_file():
        return OpenedRun(config=config)
    weights = Path(target) if folder != Path(target) else checkpoint.evaluated_weights(folder)
    return _open_checkpoint(config, weights, run=run_around(folder), chosen=f"weights: {weights}")


def _open_checkpoint(config: Config, weights: Path, *, run: Path | None, chosen: str) -> OpenedRun:
    place = weights.parent.absolute()
    averaged = " (averaged weights, train.ema)" if weights.name == checkpoint.EMA_WEIGHTS else ""
    return OpenedRun(
        config=config,
        weights=weights,
        step=checkpoint.step_of(place) if checkpoint.is_checkpoint(place) else 0,
        name=f"{place.name}{averaged}",
        chosen=chosen,
        folder=run,
        whole=True,
    )


def _open_exported(config: Config, folder: Path) -> OpenedRun:
    weights = folder / checkpoint.WEIGHTS
    return OpenedRun(
        config=config,
        weights=weights,
        step=read_about(folder)["step"],
        name=folder.resolve().name,
        chosen=f"weights: {weights}",
        whole=True,
    )


def folder_of(target: str | Path) -> Path:
    """The folder that a target is, or that a weight file lies in.

    Raises:
        UserError: a weight file that is not there.
    """
    path = Path(target)
    if path.name not in (checkpoint.WEIGHTS, checkpoint.EMA_WEIGHTS):
        return path
    if not path.is_file():
        raise UserError(f"{path}: there is no such weight file")
    return path.parent


def run_around(folder: Path) -> Path | None:
    """The run folder that a checkpoint's folder lies in; None for one that was moved out of it."""
    run = folder.absolute().parent.parent
    inside = folder.absolute().parent == run / checkpoint.FOLDER and checkpoint.is_checkpoint(
        folder.absolute()
    )
    return run if inside and (run / CONFIG_FILE).is_file() else None


def print_chosen(opened: OpenedRun) -> None:
    """Print which weights were chosen, on the first rank."""
    if is_first_rank():
        print(opened.chosen, flush=True)


def read_target(
    target: str | Path, overrides: Sequence[str] = (), *, trust_code: bool | None = None
) -> Config:
    """The configuration of what `open_run` takes, with command-line arguments applied.

    Raises:
        UserError: it is none of them; a damaged file; the mistakes of the arguments.
    """
    folder = folder_of(target)
    if (folder / CONFIG_FILE).is_file():
        if is_exported(folder):
            check_sums(folder, (checkpoint.WEIGHTS, CONFIG_FILE, MODEL_FILE))
        own = not (folder / checkpoint.WEIGHTS).is_file() or run_around(folder) is not None
        trusted = own and not is_exported(folder) if trust_code is None else trust_code
        config = read_config(folder / CONFIG_FILE, trust_code=trusted)
        return override(config, overrides, prog=f"wsol ... {target}")
    if folder.is_dir():
        raise UserError(
            f"{target}: no {CONFIG_FILE} in it: no run folder; recipes: {', '.join(recipe_names())}"
        )
    return load(str(target), overrides)


def is_exported(folder: Path) -> bool:
    """Whether `wsol export` wrote the folder, even if a part of it is missing."""
    return (folder / SUMS_FILE).is_file() or (folder / MODEL_FILE).is_file()


def choose_checkpoint(run: Path, step: str | None) -> tuple[Path, str]:
    """A checkpoint of a run, and one line on which it is.

    Args:
        step: a number, `best` or `last`; None for the best that is known, else the newest.

    Raises:
        UserError: the run has no checkpoint, or not this one.
    """
    steps = {checkpoint.step_of(path): path for path in checkpoint.complete_checkpoints(run)}
    if not steps:
        raise UserError(f"{run}: no complete checkpoint yet; train it, or give weights with --init")
    newest, best = max(steps), read_best(run)
    if step is None:
        if best is not None and int(best["step"]) in steps:
            return steps[best["step"]], f"weights: {steps[best['step']]}, {_why_best(best, newest)}"
        why = f"no {BEST_FILE}" if best is None else f"the best, step {best['step']}, is not there"
        return steps[newest], f"weights: {steps[newest]}, the newest ({why})"
    if step == "best" and best is None:
        raise UserError(f"--step best: {run} has no {BEST_FILE}; wsol evaluate {run} --follow finds the best")
    if step not in ("best", "last") and not step.isdigit():
        raise UserError(f"--step: given {step!r}; allowed: the number of a step, best or last")
    named = {"last": newest} | ({} if best is None else {"best": int(best["step"])})
    number = int(step) if step.isdigit() else named[step]
    if number not in steps:
        raise UserError(f"--step: {run} has no checkpoint {number}; it has {', '.join(map(str, steps))}")
    return steps[number], f"weights: {steps[number]} (--step {step})"


def _why_best(best: dict[str, Any], newest: int) -> str:
    by = f" by {best['metric']} on {best['split']}" if {"metric", "split"} <= best.keys() else ""
    other = f"; --step last for {newest}" if newest != best["step"] else ""
    return f"the best{by} ({BEST_FILE}){other}"


def find_weights(path: Path, *, step: str | None = None) -> Path:
    """The weight file of a file, a checkpoint folder, an exported model or a run folder.

    Args:
        step: of a run folder, as `choose_checkpoint` takes it.

    Raises:
        UserError: there is none, or it is not the file that was exported.
    """
    if path.is_file():
        return path
    if is_exported(path):
        check_sums(path, (checkpoint.WEIGHTS,))
    if (path / checkpoint.WEIGHTS).is_file():
        return checkpoint.evaluated_weights(path)
    if not path.is_dir() or not checkpoint.complete_checkpoints(path):
        raise UserError(f"{path}: neither a weight file nor a run folder with a checkpoint in it")
    return checkpoint.evaluated_weights(choose_checkpoint(path, step)[0])


def read_config(path: Path, *, trust_code: bool) -> Config:
    """The configuration in a run folder or an exported model; without the runs before it where it is not trusted.

    Raises:
        UserError: no plain YAML, unknown keys, or a method that is not registered.
    """
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise UserError(
            f"{path}: {path.stat().st_size} bytes, a configuration has at most {MAX_CONFIG_BYTES}"
        )
    try:
        raw = read_yaml(path)
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply; this is no configuration") from error
    if not trust_code:
        raw.pop("before", None)
    method = raw.get("method")
    name = str(method.get("name")) if isinstance(method, dict) else ""
    if ":" in name and not trust_code:
        raise UserError(
            f"{path}: method.name: {name!r} would import code that the registry does not know; if you trust where this "
            "model comes from, say --trust-code (load(..., trust_code=True))"
        )
    return from_dict(raw, origin=str(path))


def check_sums(folder: Path, needed: tuple[str, ...]) -> None:
    """Hold files against SHA256SUMS, which lists `<sha256>  <name>`.

    Raises:
        UserError: a needed file is not listed, is missing, or is another.
    """
    path = folder / SUMS_FILE
    if not path.is_file():
        raise UserError(f"{path}: missing; copy the model again")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        sums = {name.lstrip(" *"): sum_ for sum_, _, name in (line.partition(" ") for line in lines if line)}
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no list of checksums ({error.reason}); export the model again") from error
    for name in needed:
        if name not in sums:
            raise UserError(f"{path}: does not list {name}; export the model again")
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: missing; copy the model again")
        if sha256_of(folder / name) != sums[name]:
            raise UserError(
                f"{folder / name}: not the file that was exported ({SUMS_FILE} has another sha256): damaged or "
                "changed; copy the model again"
            )


def read_about(model: Path) -> dict[str, Any]:
    """What an exported model says of itself: `step` and `threshold`.

    Raises:
        UserError: it is not what `wsol export` writes.
    """
    path = model / MODEL_FILE
    try:
        about = json.loads(path.read_bytes())
        value, source = about["threshold"]["value"], about["threshold"]["source"]
        right = about["schema"] == MODEL_SCHEMA and type(about["step"]) is int and 0 <= float(value) < 1
        right &= source in ("fixed", "val", "oracle") and isinstance(about["threshold"]["from"], str | None)
    except (ValueError, KeyError, TypeError, RecursionError):
        right = False
    if not right:
        raise UserError(
            f"{path}: not the model.json of schema {MODEL_SCHEMA} that wsol export writes; export again"
        )
    return about

"""A training run: stream -> loss -> engine -> log -> checkpoint. The same code for one process and for hundreds."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from wsol_dist.data.images.broken import BrokenImages, name_some
from wsol_dist.data.images.transforms import normalise
from wsol_dist.data.shards.columns import Column
from wsol_dist.data.shards.index import Index
from wsol_dist.data.shards.label_maps import LabelMaps
from wsol_dist.data.stream.order import steps_per_epoch
from wsol_dist.data.stream.stream import TrainingBatch, TrainingOrder, training_batches
from wsol_dist.errors import UserError
from wsol_dist.log.track import Track
from wsol_dist.methods.base import Method
from wsol_dist.models.weights import load_checked, read_state
from wsol_dist.processes.ranks import Ranks
from wsol_dist.processes.stop import Stop
from wsol_dist.processes.watchdog import Watchdog
from wsol_dist.recipe import Config, dump, to_dict
from wsol_dist.runs import checkpoint
from wsol_dist.runs.model import build_method, initialise
from wsol_dist.runs.run_state import mark_finished
from wsol_dist.training.meter import Meter
from wsol_dist.training.stages import take_before
from wsol_dist.training.zero import ZeroEngine


class Validation(Protocol):
    """Scores the held-out split behind a checkpoint; every rank calls both."""

    def __call__(self, evaluated: AbstractContextManager[Method], step: int, track: Track) -> None:
        """Score the method as the checkpoint of this step has it (to be entered)."""

    def scored(self, step: int) -> bool:
        """Whether the checkpoint of this step was scored."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps:
    """How long training is, in optimizer steps."""

    per_epoch: int
    total: int
    per_checkpoint: int
    per_validation: int
    """0: the held-out split is not scored inside training."""

    @classmethod
    def of(cls, config: Config, num_samples: int) -> Steps:
        """Epochs of the recipe -> steps on these shards."""
        per_epoch = steps_per_epoch(num_samples, config.train.global_batch)
        return cls(
            per_epoch=per_epoch,
            total=max(1, round(config.train.epochs * per_epoch)),
            per_checkpoint=max(1, round(config.train.checkpoint_every_epochs * per_epoch)),
            per_validation=max(1, round(config.val.every_epochs * per_epoch))
            if config.val.every_epochs
            else 0,
        )


class Trainer:
    """One rank of a run. `run()` starts, or goes on from the run folder's newest checkpoint."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        index: Index,
        ranks: Ranks,
        *,
        validation: Validation | None = None,
        stop: Stop | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.config, self.folder, self.index, self.ranks = config, folder, index, ranks
        self.validation, self.stop = validation, stop or Stop()
        self.watchdog = watchdog or Watchdog(folder, ranks, timeout_s=0)
        num_samples = index.splits[config.data.train_split].num_samples
        self.steps = Steps.of(config, num_samples)
        self.broken = BrokenImages(
            num_samples=num_samples, max_bad=config.data.max_bad, option="data.max_bad"
        )
        self.newly_broken: set[str] = set()
        torch.manual_seed(config.seed)
        resumed = checkpoint.complete_checkpoints(folder)[-1:]
        method = build_method(
            config, num_classes=len(index.classes), classes=index.classes, read_files=not resumed
        )
        state = self._check_state(resumed[0]) if resumed else None
        self.notes = self._continue_from(resumed[0], method) if resumed else self._begin(method)
        if config.data.embeddings:
            made = Column.open(Path(config.data.embeddings), index).about.settings
            self.notes.append(f"embeddings of {made['embedded']}s: {made['encoder']}, {made['dim']}-d")
        if config.data.targets:
            targets = LabelMaps.open(config.data.targets, index, config.data.train_split)
            self.notes.append(f"label maps of {config.data.targets}: {targets.made_by}")
        self.engine = ZeroEngine(method, config.train, ranks, steps_per_epoch=self.steps.per_epoch)
        self.first_step, self.state = 0, state
        if state is not None:
            self.engine.load(resumed[0], world=state.world)
            self.first_step = state.position // config.train.global_batch

    @property
    def method(self) -> Method:
        """The network in training; `engine.evaluated()` gives the one to localize with."""
        return self.engine.method

    def run(self) -> bool:
        """Train to the end; or, where some rank hears that it should stop, to the end of a step: then False.

        Either way the checkpoint of the last step is there when it returns.
        """
        unscored = self._is_unscored()
        if self.first_step >= self.steps.total and not unscored:
            if self.ranks.is_main:
                print(f"{self.folder}: has all {self.steps.total} steps, nothing to train")
                mark_finished(self.folder, self.steps.total)
            return True
        with Track.open(
            self.folder,
            self.config.track,
            job="train",
            resolved=to_dict(self.config),
            total_steps=self.steps.total,
            enabled=self.ranks.is_main,
        ) as track:
            for note in self.notes:
                track.line(note)
            if unscored:
                self._validate(self.first_step, track)
            through = self._train(track)
        if through and self.ranks.is_main:
            mark_finished(self.folder, self.steps.total)
        return through

    def _is_unscored(self) -> bool:
        """Whether training stopped between a checkpoint and the scoring that belongs to it."""
        step, every = self.first_step, self.steps.per_validation
        due = step > 0 and every > 0 and (step == self.steps.total or step % every == 0)
        return due and self.validation is not None and not self.validation.scored(step)

    def _validate(self, step: int, track: Track) -> None:
        if self.validation:
            with self.watchdog.paused(), self.stop.nothing_to_save():
                self.validation(self.engine.evaluated(), step, track)

    def _train(self, track: Track) -> bool:
        """Every step there is to do; False where it was stopped."""
        batches = self._batches()
        meter = Meter(self.ranks, global_batch=self.config.train.global_batch)
        if self.state is not None:
            meter.carry(self.state)
        asked_to_stop = self.stop.ask(self.ranks)
        for step in range(self.first_step, self.steps.total):
            losses = self.engine.step(step, self._micro_batches(batches, meter, track), seed=self.config.seed)
            done = step + 1
            self.stop.saves = True
            self.watchdog.beat(done)
            meter.count(losses)
            track.advance(done)
            last = done == self.steps.total
            heard = asked_to_stop()
            validate = self.steps.per_validation > 0 and (last or done % self.steps.per_validation == 0)
            save = last or validate or done % self.steps.per_checkpoint == 0
            if save or done % self.config.track.log_every_steps == 0:
                row = meter.scalars(lr=self.engine.lr, epoch=done / self.steps.per_epoch)
                self._count_broken(track)
                row |= {"data/broken_images": len(self.broken.ids)} if self.broken.ids else {}
                track.log(row, step=done)
                self._check_finite(row["train/loss"], done)
            if save:
                with checkpoint.writing(self.folder, done):
                    self.save(done)
            if heard and not last:
                if not save:
                    self._save_between(done, meter)
                track.line(f"{heard}: stops after step {done}, its checkpoint is written")
                return False
            if validate:
                self._validate(done, track)
                # Its time is not training's.
                meter = Meter(self.ranks, global_batch=self.config.train.global_batch)
            if not last:  # an answer that nobody takes would be on its way while the process group ends
                asked_to_stop = self.stop.ask(self.ranks)
        self.stop.saves = False
        return True

    def _save_between(self, step: int, meter: Meter) -> None:
        """A checkpoint at a step that has no log row, perhaps: what it would count goes along to the next."""
        steps, losses = meter.unlogged()
        if steps:
            self._check_finite(meter.means()["loss"], step)
        with checkpoint.writing(self.folder, step):
            self.save(step, unlogged_steps=steps, unlogged_losses=losses if steps else [])

    def _check_finite(self, loss: float, step: int) -> None:
        """End a diverged run before its weights replace a good checkpoint; the loss is the same on all ranks."""
        if not math.isfinite(loss):
            whole = checkpoint.complete_checkpoints(self.folder)[-1:]
            kept = f"the last whole checkpoint is {whole[0].name}" if whole else "there is no checkpoint yet"
            raise UserError(
                f"training diverged: the loss is {loss} at step {step}; {kept}; "
                "lower --train.lr, or bound the gradient with --train.clip 1"
            )

    def _batches(self) -> Iterator[TrainingBatch]:
        rows = self.index.rows(self.config.data.train_split)
        order = TrainingOrder(
            shard_of_row=rows.shard,
            label_of_row=rows.label,
            data=self.config.data,
            seed=self.config.seed,
            global_batch=self.config.train.global_batch,
            accumulation=self.config.train.accumulation,
            rank=self.ranks.rank,
            world=self.ranks.world,
            first_step=self.first_step,
            last_step=self.steps.total,
        )
        return iter(
            training_batches(self.index, self.config.data, order=order, image_px=self.method.image_px)
        )

    def _micro_batches(
        self, batches: Iterator[TrainingBatch], meter: Meter, track: Track
    ) -> Iterator[tuple[Tensor, ...]]:
        for _ in range(self.config.train.accumulation):
            with meter.waiting():
                batch = next(batches)
            self.newly_broken.update(batch.broken)
            image_BCHW = batch.image_BCHW.to(self.ranks.device, non_blocking=True)
            beside = (batch.label_B, batch.embedding_BE, batch.target_BHW)
            moved = [one.to(self.ranks.device, non_blocking=True) for one in beside if one is not None]
            yield normalise(image_BCHW, self.method.mean, self.method.std), *moved

    def _count_broken(self, track: Track) -> None:
        """Name what did not decode on any rank since the last log row; where it is too much, all ranks end together."""
        found = self.ranks.gather(sorted(self.newly_broken - set(self.broken.ids)))
        new = self.broken.add(one for ids in found for one in ids)
        self.newly_broken.clear()
        if new:
            what = "image does" if len(new) == 1 else "images do"
            track.alert(f"{len(new)} {what} not decode", f"the next one stands in for each: {name_some(new)}")
        self.broken.check(f"run `wsol shards verify --deep {self.index.place}`")

    def save(
        self, step: int, *, unlogged_steps: int = 0, unlogged_losses: list[dict[str, float]] | None = None
    ) -> None:
        """Write a whole checkpoint; all ranks call it. What is unlogged is `Meter.unlogged`'s."""
        if self.ranks.is_main:
            checkpoint.begin(self.folder, step)
        self.ranks.barrier()
        checkpoint.sync(self.engine.save(checkpoint.unfinished_folder(self.folder, step)))
        weights = self.engine.whole_state()
        self.ranks.barrier()
        if self.ranks.is_main:
            state = checkpoint.TrainState(
                step=step,
                position=step * self.config.train.global_batch,
                world=self.ranks.world,
                index_sha256=self.index.sha256,
                unlogged_steps=unlogged_steps,
                unlogged_losses=unlogged_losses or [],
            )
            metadata = {
                "method": self.config.method_name,
                "classes": json.dumps(self.index.classes),
                "trained": json.dumps(sorted(self.method.trained_keys())),
            }
            checkpoint.finish(
                self.folder,
                state,
                weights,
                config_yaml=dump(self.config),
                metadata=metadata,
                ema=self.engine.ema_state(),
            )
            checkpoint.prune(self.folder, self.config.train.keep_checkpoints)
        self.ranks.barrier()

    def _check_state(self, folder: Path) -> checkpoint.TrainState:
        """Where the checkpoint stands, if it is one of these very data."""
        state = checkpoint.read_state(folder)
        if state.index_sha256 != self.index.sha256:
            raise UserError(
                f"{folder}: trained on other shards than those in {self.index.place} now (the index differs); "
                "give the shards it started with as --data.index, or choose another --out"
            )
        return state

    def _begin(self, method: Method) -> list[str]:
        """Give the method its first weights: of the runs before this one, then those of `train.init`."""
        return [*take_before(method, self.config, self.folder), *initialise(method, self.config)]

    def _continue_from(self, folder: Path, method: Method) -> list[str]:
        """Give the method the checkpoint's weights, before the engine shares them out; a line each to be logged."""
        load_checked(method, read_state(folder / checkpoint.WEIGHTS), source=str(folder / checkpoint.WEIGHTS))
        state = checkpoint.read_state(folder)
        ranks = f", written by {state.world} ranks and continued by {self.ranks.world}"
        return [f"continues after step {state.step}{ranks if state.world != self.ranks.world else ''}"]

"""A training run: stream -> loss -> engine -> log -> checkpoint. The same code for one process and for hundreds."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from wsol_dist.config import Config, dump, to_dict
from wsol_dist.data.index import Index
from wsol_dist.data.order import steps_per_epoch
from wsol_dist.data.stream import TrainingBatch, TrainingOrder, training_batches
from wsol_dist.data.transforms import normalise
from wsol_dist.engine import checkpoint
from wsol_dist.engine.zero import ZeroEngine
from wsol_dist.errors import UserError
from wsol_dist.methods.base import Method
from wsol_dist.model import build_method, initialise
from wsol_dist.ranks import Ranks
from wsol_dist.report.track import Track
from wsol_dist.trainer.meter import Meter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps:
    """How long training is, in optimizer steps."""

    per_epoch: int
    total: int
    per_checkpoint: int

    @classmethod
    def of(cls, config: Config, num_samples: int) -> Steps:
        """Epochs of the recipe -> steps on these shards."""
        per_epoch = steps_per_epoch(num_samples, config.train.global_batch)
        return cls(
            per_epoch=per_epoch,
            total=max(1, round(config.train.epochs * per_epoch)),
            per_checkpoint=max(1, round(config.train.checkpoint_every_epochs * per_epoch)),
        )


class Trainer:
    """One rank of a run. `run()` starts, or goes on from the run folder's newest checkpoint."""

    def __init__(self, config: Config, folder: Path, index: Index, ranks: Ranks) -> None:
        self.config, self.folder, self.index, self.ranks = config, folder, index, ranks
        num_samples = index.splits[config.data.train_split].num_samples
        self.steps = Steps.of(config, num_samples)
        self.max_broken = max(1, int(config.data.max_bad * num_samples / ranks.world))
        self.broken: set[str] = set()
        torch.manual_seed(config.seed)
        resumed = checkpoint.complete_checkpoints(folder)[-1:]
        method = build_method(config, num_classes=len(index.classes), read_files=not resumed)
        notes = [] if resumed else initialise(method, config)
        self.engine = ZeroEngine(method, config.train, ranks, steps_per_epoch=self.steps.per_epoch)
        self.first_step = self._resume(resumed[0]) if resumed else 0
        self.notes = [*notes, f"continues after step {self.first_step}"] if resumed else notes

    @property
    def method(self) -> Method:
        """The network in training."""
        return self.engine.method

    def run(self) -> None:
        """Train to the end; a checkpoint is there when it returns."""
        if self.first_step >= self.steps.total:
            if self.ranks.is_main:
                print(f"{self.folder}: has all {self.steps.total} steps, nothing to train")
            return
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
            self._train(track)

    def _train(self, track: Track) -> None:
        batches = self._batches()
        meter = Meter(self.ranks, global_batch=self.config.train.global_batch)
        for step in range(self.first_step, self.steps.total):
            losses = self.engine.step(step, self._micro_batches(batches, meter, track), seed=self.config.seed)
            done = step + 1
            meter.count(losses)
            track.advance(done)
            last = done == self.steps.total
            save = last or done % self.steps.per_checkpoint == 0
            if save or done % self.config.track.log_every_steps == 0:
                row = meter.scalars(lr=self.engine.lr, epoch=done / self.steps.per_epoch)
                track.log(row, step=done)
                self._check_finite(row["train/loss"], done)
            if save:
                self.save(done)

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
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.config.train.accumulation):
            with meter.waiting():
                batch = next(batches)
            self._count_broken(batch.broken, track)
            image_BCHW = batch.image_BCHW.to(self.ranks.device, non_blocking=True)
            label_B = batch.label_B.to(self.ranks.device, non_blocking=True)
            yield normalise(image_BCHW, self.method.mean, self.method.std), label_B

    def _count_broken(self, ids: list[str], track: Track) -> None:
        for one in set(ids) - self.broken:
            self.broken.add(one)
            say = track.line if self.ranks.is_main else print  # only rank 0 has a log
            say(
                f"image does not decode, the next one stands in for it: {one} ({len(self.broken)} on this rank)"
            )
        if len(self.broken) > self.max_broken:
            raise UserError(
                f"{len(self.broken)} images do not decode, data.max_bad allows {self.max_broken} on each rank: "
                f"{', '.join(sorted(self.broken)[:10])}; run shards/verify.py --deep, or raise data.max_bad"
            )

    def save(self, step: int) -> None:
        """Write a whole checkpoint; all ranks call it."""
        if self.ranks.is_main:
            checkpoint.begin(self.folder, step)
        self.ranks.barrier()
        self.engine.save(checkpoint.unfinished_folder(self.folder, step))
        self.ranks.barrier()
        if self.ranks.is_main:
            state = checkpoint.TrainState(
                step=step,
                position=step * self.config.train.global_batch,
                world=self.ranks.world,
                index_sha256=self.index.sha256,
            )
            metadata = {
                "method": self.config.method_name,
                "classes": json.dumps(self.index.classes),
                "trained": json.dumps(sorted(self.method.trained_keys())),
            }
            checkpoint.finish(
                self.folder, state, self.method.state_dict(), config_yaml=dump(self.config), metadata=metadata
            )
            checkpoint.prune(self.folder, self.config.train.keep_checkpoints)
        self.ranks.barrier()

    def _resume(self, folder: Path) -> int:
        state = checkpoint.read_state(folder)
        if state.world != self.ranks.world:
            raise UserError(
                f"{folder}: written by {state.world} ranks, this run has {self.ranks.world}; "
                f"start it with {state.world}"
            )
        if state.index_sha256 != self.index.sha256:
            raise UserError(
                f"{folder}: trained on other shards than those in {self.index.folder} now (the index differs); "
                "give the shards it started with as --data.index, or choose another --out"
            )
        self.engine.load(folder)
        return state.position // self.config.train.global_batch

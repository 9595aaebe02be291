"""ZeRO stages on two gloo ranks: equal losses, what each rank holds, evaluation, averages, precision, compilation."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.dist.runs import METHODS, alone, losses, tiny, train
from tests.e2e.faults.table import fault
from tests.pool import RankPool
from wsol_dist.data.shards.index import Index
from wsol_dist.errors import UserError
from wsol_dist.models.weights import load_checked, read_state
from wsol_dist.processes.ranks import Ranks
from wsol_dist.recipe import Config
from wsol_dist.runs import checkpoint
from wsol_dist.runs.model import build_method
from wsol_dist.runs.opening import find_weights
from wsol_dist.training.preflight import check_network
from wsol_dist.training.trainer import Trainer
from wsol_dist.training.zero import ZeroEngine, check_device

NUM_CLASSES = 8


def engine_of(own: Ranks, config: Config) -> ZeroEngine:
    torch.manual_seed(0)
    method = build_method(config, num_classes=NUM_CLASSES)
    return ZeroEngine(method, config.train, own, steps_per_epoch=6)


def batch_of(own: Ranks, step: int, *, image_px: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 * step + own.rank)
    image_BCHW = torch.rand(4, 3, image_px, image_px, generator=generator)
    return image_BCHW, torch.randint(NUM_CLASSES, (4,), generator=generator)


@pytest.mark.parametrize("method", ["molt", "spare"])
def test_all_stages_give_the_same_losses(
    rank_pool: RankPool, tiny_shards: Path, tmp_path: Path, method: str
) -> None:
    curves = []
    # Without drop-path: micro-batches draw other random numbers than one batch does.
    for number, knobs in enumerate([{"zero": zero} for zero in range(4)] + [{"zero": 3, "accumulation": 2}]):
        rank_pool.run(train, tiny(tiny_shards, method, drop_path=0.0, **knobs), tmp_path / str(number))
        curves.append(np.array(list(losses(tmp_path / str(number)).values())))
    for curve in curves[1:4]:
        assert curve == pytest.approx(curves[0], abs=1e-5)
    assert curves[4] == pytest.approx(curves[0], abs=1e-4)
    assert np.ptp(curves[0]) > 0.05  # it does train


def test_bf16_computes_in_bf16_and_keeps_float32(
    rank_pool: RankPool, tiny_shards: Path, tmp_path: Path
) -> None:
    curves = []
    for zero, precision in [(0, "fp32"), *itertools.product((0, 2, 3), ["bf16"])]:
        folder = tmp_path / f"{zero}{precision}"
        config = tiny(tiny_shards, drop_path=0.0, zero=zero, precision=precision)
        rank_pool.run(train, config, folder)
        curves.append(np.array(list(losses(folder).values())))
        weights = read_state(checkpoint.complete_checkpoints(folder)[-1] / checkpoint.WEIGHTS)
        assert {value.dtype for value in weights.values()} == {torch.float32}
    assert curves[1] == pytest.approx(curves[0], abs=0.05)
    assert np.abs(curves[1] - curves[0]).max() > 1e-4
    for curve in curves[2:]:
        assert curve == pytest.approx(curves[1], abs=1e-5)


def held(own: Ranks, shards: Path, zero: int) -> tuple[dict[str, int], dict[str, int], int]:
    """What a rank holds after the backward of the first of two micro-batches, and after the step; parameters in all."""
    # Wide enough that few parameters are so small that ZeRO 3 keeps them whole.
    backbone = METHODS["molt"]["backbone"] | {"width": 384, "heads": 6}
    METHODS["wide"] = METHODS["molt"] | {"backbone": backbone}
    engine = engine_of(own, tiny(shards, "wide", zero=zero, accumulation=2))
    seen: list[dict[str, int]] = []
    deepspeed_step = engine.engine.step

    def look_and_step() -> None:
        seen.append(engine.held_elements())
        deepspeed_step()

    engine.engine.step = look_and_step
    engine.step(0, [batch_of(own, 0), batch_of(own, 1)], seed=0)
    total = sum(value.numel() for value in engine.whole_state().values())
    return seen[0], engine.held_elements(), total


@pytest.mark.parametrize(
    ("zero", "share"),
    [
        (0, {"optimizer": 1, "gradients": 1, "parameters": 1}),
        (1, {"optimizer": 1 / 2, "gradients": 1, "parameters": 1}),
        (2, {"optimizer": 1 / 2, "gradients": 1 / 2, "parameters": 1}),
        (3, {"optimizer": 1 / 2, "gradients": 1 / 2, "parameters": 1 / 2}),
    ],
)
def test_each_rank_holds_its_share(
    rank_pool: RankPool, tiny_shards: Path, zero: int, share: dict[str, float]
) -> None:
    for between, after, total in rank_pool.run(held, tiny_shards, zero):
        assert after["parameters"] == pytest.approx(total * share["parameters"], rel=0.03)
        assert after["optimizer"] == pytest.approx(2 * total * share["optimizer"], rel=0.01)
        # A parameter that lies across the border of two ranks counts whole until the step.
        assert between["gradients"] == pytest.approx(total * share["gradients"], rel=0.1)
        assert after["gradients"] == 0


def localized(own: Ranks, shards: Path, folder: Path) -> tuple[Tensor, Tensor]:
    """A rank's maps from an engine in training: one rank localizes more often than the other, and training goes on."""
    engine = engine_of(own, tiny(shards, zero=3))
    engine.step(0, [batch_of(own, 0)], seed=0)
    image_BCHW = batch_of(Ranks(), 7)[0]
    with engine.evaluated() as method:
        for _ in range(own.rank + 1):
            map_BKhw = method.localize(image_BCHW).map_BKhw
    state = engine.whole_state()
    if own.is_main:
        checkpoint.save_weights(folder / checkpoint.WEIGHTS, state, metadata={})
    loss = engine.step(1, [batch_of(own, 1)], seed=0)["loss"]
    return map_BKhw, loss


def uninterrupted(own: Ranks, shards: Path) -> Tensor:
    engine = engine_of(own, tiny(shards, zero=3))
    engine.step(0, [batch_of(own, 0)], seed=0)
    return engine.step(1, [batch_of(own, 1)], seed=0)["loss"]


def test_evaluation_within_training_at_stage_3(
    rank_pool: RankPool, tiny_shards: Path, tmp_path: Path
) -> None:
    results = rank_pool.run(localized, tiny_shards, tmp_path)
    method = build_method(tiny(tiny_shards), num_classes=NUM_CLASSES)
    load_checked(method, read_state(tmp_path / checkpoint.WEIGHTS), source="whole weights")
    wanted = method.localize(batch_of(Ranks(), 7)[0]).map_BKhw
    plain = rank_pool.run(uninterrupted, tiny_shards)
    for (map_BKhw, loss), plain_loss in zip(results, plain, strict=True):
        torch.testing.assert_close(map_BKhw, wanted)
        assert torch.equal(loss, plain_loss)


def averaged(own: Ranks, shards: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The engine's average after three steps, what evaluation reads, and the average written out."""
    decay = 0.75
    engine = engine_of(own, tiny(shards, "spare", zero=2, ema=decay))
    by_hand: dict[str, Tensor] = {}
    for step in range(3):
        engine.step(step, [batch_of(own, step)], seed=0)
        for name, value in engine.whole_state().items():
            before = by_hand.get(name, value)
            whole = not value.is_floating_point()
            by_hand[name] = value.clone() if whole else decay * before + (1 - decay) * value
    own_average = {name: value.clone() for name, value in (engine.ema_state() or {}).items()}
    with engine.evaluated() as method:
        return own_average, {name: value.clone() for name, value in method.state_dict().items()}, by_hand


def test_the_average_of_the_weights(rank_pool: RankPool, tiny_shards: Path) -> None:
    results = rank_pool.run(averaged, tiny_shards)
    for average, _, by_hand in results:
        assert average.keys() == by_hand.keys()
        for name in average:
            torch.testing.assert_close(average[name], by_hand[name])
    for _, read, _ in results:  # on every rank what rank 0 saves, batch statistics too
        assert all(torch.equal(read[name], results[0][0][name]) for name in read)


def test_evaluation_reads_the_average_where_there_is_one(
    rank_pool: RankPool, tiny_shards: Path, tmp_path: Path
) -> None:
    for name, ema in (("with", 0.9), ("without", 0.0)):
        rank_pool.run(train, tiny(tiny_shards, ema=ema, epochs=0.4), tmp_path / name)
    assert find_weights(tmp_path / "with").name == checkpoint.EMA_WEIGHTS
    assert find_weights(tmp_path / "without").name == checkpoint.WEIGHTS
    newest = checkpoint.complete_checkpoints(tmp_path / "with")[-1]
    average, weights = (read_state(newest / name) for name in (checkpoint.EMA_WEIGHTS, checkpoint.WEIGHTS))
    assert average.keys() == weights.keys()
    assert any(not torch.equal(average[name], weights[name]) for name in weights)
    assert checkpoint.weights_metadata(newest / checkpoint.EMA_WEIGHTS)["method"] == "molt"


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"zero": 3, "ema": 0.9}, "train: ema 0.9 goes with zero 0, 1 and 2, not with 3"),
        ({"ema": 1.0}, "train.ema: given 1.0; allowed: from 0 to below 1"),
        ({"zero": 4}, "train.zero: given 4"),
        ({"precision": "fp16"}, "train.precision: given 'fp16'"),
        (
            {"zero": 1, "optimizer": "lamb"},
            "lamb is none of those that step each element by itself, and ZeRO 1 cuts .* --train.zero 0",
        ),
        ({"zero": 1, "optimizer": "adafactor"}, "adafactor is none of those"),
        ({"zero": 3, "optimizer": "adan"}, "adan counts steps .* --train.zero 2"),
        ({"zero": 1, "optimizer": "adahessian"}, "adahessian is none of those"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    tiny_shards: Path, knobs: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as mistake:
        check_network(tiny(tiny_shards, **knobs), Index.load(tiny_shards))
    assert "\n" not in str(mistake.value)


def test_a_missing_compiler_is_one_line(tiny_shards: Path) -> None:
    from torch._inductor import config as inductor

    with inductor.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(UserError) as mistake:
        check_device(tiny(tiny_shards, compile=True).train, torch.device("cpu"))
    row = fault("no compiler, train.compile")
    assert row.pattern(tiny_shards).fullmatch(str(mistake.value)), mistake.value


@pytest.mark.slow
@pytest.mark.timeout(900)  # g++ compiles some dozens of kernels
@pytest.mark.parametrize("zero", [1, 3])
def test_a_compiled_run_trains_alike(tiny_shards: Path, tmp_path: Path, zero: int) -> None:
    for name, knobs in (("eager", {}), ("compiled", {"compile": True, "zero": zero})):
        config = tiny(tiny_shards, "short", drop_path=0.0, epochs=0.5, **knobs)
        train(alone(), config, tmp_path / name)
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), abs=1e-4)
    states = [read_state(find_weights(tmp_path / name)) for name in ("eager", "compiled")]
    assert states[0].keys() == states[1].keys()
    trainer = Trainer(config, tmp_path / "compiled", Index.load(tiny_shards), alone())
    method = build_method(config, num_classes=NUM_CLASSES)
    load_checked(method, states[1], source="whole weights")
    image_BCHW = batch_of(Ranks(), 7)[0]
    with trainer.engine.evaluated() as own:
        torch.testing.assert_close(own.localize(image_BCHW).map_BKhw, method.localize(image_BCHW).map_BKhw)

"""Compiled code is loaded late, kept on disk where it can be, and does without where numba does not work."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest

from tests.forkserver import FRESH
from tests.unit.score_maps import make_gray
from wsol_dist.config.evaluate import EvaluateConfig
from wsol_dist.metrics.base import Scored
from wsol_dist.metrics.registry import make_metrics
from wsol_dist.regions import boxes, compiled

PRINT_BOXES = """
import sys
from tests.unit.score_maps import make_gray
from wsol_dist.regions.boxes import boxes_at_levels
gray = make_gray("frames", (40, 30), 4, 7)
found = boxes_at_levels(gray, clamp=True, no_contour=(0, 0, 0, 0), every=True)
print("components" if "wsol_dist.regions.components" in sys.modules else "contours")
print(found.largest_L4.tolist())
"""


def output_of(code: str, **env: str) -> tuple[str, str]:
    command = [FRESH, "-c", code]  # numba reads its variables when it is imported
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def scored(seed: int) -> Scored:
    rng = np.random.default_rng(seed)
    return Scored(
        id=str(seed),
        label=1,
        prob_C=rng.random(8).astype(np.float32),
        map_hw=rng.standard_normal((9, 9)).astype(np.float32),
        size_px=48,
        boxes_xyxy=np.array([[10.0, 5, 60, 70], [3, 3, 20, 30]]),
        box_frame_wh=(80, 90),
        mask=rng.integers(0, 2, (30, 30)).astype(np.uint8),
    )


def test_every_counter_is_the_same_without_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for loaded in (compiled.load, lambda module: None):
        monkeypatch.setattr(boxes, "load", loaded)
        metrics = make_metrics(EvaluateConfig(size_px=48), num_classes=8)
        for metric in metrics:
            for seed in range(4):
                metric.update(scored(seed))
        counts.append([metric.counts for metric in metrics])
    assert all(np.array_equal(*pair) for pair in zip(*counts, strict=True))
    assert compiled.load("wsol_dist.regions.components") is not None


def test_numba_switched_off_traces_contours_and_gives_the_same_boxes() -> None:
    with_numba, _ = output_of(PRINT_BOXES)
    without, warned = output_of(PRINT_BOXES, NUMBA_DISABLE_JIT="1")
    assert (with_numba.split()[0], without.split()[0], warned) == ("components", "contours", "")
    assert with_numba.split()[1:] == without.split()[1:]


def test_a_numba_that_does_not_import_is_warned_of() -> None:
    printed, warned = output_of("import sys; sys.modules['numba'] = None" + PRINT_BOXES)
    assert printed.split()[0] == "contours"
    assert warned.count("numba does not work here") == 1


def test_numba_is_imported_only_when_boxes_are_wanted() -> None:
    code = "import sys, wsol_dist.metrics.registry, wsol_dist.cli as cli; cli.main(['--help']); "
    printed, _ = output_of(code + "print([name for name in sys.modules if name.startswith('numba')])")
    assert printed.splitlines()[-1] == "[]"


@pytest.mark.parametrize("error", [RuntimeError, OSError])
def test_code_that_cannot_be_kept_on_disk_is_compiled_all_the_same(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise error("no locator, or no space left")

    # RuntimeError is raised where no folder can be written, OSError where a write fails.
    where = "CacheImpl.__init__" if error is RuntimeError else "Cache.save_overload"
    monkeypatch.setattr(f"numba.core.caching.{where}", full)

    @compiled.compiled("i8(i8)")
    def next_number(number):
        return number + 1

    assert next_number(41) == 42


def test_a_map_of_another_thread_is_worked_on_in_memory_of_its_own() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from wsol_dist.regions.components import boxes_by_growing

    grays = [make_gray("noise", (60, 60), 5, seed) for seed in range(40)]
    alone = [boxes_by_growing(gray, every=True) for gray in grays]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda gray: boxes_by_growing(gray, every=True), grays))
    for one, other in zip(alone, together, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))

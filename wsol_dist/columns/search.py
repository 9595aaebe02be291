"""Random search over alpha and cluster settings on the held-out split; each trial a file, the end a table."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from wsol_dist.columns.clusters import label_rows
from wsol_dist.data.shards.index import Index
from wsol_dist.data.stream.stream import ShardReader
from wsol_dist.errors import UserError
from wsol_dist.evaluator.evaluate import predicted
from wsol_dist.evaluator.refined import open_labels
from wsol_dist.evaluator.scoring import load_method
from wsol_dist.evaluator.work import Work
from wsol_dist.files import write_atomically
from wsol_dist.metrics.base import Scored
from wsol_dist.metrics.bootstrap import paired_gain
from wsol_dist.metrics.registry import make_metrics
from wsol_dist.metrics.threshold import oracle
from wsol_dist.processes.ranks import Ranks
from wsol_dist.regions.cluster import backend_class
from wsol_dist.regions.config import DICConfig
from wsol_dist.regions.refine import refine

SHOWN = ("gt_known", "max_box_acc_v2", "pxap")
"""Numbers of the table, where the split has them."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched; picklable."""

    work: Work
    """Of one split, the held-out one."""
    out: Path
    num_trials: int
    seed: int
    backends: tuple[str, ...]
    labels: Path | None
    """Label maps that are there; None: every trial clusters anew."""
    num_images: int | None
    size_px: int
    workers: int
    part: tuple[int, int] = (0, 1)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One drawn setting."""

    alpha: float
    backend: str
    """Empty for given label maps, and for no refinement."""
    knobs: dict[str, Any]


def draw(search: Search, number: int) -> Trial:
    """Trial `number`: it depends on the seed and the number only."""
    rng = np.random.default_rng([search.seed, number])
    alpha = round(float(rng.uniform(0.05, 1.0)), 3)
    if search.labels is not None:
        return Trial(alpha=alpha, backend="", knobs={})
    backend = search.backends[int(rng.integers(len(search.backends)))]
    return Trial(alpha=alpha, backend=backend, knobs=_SPACES[backend](rng, search.size_px))


def _log_int(rng: np.random.Generator, low: int, high: int) -> int:
    return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))


def _slic_space(rng: np.random.Generator, size_px: int) -> dict[str, Any]:
    return {"segments": min(_log_int(rng, 10, 200), size_px**2), "compactness": float(_log_int(rng, 1, 40))}


def _faiss_space(rng: np.random.Generator, size_px: int) -> dict[str, Any]:
    return {"clusters": min(_log_int(rng, 3, 64), size_px**2), "position": round(float(rng.uniform(0, 2)), 3)}


def _dic_space(rng: np.random.Generator, size_px: int) -> dict[str, Any]:
    fit_px = min(size_px, 96)
    knobs = {"iterations": _log_int(rng, 20, 100), "segments": min(_log_int(rng, 50, 400), fit_px**2)}
    if size_px**2 < DICConfig.channels:
        knobs["channels"] = size_px**2
    return knobs | {"fit_px": fit_px, "lr": round(float(np.exp(rng.uniform(-4, -2.3))), 4)}


_SPACES = {"slic": _slic_space, "faiss": _faiss_space, "dic": _dic_space}


def run(search: Search) -> None:
    """Run the missing trials of this part, and print the table of all that are there.

    Raises:
        UserError: the folder holds another search.
    """
    search.out.mkdir(parents=True, exist_ok=True)
    _check_same(search)
    part, parts = search.part
    missing = [
        number for number in range(part, search.num_trials, parts) if not _path(search, number).exists()
    ]
    if missing or not _path(search, None).exists():
        images = Images(search)
        if not _path(search, None).exists():
            _keep(search, None, images.score(None))
        for done, number in enumerate(missing):
            start = time.monotonic()
            _keep(search, number, images.score(draw(search, number)))
            took = time.monotonic() - start
            left = took * (len(missing) - done - 1)
            print(f"trial {number}: {took:.1f} s, ETA {left:.0f} s", flush=True)
    if parts == 1:
        print_table(search)


class Images:
    """The split's images with their maps, made once."""

    def __init__(self, search: Search) -> None:
        self.search, work = search, search.work
        self.index, self.split = Index.load(work.index), work.splits[0]
        self.config = work.config.evaluate
        ranks = Ranks(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        self.device = ranks.device
        method, _ = load_method(work, ranks)
        rows = self.index.rows(self.split)
        wanted = set(_first_by_hash(rows.ids.to_pylist(), search.num_images))
        self.scored: list[tuple[int, Scored]] = [
            (one.row, one.scored)
            for batch in predicted(
                method, self.index, rows, split=self.split, config=self.config, ranks=ranks, refiner=None
            )
            for one in batch
            if one.row in wanted
        ]

    def score(self, trial: Trial | None) -> dict[str, Any]:
        """The split's numbers under a trial, None for no refinement, at the best threshold of its own curve."""
        metrics = make_metrics(self.config, num_classes=len(self.index.classes))
        found_LN: list[np.ndarray] = []
        for scored in self._refined(trial):
            row: dict[str, Any] = {}
            for metric in metrics:
                row |= metric.update(scored)
            if row.get(self.config.select) is not None:
                found_LN.append(np.asarray(row[self.config.select], np.float64))
        curves = {name: curve for metric in metrics for name, curve in metric.curves().items()}
        if self.config.select not in curves:
            raise UserError(f"{self.split}: no boxes, so no {self.config.select} to search by")
        threshold = oracle().resolved(curves, select=self.config.select, otherwise=self.config.threshold)
        numbers = {one.name: one.value for metric in metrics for one in metric.records(threshold)}
        hits = [float(found_L[threshold.level]) for found_L in found_LN]
        return {"threshold": threshold.value, "numbers": numbers, "hits": hits}

    def _refined(self, trial: Trial | None) -> Iterator[Scored]:
        if trial is None:
            yield from (dataclasses.replace(scored) for _, scored in self.scored)
            return
        labels = self._labels(trial, [row for row, _ in self.scored])
        for (_, scored), label_HW in zip(self.scored, labels, strict=True):
            if label_HW is None:
                yield dataclasses.replace(scored)
                continue
            map_BKhw = torch.from_numpy(scored.map_hw)[None, None]
            refined = refine(map_BKhw, torch.from_numpy(label_HW)[None], alpha_B=trial.alpha)
            yield dataclasses.replace(scored, map_hw=refined[0, 0].numpy())

    def _labels(self, trial: Trial, rows: Sequence[int]) -> Iterator[np.ndarray | None]:
        if self.search.labels is not None:
            column = open_labels(self.search.labels, self.index, (self.split,))
            return (column.value(self.split, row) for row in rows)
        cls = backend_class(trial.backend)
        backend = cls(cls.Config(size_px=self.search.size_px, **trial.knobs), self.device)
        reader = ShardReader(self.index, self.split)
        return label_rows(reader, [rows], backend, workers=self.search.workers)


def _first_by_hash(ids: list[str], number: int | None) -> list[int]:
    order = sorted(range(len(ids)), key=lambda at: hashlib.sha256(ids[at].encode()).digest())
    return order[:number]


def print_table(search: Search) -> None:
    """All trials, the best first, the map without refinement among them; and how to use the best."""
    base = _read(search, None)
    trials = [(number, _read(search, number)) for number in range(search.num_trials)]
    select = search.work.config.evaluate.select
    ranked = sorted(trials, key=lambda one: -one[1]["numbers"][select])
    shown = [name for name in dict.fromkeys((select, *SHOWN)) if name in base["numbers"]]
    split, count = search.work.splits[0], len(base["hits"])
    table = Table(
        title=f"{split}, {count} images; {select} at each trial's best threshold (oracle: it chooses)"
    )
    for name in ("trial", "backend", "settings", "alpha", "threshold", *shown):
        table.add_column(name, justify="left" if name in ("backend", "settings") else "right")
    table.add_row("-", "none", "", "", f"{base['threshold']:.3f}", *_cells(base, shown))
    for number, one in ranked:
        trial = draw(search, number)
        knobs = " ".join(f"{name}={value}" for name, value in trial.knobs.items())
        numbers = (f"{trial.alpha:.3f}", f"{one['threshold']:.3f}", *_cells(one, shown))
        table.add_row(str(number), trial.backend or "given", knobs, *numbers)
    Console(width=140).print(table)
    print_best(search, *ranked[0], base)


def print_best(search: Search, number: int, best: dict[str, Any], base: dict[str, Any]) -> None:
    """The gain of the best trial with its paired interval, and the commands that use it."""
    trial = draw(search, number)
    gain = paired_gain(np.array(base["hits"]), np.array(best["hits"]))
    print(
        f"best trial {number}: {100 * gain.value:+.2f} points from no refinement, paired 95 % interval "
        f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}; the best of {search.num_trials} on the images it was "
        "chosen on, so too high: score another split"
    )
    labels = search.labels or Path("LABELS")
    if search.labels is None:
        flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in trial.knobs.items())
        print(
            f"make label maps: wsol cluster --index {search.work.index} --out LABELS --backend {trial.backend} "
            f"--size-px {search.size_px} {flags}"
        )
    print(f"use them: --refine.labels {labels} --refine.alpha {trial.alpha}")


def _cells(one: dict[str, Any], shown: list[str]) -> list[str]:
    return [f"{one['numbers'][name]:.2f}" for name in shown]


def _about(search: Search) -> dict[str, Any]:
    """What a folder of trials belongs to."""
    about = {name: getattr(search, name) for name in ("num_images", "seed", "backends", "size_px")}
    about |= {"labels": None if search.labels is None else str(search.labels.resolve())}
    about |= {"split": search.work.splits[0], **search.work.identity.to_json()}
    return json.loads(json.dumps(about))


def _check_same(search: Search) -> None:
    path = search.out / "search.json"
    if not path.exists():
        write_atomically(path, json.dumps(_about(search), indent=1).encode())
        return
    stored = json.loads(path.read_bytes())
    differing = [name for name, value in _about(search).items() if stored.get(name) != value]
    if differing:
        raise UserError(
            f"{search.out}: holds another search ({', '.join(differing)} differ); give another --out, or remove it"
        )


def _path(search: Search, number: int | None) -> Path:
    return search.out / ("none.json" if number is None else f"trial-{number:03d}.json")


def _keep(search: Search, number: int | None, found: dict[str, Any]) -> None:
    trial = {} if number is None else asdict(draw(search, number))
    write_atomically(_path(search, number), json.dumps(trial | found).encode())


def _read(search: Search, number: int | None) -> dict[str, Any]:
    return json.loads(_path(search, number).read_bytes())

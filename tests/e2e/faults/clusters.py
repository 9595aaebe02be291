"""What goes wrong with label maps: made of something else, not whole, or impossible."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tests.e2e.faults.fault import Fault
from wsol_dist.columns.clusters import label_column
from wsol_dist.data.images.arrays import encode
from wsol_dist.data.shards.columns import ColumnWriter
from wsol_dist.data.shards.index import Index
from wsol_dist.regions.slic import SLICConfig

EVALUATE = "wsol evaluate {tmp}/recipe.yaml --out {tmp}/run --split test --refine.labels {tmp}/labels"
CLUSTER = "wsol cluster --index {shards} --out {tmp}/labels"


def labels(tmp: Path, *, source: str = "", side: int = 32, cut: bool = False) -> None:
    """Damage: `{tmp}/labels` holds label maps, of other shards, of another size, or not all."""
    index = Index.load(tmp / "shards")
    if source:
        index = dataclasses.replace(index, sha256=source)
    config = SLICConfig(size_px=32)
    about = label_column(index, ("test",), backend="slic", config=config, command="test")
    writer = ColumnWriter(tmp / "labels", index, about)
    for number in writer.todo()[: 1 if cut else None]:
        with writer.shard(number) as shard:
            for _ in writer.positions(number):
                shard.add(encode(np.zeros((side, side), np.uint8), "png"))
    if not cut:
        writer.finish()


CLUSTERS = [
    Fault(
        what="label maps of another data set",
        command=EVALUATE,
        message="refine.labels: {tmp}/labels: a column of other shards (their index has sha256 000000000000) "
        "than those in {shards} (...); give the shards it was made from, or make it again",
        fix="cluster the shards that are scored",
        damage=lambda tmp: labels(tmp, source="0" * 64),
    ),
    Fault(
        what="label maps whose writing was killed",
        command=EVALUATE,
        message="refine.labels: {tmp}/labels: no column.json in it: its writing did not finish; start it again",
        fix="start `wsol cluster` again: it goes on",
        damage=lambda tmp: labels(tmp, cut=True),
    ),
    Fault(
        what="label maps of another size than they say",
        command=EVALUATE,
        message="{tmp}/labels: label map ... of test is 16 x 16, the column says 32 x 32; make the column again",
        fix="make them again",
        then="exit 2; the run folder has its configuration and no record",
        damage=lambda tmp: labels(tmp, side=16),
        test="test_clusters.py::test_label_maps_of_another_size_leave_no_record",
    ),
    Fault(
        what="more clusters than pixels",
        command=CLUSTER + " --clusters 100 --size-px 8",
        message="--backend faiss: clusters: 100 given, but an image of size_px 8 has 64 pixels; "
        "lower clusters or raise size_px",
        fix="as said",
    ),
    Fault(
        what="unknown clustering backend",
        command=CLUSTER + " --backend dci",
        message="--backend: unknown backend 'dci'; did you mean 'dic'? allowed: dic, faiss, slic",
        fix="write it as suggested",
    ),
    Fault(
        what="label maps among the shards",
        command="wsol cluster --index {shards} --out {shards}",
        message="--out: {shards} holds the shards themselves; give a folder of its own",
        fix="as said",
    ),
]

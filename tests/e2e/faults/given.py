"""What is written wrongly: commands, recipes, and what they name."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.e2e.faults.fault import GOOD, Fault
from wsol_dist.data.shards.index import Index
from wsol_dist.runs import checkpoint

SUBMIT = "submit {tmp}/recipe.yaml --cluster local --out {tmp}/run"
TRAIN = "wsol train {tmp}/recipe.yaml --out {tmp}/run"
EVALUATE = "wsol evaluate {tmp}/recipe.yaml --out {tmp}/run"
SHOW = "wsol show {tmp}/recipe.yaml"
SPELLING = "write it as suggested"


def weights_of(method: str, *, swapped: bool = False, classes: list[str] | None = None) -> object:
    """Damage: a checkpoint `{tmp}/other.safetensors` of a method, with the shards' classes or others."""

    def save(tmp: Path) -> None:
        names = classes or list(Index.load(tmp / "shards").classes)
        names = [names[1], names[0], *names[2:]] if swapped else names
        metadata = {"method": method, "classes": json.dumps(names)}
        checkpoint.save_weights(tmp / "other.safetensors", {"a": torch.zeros(1)}, metadata=metadata)

    return save


def other_run(tmp: Path) -> None:
    """Damage: `{tmp}/run` holds a run of another configuration."""
    (tmp / "run").mkdir()
    text = GOOD.replace("{shards}", str(tmp / "shards"))
    from wsol_dist.recipe import dump, load

    (tmp / "seed.yaml").write_text(text + "seed: 7\n")
    (tmp / "run" / "config.yaml").write_text(dump(load(str(tmp / "seed.yaml"))))


HYBRID = GOOD.replace(
    "backbone: {width: 32, heads: 2, depth: 2, patch_px: 8}",
    "backbone: {width: 32, heads: 2, depth: 2, stem: mobilenetv2_100, freeze_stem: true}",
)

COMMANDS = [
    Fault(
        what="unknown command",
        command="wsol evalute",
        message="unknown command 'evalute'; did you mean 'evaluate'? allowed: ...",
        fix=SPELLING,
    ),
    Fault(
        what="unknown action on shards",
        command="wsol shards verfy {shards}",
        message="wsol shards: unknown action 'verfy'; did you mean 'verify'? allowed: ...",
        fix=SPELLING,
    ),
    Fault(
        what="misspelt flag",
        command="wsol show quickstart --train.epoch 3",
        message="--train.epoch: unknown flag; did you mean '--train.epochs'? allowed: --train.epochs, ...",
        fix=SPELLING,
    ),
    Fault(
        what="a word where a number belongs",
        command="wsol show quickstart --train.epochs many",
        message="--train.epochs: ...'many'; write --train.epochs FLOAT",
        fix="give a number",
    ),
    Fault(
        what="no nodes",
        command="submit {tmp}/recipe.yaml --nodes 0",
        message="--nodes: given 0; allowed: 1 or more",
        fix="give 1 or more",
    ),
    Fault(
        what="no processes",
        command=SUBMIT + " --procs-per-node 0",
        message="--procs-per-node: given 0; allowed: 1 or more",
        fix="give 1 or more",
    ),
    Fault(
        what="no processes to evaluate with",
        command=EVALUATE + " --procs 0",
        message="--procs: given 0; allowed: 1 or more",
        fix="give 1 or more",
    ),
    Fault(
        what="many nodes on one machine",
        command=SUBMIT + " --nodes 2",
        message="--nodes: given 2, but --cluster local has this one machine; use --nodes 1",
        fix="use `--cluster slurm`, or more `--procs-per-node`",
    ),
    Fault(
        what="no SLURM",
        command="submit {tmp}/recipe.yaml --nodes 8 --out {tmp}/run",
        message="--cluster slurm: SLURM is not installed here (no sbatch); use --cluster local, or --dry-run",
        fix="submit from a login node",
    ),
    Fault(
        what="a report of nothing",
        command="wsol report {tmp}/nowhere",
        message="run '{tmp}/nowhere': no such folder; give a run folder such as runs/quickstart",
        fix="give the folder that `--out` named",
    ),
    Fault(
        what="evaluation of a folder that is no run",
        command="wsol evaluate {shards}",
        message="{shards}: no config.yaml in it: no run folder; recipes: ...",
        fix="give a run folder or a recipe",
    ),
    Fault(
        what="evaluation before the first checkpoint",
        command="wsol evaluate {tmp}/run",
        message="{tmp}/run: no complete checkpoint yet; train it, or give weights with --init",
        fix="wait for the first checkpoint",
        damage=other_run,
    ),
    Fault(
        what="threshold out of range",
        command=EVALUATE + " --threshold 1.5",
        message="--threshold: given 1.5, a number must be in [0, 1)",
        fix="a part of the map's maximum, not a percentage",
    ),
]

RECIPES = [
    Fault(
        what="unknown recipe",
        command="wsol show quikstart",
        message="unknown recipe 'quikstart'; did you mean 'quickstart'? allowed: ...; or a path to a .yaml file",
        fix=SPELLING,
    ),
    Fault(
        what="recipe file missing",
        command="wsol show {tmp}/nothing.yaml",
        message="recipe '{tmp}/nothing.yaml': there is no such file; recipes by name: ...",
        fix="correct the path",
    ),
    Fault(
        what="misspelt key",
        command=SHOW,
        message="{tmp}/recipe.yaml: train.milestons: unknown key; did you mean 'milestones'? allowed: ...",
        fix=SPELLING,
        recipe=GOOD.replace("epochs: 1", "milestons: [3]"),
    ),
    Fault(
        what="unknown section",
        command=SHOW,
        message="{tmp}/recipe.yaml: trian: unknown key; did you mean 'train'? allowed: ...",
        fix=SPELLING,
        recipe=GOOD + "trian: {epochs: 2}\n",
    ),
    Fault(
        what="misspelt knob of the method",
        command=SHOW,
        message="{tmp}/recipe.yaml: method.scale_px: unknown key; did you mean 'scales_px'? allowed: ...",
        fix=SPELLING,
        recipe="name: x\nmethod: {name: molt, scale_px: [16]}\n",
    ),
    Fault(
        what="a key of a section at the top",
        command=SHOW,
        message="{tmp}/recipe.yaml: epochs: unknown key here; it belongs at train.epochs",
        fix="move it there",
        recipe=GOOD + "epochs: 3\n",
    ),
    Fault(
        what="a knob of the backbone one level too high",
        command=SHOW,
        message="{tmp}/recipe.yaml: method.depth: unknown key here; it belongs at method.backbone.depth",
        fix="move it there",
        recipe="name: x\nmethod: {name: ts_cam, depth: 2}\n",
    ),
    Fault(
        what="a top key in a section",
        command=SHOW,
        message="{tmp}/recipe.yaml: train.seed: unknown key here; it belongs at seed",
        fix="move it there",
        recipe=GOOD.replace("epochs: 1", "seed: 1"),
    ),
    Fault(
        what="a key that two sections have",
        command=SHOW,
        message="{tmp}/recipe.yaml: train.workers: unknown key here; it belongs at data.workers or evaluate.workers",
        fix="move it to the one that is meant",
        recipe=GOOD.replace("epochs: 1", "workers: 1"),
    ),
    Fault(
        what="unknown method",
        command=SHOW,
        message="method.name: unknown method 'mlot'; did you mean 'molt'? allowed: ...",
        fix=SPELLING,
        recipe="name: x\nmethod: {name: mlot}\n",
    ),
    Fault(
        what="no method",
        command=SHOW,
        message="{tmp}/recipe.yaml: method.name is missing; write  method: {name: ts_cam, ...}",
        fix="name one",
        recipe="name: x\n",
    ),
    Fault(
        what="wrong type",
        command=SHOW,
        message="{tmp}/recipe.yaml: seed: given 'many' (str): ...integer...",
        fix="give a number",
        recipe=GOOD + "seed: many\n",
    ),
    Fault(
        what="negative number",
        command=SHOW,
        message="{tmp}/recipe.yaml: train.lr: given -0.1; allowed: above 0",
        fix="give a positive one",
        recipe=GOOD.replace("epochs: 1", "lr: -0.1"),
    ),
    Fault(
        what="negative number on the command line",
        command="wsol show quickstart --data.workers -1",
        message="--data.workers: given -1; allowed: 0 or more",
        fix="0 decodes in the training process",
    ),
    Fault(
        what="out of range",
        command=SHOW,
        message="{tmp}/recipe.yaml: evaluate.threshold: given 30; allowed: from 0 to below 1",
        fix="a part of the map's maximum, not a percentage",
        recipe=GOOD.replace("size_px: 32", "threshold: 30"),
    ),
    Fault(
        what="a moving average without whole weights",
        command=SHOW,
        message="{tmp}/recipe.yaml: train: ema 0.9 goes with zero 0, 1 and 2, not with 3, where no rank holds the "
        "weights to average; set ema 0 or zero 2",
        fix="as it says",
        recipe=GOOD.replace("epochs: 1", "epochs: 1, ema: 0.9, zero: 3"),
    ),
    Fault(
        what="duplicate key",
        command=SHOW,
        message="{tmp}/recipe.yaml: duplicate key 'name' in lines 1 and 7; keep one of them",
        fix="keep one; YAML alone would take the last in silence",
        recipe=GOOD + "name: again\n",
    ),
    Fault(
        what="no YAML",
        command=SHOW,
        message="{tmp}/recipe.yaml: ...line 1...",
        fix="correct the line",
        recipe="name: [x\n",
    ),
    Fault(
        what="no mapping",
        command=SHOW,
        message="{tmp}/recipe.yaml: a recipe is a mapping of keys to values, this is list",
        fix="write `key: value`",
        recipe="- name\n",
    ),
    Fault(
        what="a base with a base",
        command=SHOW,
        message="recipe.yaml: its base 'molt-imagenet' has a base of its own; one level is allowed",
        fix="name the lowest as `base`, and copy the keys between",
        recipe="base: molt-imagenet\nname: x\n",
    ),
    Fault(
        what="batch does not divide",
        command=SUBMIT + " --procs-per-node 3",
        message="train.global_batch: 16 is no multiple of 3 (3 ranks x accumulation 1); try --train.global-batch 15",
        fix="as it says",
    ),
    Fault(
        what="batch larger than the split",
        command=TRAIN + " --train.global-batch 128",
        message="train.global_batch: 128 images a step, but split 'train' has only 96",
        fix="lower it",
    ),
    Fault(
        what="crop larger than the image",
        command=SUBMIT + " --data.resize-px 20",
        message="data.resize_px: given 20, but 32 px are cropped from it; give at least 32, or leave it out",
        fix="as it says",
    ),
    Fault(
        what="a hybrid without its stem's weights",
        command=SUBMIT,
        message="method.backbone.stem_checkpoint: not given, and freeze_stem keeps the random weights of stem "
        "'mobilenetv2_100' as they are; add --method.backbone.stem-checkpoint FILE (weights of timm's mobilenetv2_100)",
        fix="give the file that the recipe's header names",
        recipe=HYBRID,
    ),
    Fault(
        what="the stem's weights are not there",
        command=TRAIN + " --method.backbone.stem-checkpoint {tmp}/nothing.safetensors",
        message="method.backbone.stem_checkpoint: there is no file {tmp}/nothing.safetensors",
        fix="correct the path",
        recipe=HYBRID,
    ),
    Fault(
        what="run folder of another recipe",
        command=SUBMIT,
        message="{tmp}/run: holds a run of another configuration (seed: 7 -> 0); choose another --out, "
        "or remove the folder",
        fix="as it says; what changes no step (`track`, `evaluate`, workers, ...) may differ",
        damage=other_run,
    ),
    Fault(
        what="run folder of another recipe, trained",
        command=TRAIN,
        message="{tmp}/run: holds a run of another configuration (seed: 7 -> 0); choose another --out, "
        "or remove the folder",
        fix="as above",
        damage=other_run,
    ),
]

WEIGHTS = [
    Fault(
        what="no checkpoint there",
        command=SUBMIT + " --train.init {tmp}/nothing.safetensors",
        message="{tmp}/nothing.safetensors: neither a weight file nor a run folder with a checkpoint in it",
        fix="correct the path",
    ),
    Fault(
        what="checkpoint of another method",
        command=SUBMIT + " --train.init {tmp}/other.safetensors",
        message="{tmp}/other.safetensors: a checkpoint of method 'cam', this recipe's is 'molt'",
        fix="give weights of this method or of its backbone",
        damage=weights_of("cam"),
    ),
    Fault(
        what="checkpoint of another method, trained",
        command=TRAIN + " --train.init {tmp}/other.safetensors",
        message="{tmp}/other.safetensors: a checkpoint of method 'cam', this recipe's is 'molt'",
        fix="as above",
        damage=weights_of("cam"),
    ),
    Fault(
        what="checkpoint of another method, scored",
        command=EVALUATE + " --init {tmp}/other.safetensors",
        message="{tmp}/other.safetensors: a checkpoint of method 'cam', this recipe's is 'molt'",
        fix="score it with the recipe it was trained with",
        damage=weights_of("cam"),
    ),
    Fault(
        what="start from weights of other classes",
        command=TRAIN + " --train.init {tmp}/other.safetensors",
        message="{tmp}/other.safetensors: class 0 is ... there and ... in the shards in {shards}; "
        "give weights of the same classes, or other shards as --data.index",
        fix="to carry a backbone over, name it in `method.backbone.checkpoint`",
        damage=weights_of("molt", swapped=True),
    ),
    Fault(
        what="start from weights of another number of classes",
        command=SUBMIT + " --train.init {tmp}/other.safetensors",
        message="{tmp}/other.safetensors is for 2 classes, the shards in {shards} have 8; "
        "give weights of the same classes, or other shards as --data.index",
        fix="as above",
        damage=weights_of("molt", classes=["cat", "dog"]),
    ),
    Fault(
        what="score weights of other classes",
        command=EVALUATE + " --init {tmp}/other.safetensors",
        message="{tmp}/other.safetensors: class 0 is ... there and ... in the shards in {shards}; "
        "give the shards that belong to it with --index",
        fix="as it says",
        damage=weights_of("molt", swapped=True),
    ),
    Fault(
        what="continue on other shards",
        command="a run continued after its folder of shards was packed anew",
        message="{tmp}/run/checkpoints/step-00000006: trained on other shards than those in {shards} now "
        "(the index differs); give the shards it started with as --data.index, or choose another --out",
        fix="as it says",
        then="exit 2; the run folder keeps its checkpoints",
        test="test_runs.py::test_a_run_goes_on_with_its_own_shards_only",
    ),
]

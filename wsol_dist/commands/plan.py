"""What a recipe costs at scale, before it is submitted: wsol plan RECIPE --nodes 8 [--gpus-per-node 8] [overrides].

Memory of a GPU at ZeRO 0 to 3, bytes sent in a step, step time and efficiency, images a second to decode, hours.
Each figure says where it comes from: given, measured, counted (from the network), estimated or assumed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from wsol_dist.errors import UserError
from wsol_dist.options import check_least
from wsol_dist.planning.plan import Given, plan_lines
from wsol_dist.recipe import parse_with_recipe
from wsol_dist.training.stages import stages


def main(argv: list[str]) -> int:
    """Entry of `wsol plan`."""
    own, config = parse_with_recipe(arguments(), argv)
    check_least(own, {"nodes": 1, "gpus_per_node": 1, "num_images": 1})
    for name in ("images_per_s", "bandwidth_gb_s", "gpu_memory_gib", "tflops"):
        if getattr(own, name) is not None and getattr(own, name) <= 0:
            raise UserError(f"--{name.replace('_', '-')}: given {getattr(own, name)}, must be above 0")
    given = Given(**{name: value for name, value in vars(own).items() if name != "recipe"})
    for run, _ in stages(config, Path("runs") / config.name):
        print("\n".join(plan_lines(given, run)))
    return 0


def arguments() -> argparse.ArgumentParser:
    """The command line, besides the recipe's overrides."""
    parser = argparse.ArgumentParser(
        prog="wsol plan",
        description=__doc__,
        allow_abbrev=False,
        add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("recipe", help="name of a recipe, or a path to a .yaml file")
    add("--nodes", type=int, default=1, help="machines; default 1")
    add("--gpus-per-node", type=int, default=8, help="GPUs, one rank each; default 8")
    add("--gpu-memory-gib", type=float, help="of a GPU; default this machine's GPU, else 80")
    add("--images-per-s", type=float, help="that one GPU alone trains: a short run's train/images_per_s")
    add("--from-run", type=Path, help="take that from a run's metrics.jsonl")
    add("--tflops", type=float, help="arithmetic that a GPU reaches, where neither is given")
    add("--bandwidth-gb-s", type=float, help="of an all-reduce for each rank, as the node check prints it")
    add("--num-images", type=int, help="images in the training split, where --data.index is not given")
    add("--backend", choices=("nccl", "gloo"), default="nccl", help="gloo: ranks on CPUs; default nccl")
    return parser

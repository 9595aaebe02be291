"""Which samples every rank of a job reads: wsol ranks prepare|tell|check; the first step of the job scripts."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsol_dist.errors import UserError, did_you_mean
from wsol_dist.runs.run_state import CONFIG_FILE

USAGE = """usage: wsol ranks {prepare,tell,check} ...

  prepare RECIPE --out RUN [--world N ...] [overrides]   check recipe, shards and batch, write the run folder
  tell RUN                                               as a task of the job: node, GPU and samples of this rank
  check RUN [--ranks-per-node N]                         all together: every sample once, does it fit into memory"""


def main(argv: list[str]) -> int:
    """Entry of `wsol ranks`."""
    actions = {"prepare": _prepare, "tell": _tell, "check": _check}
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] not in actions:
        raise UserError(f"wsol ranks: unknown action {argv[0]!r}; {did_you_mean(argv[0], list(actions))}")
    return actions[argv[0]](argv[1:])


def _prepare(argv: list[str]) -> int:
    from wsol_dist.recipe import parse_with_recipe

    parser = argparse.ArgumentParser(prog="wsol ranks prepare", allow_abbrev=False, add_help=False)
    parser.add_argument("recipe", help="name of a recipe, or a path to a .yaml file")
    parser.add_argument("--out", type=Path, help="run folder; default runs/NAME")
    parser.add_argument("--world", type=int, nargs="+", default=[1], help="numbers of ranks; default 1")
    own, config = parse_with_recipe(parser, argv)
    from wsol_dist.training.preflight import check, prepare_folder
    from wsol_dist.training.stages import stages

    if min(own.world) < 1:
        raise UserError(f"--world: given {min(own.world)}, at least 1 is needed")
    folder = own.out or Path("runs") / config.name
    for run, place in stages(config, folder):
        for world in own.world:
            check(run, world=world, folder=place)
    prepare_folder(config, folder)
    return 0


def _tell(argv: list[str]) -> int:
    from wsol_dist.launching.rank_report import tell

    parser = argparse.ArgumentParser(prog="wsol ranks tell", allow_abbrev=False)
    parser.add_argument("run", type=Path, help="run folder with its config.yaml")
    print(tell(_run_folder(parser.parse_args(argv).run)).line(), flush=True)
    return 0


def _check(argv: list[str]) -> int:
    from wsol_dist.launching.rank_report import check
    from wsol_dist.options import check_least

    parser = argparse.ArgumentParser(prog="wsol ranks check", allow_abbrev=False)
    parser.add_argument("run", type=Path, help="run folder with its config.yaml")
    parser.add_argument(
        "--ranks-per-node", type=int, help="processes that train on each node; default one a task"
    )
    own = parser.parse_args(argv)
    check_least(own, {"ranks_per_node": 1})
    for line in check(_run_folder(own.run), ranks_per_node=own.ranks_per_node):
        print(line, flush=True)
    return 0


def _run_folder(folder: Path) -> Path:
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(
            f"{folder}: no run folder (no config.yaml); `wsol ranks prepare RECIPE --out {folder}` writes one"
        )
    return folder

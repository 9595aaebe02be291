"""Print a recipe with everything resolved: wsol show RECIPE [overrides]."""

from __future__ import annotations

import argparse

from wsol_dist.recipe import dump, parse_with_recipe, recipe_path


def main(argv: list[str]) -> int:
    """Entry of `wsol show`: the recipe's header, and every key with its value."""
    parser = argparse.ArgumentParser(
        prog="wsol show", description=__doc__, allow_abbrev=False, add_help=False
    )
    parser.add_argument("recipe", help="name of a recipe, or a path to a .yaml file")
    own, config = parse_with_recipe(parser, argv)
    lines = recipe_path(own.recipe).read_text(encoding="utf-8").splitlines()
    for line in lines:
        if not line.startswith("#"):
            break
        print(line)
    print(dump(config), end="")
    return 0

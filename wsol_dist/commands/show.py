"""Print a recipe with everything resolved: wsol show RECIPE [overrides]."""

from __future__ import annotations

from wsol_dist.recipe import RecipeOptions, dump, recipe_path

Options = RecipeOptions


def run(options: Options) -> int:
    """Print the recipe's header, and every key with its value."""
    config = options.config()
    lines = recipe_path(options.recipe).read_text(encoding="utf-8").splitlines()
    for line in lines:
        if not line.startswith("#"):
            break
        print(line)
    print(dump(config), end="")
    return 0

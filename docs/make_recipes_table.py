"""Write docs/recipes.md: every recipe, what it aims at, and the commands of those for clusters.

python docs/make_recipes_table.py
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from fullrank.training.recipe_commands import ON_CLUSTERS, recipe_commands
from fullrank.training.recipes import Recipe, load_recipe, recipe_names

PAGE = Path(__file__).with_name("recipes.md")
HEAD = """# Recipes

`fullrank train NAME` trains one; options after the name win. `fullrank list recipes NAME` prints its
settings and the commands below. This page is written by `python docs/make_recipes_table.py` from the
recipes themselves.
"""
CLUSTER = """
On several nodes the second command is started on every one of them, with the first one's name for HOST.
By SLURM one command does that, and the job goes back into the queue when its time is up
([clusters.md](clusters.md)). A batch is that of all GPUs together, and so are BatchNorm's statistics (of
`asym-bn` only the target's), so that all three train the same. GPUs are so few that each has 32 images of a
step or more. `--data FOLDER` names the images, where they are not in the cache of the Hub.
"""


def page(recipes: Iterable[Recipe]) -> str:
    """Build the page.

    Args:
        recipes: in the order of their names.
    """
    parts = [HEAD]
    for data, group in groupby(recipes, lambda recipe: recipe.name.split("/")[0]):
        listed = list(group)
        parts.append(f"## {data}\n\n| recipe | what | source | aims at |\n|---|---|---|---|")
        parts += [f"| `{r.name}` | {r.about} | {r.source} | {r.aims_at} |" for r in listed]
        if data in ON_CLUSTERS:
            parts += [CLUSTER, *(_commands(recipe) for recipe in listed)]
        parts.append("")
    return "\n".join(parts)


def _commands(recipe: Recipe) -> str:
    commands = recipe_commands(recipe.name, recipe.settings)
    lines = [
        f"    # {recipe.name}: {', '.join(commands)}",
        *(f"    {command}" for command in commands.values()),
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(map(load_recipe, recipe_names())))


if __name__ == "__main__":
    main()

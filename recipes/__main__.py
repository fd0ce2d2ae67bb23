"""Print recipes as words for DVC: `dvc exp run $(python -m recipes NAME [NAME ...])`; without a name, list them.

Of a value that several recipes set, the last one's counts; `-S key=value` behind them counts last.

Reads   recipes/*.yaml and params.yaml
Writes  one line to stdout; on a refusal a message to stderr, exit code 1, and on stdout a word that DVC refuses: otherwise
        `dvc exp run $(...)` would run with no recipe at all
"""

import argparse

from recipes import read_recipe, recipe_names, recipe_words
from skinlesion.base.errors import PipelineError, run_stage

REFUSED = "--recipe-was-refused"


def main() -> None:
    """List the recipes, or print the words of those that are named."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a recipe; later ones win")
    names = parser.parse_args().names
    try:
        print(" ".join(recipe_words(names)) if names else listing())
    except PipelineError:
        print(REFUSED)
        raise


def listing() -> str:
    """A line for each recipe: name and description."""
    names = recipe_names()
    width = max(map(len, names))
    return "\n".join(f"{name:{width}}  {read_recipe(name).description}" for name in names)


if __name__ == "__main__":
    run_stage(main)

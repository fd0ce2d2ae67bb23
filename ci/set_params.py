"""Put recipes and overrides into params.yaml: `RECIPES="cosine_b0 ham10000" OVERRIDES="train.epochs=5" python -m ci.set_params`.

Reads   params.yaml, recipes/, the variables RECIPES and OVERRIDES
Writes  params.yaml, unless what would come of it is refused

CI uses `dvc repro`, not `dvc exp run -S`, which when killed leaves git without a branch; the overrides are applied by the
function that `-S` calls.
"""

import os
import shlex
import shutil
from pathlib import Path

from dvc.exceptions import InvalidArgumentError
from dvc.utils.hydra import apply_overrides

from recipes import recipe_words
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import atomic_file
from skinlesion.config.params import PARAMS_FILE, load_params


def wanted(recipes: str, overrides: str) -> list[str]:
    """Overrides in Hydra's grammar: those of the recipes, then those that are given.

    Raises
    ------
    PipelineError
        There is no such recipe, or an override has no `=`.
    """
    names = recipes.split()
    words = [word for word in recipe_words(names) if word != "-S"] if names else []
    try:
        given = [word for word in shlex.split(overrides) if word != "-S"]
    except ValueError as error:
        raise PipelineError(f"OVERRIDES is {overrides!r}: {error}; write key=value, with spaces between") from None
    for word in given:
        if "=" not in word and not word.startswith("~"):
            raise PipelineError(f"OVERRIDES: {word!r} is no override; write key=value, with spaces between")
    return words + given


def change(overrides: list[str], path: Path = PARAMS_FILE) -> None:
    """Apply overrides to a `params.yaml`; PipelineError, and nothing changed, where one fails or gives what is refused."""
    with atomic_file(path) as partial:
        trial = partial.with_suffix(".yaml")  # DVC goes by the suffix
        try:
            shutil.copyfile(path, trial)
            apply_overrides(trial, overrides)
            load_params(trial)
            os.replace(trial, partial)
        except InvalidArgumentError as error:
            raise PipelineError(f"an override is refused: {error.__cause__ or error}") from None
        finally:
            trial.unlink(missing_ok=True)


def main() -> None:
    """Change `params.yaml` as the environment says."""
    overrides = wanted(os.environ.get("RECIPES", ""), os.environ.get("OVERRIDES", ""))
    if not overrides:
        print("params.yaml as it is committed")
        return
    change(overrides)
    print("\n".join(overrides))


if __name__ == "__main__":
    run_stage(main)

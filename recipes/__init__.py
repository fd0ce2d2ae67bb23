"""Recipes: named sets of overrides of `params.yaml`, a YAML file each, printed as words for `dvc exp run`.

A recipe holds `description` (one line), `source` (whom it follows, and what in it is ours), `based_on` (optional: a recipe whose
values come first) and `params` (the overrides, nested as in `params.yaml`). A section is merged key by key; any other mapping, as
`train.class_multipliers`, is replaced as a whole.
"""

import copy
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from skinlesion.base.errors import PipelineError, suggest
from skinlesion.config.params import PARAMS_FILE, Params, check_params, read_params
from skinlesion.config.schema import Section

FOLDER = Path(__file__).parent

# Words that Hydra's override grammar, which `-S` follows, takes for a string as they stand; others it takes within quotes. What
# even those could not carry through `$(...)`, which splits at spaces and expands `*`, `?`, is refused.
PLAIN_WORD = re.compile(r"(?!(?:null|true|false|inf|nan)$)[a-z_][a-z0-9_]*", re.IGNORECASE)
QUOTABLE = re.compile(r"[\w./:+@%,=~-]*", re.ASCII)


class Recipe(Section):
    """A file of this folder."""

    description: str = Field(min_length=1, pattern=r"^[^\n]+$")
    source: str = Field(min_length=1)
    based_on: str | None = None
    params: dict[str, Any]


def recipe_names() -> list[str]:
    """Names of all recipes, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name: str) -> Recipe:
    """Read a recipe; PipelineError if there is none of that name (with the nearest name) or its file is no recipe."""
    if name not in recipe_names():
        raise PipelineError(f"there is no recipe '{name}'{suggest(name, recipe_names())}; `python -m recipes` lists them all")
    path = FOLDER / f"{name}.yaml"
    try:
        return Recipe.model_validate(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))
    except (YAMLError, UnicodeDecodeError) as error:
        raise PipelineError(f"recipe '{name}': {path} is not valid YAML: {error}") from None
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}" for problem in error.errors())
        raise PipelineError(f"recipe '{name}': {path} is refused: {reasons}") from None


def compose(names: Iterable[str]) -> dict[str, Any]:
    """The overrides of some recipes, nested as in `params.yaml`; of a value that several set, the last one's."""
    changes: dict[str, Any] = {}
    for name in names:
        for recipe in _lineage(name):
            changes = override(changes, recipe.params)
    return changes


def _lineage(name: str) -> list[Recipe]:
    """A recipe with those it is based on before it."""
    seen, recipes = [name], [read_recipe(name)]
    while (base := recipes[0].based_on) is not None:
        if base in seen:
            raise PipelineError(f"recipe '{name}' is based on itself: {' <- '.join([*seen, base])}")
        seen.append(base)
        recipes.insert(0, read_recipe(base))
    return recipes


def override(document: dict[str, Any], changes: dict[str, Any], model: type[BaseModel] | None = Params) -> dict[str, Any]:
    """A copy of a `params.yaml`'s content, or of part of it, with some values changed; sections are merged, all else replaced."""
    merged = copy.deepcopy(document)
    for key, value in changes.items():
        section = _section(model, key)
        if section and isinstance(value, dict) and isinstance(merged.get(key, {}), dict):
            merged[key] = override(merged.get(key, {}), value, section)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _section(model: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """The model of a key that is itself a section; None of any other key."""
    field = model.model_fields.get(key) if model else None
    annotation = field.annotation if field else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def recipe_words(names: list[str]) -> list[str]:
    """Words for `dvc exp run` that make of the working directory's `params.yaml` what the recipes say, proven valid.

    Returns
    -------
    `-S`, `key=value`, `-S`, ...; no word holds a space or a quote that a shell would have to understand.

    Raises
    ------
    PipelineError
        There is no such recipe, or `params.yaml` with its values is refused.
    """
    changes = compose(names)
    title = f"{PARAMS_FILE} with {'recipe' if len(names) == 1 else 'recipes'} {' '.join(names)}"
    check_params(override(read_params(), changes), name=title)
    return [word for item in _overrides(changes, Params, "") for word in ("-S", item)]


def _overrides(changes: dict[str, Any], model: type[BaseModel], prefix: str) -> Iterable[str]:
    """Hydra overrides, one for each value; two for a mapping, which Hydra would otherwise merge into the one that is there."""
    for name, value in changes.items():
        key, section = f"{prefix}{name}", _section(model, name)
        if section:
            yield from _overrides(value, section, f"{key}.")
        elif isinstance(value, dict):
            yield f"~{key}"
            yield f"+{key}={_literal(value, key)}"
        else:
            yield f"{key}={_literal(value, key)}"


def _literal(value: Any, key: str) -> str:
    """A value in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(_literal(item, key) for item in value)}]"
    if isinstance(value, dict) and all(isinstance(name, str) and PLAIN_WORD.fullmatch(name) for name in value):
        return f"{{{','.join(f'{name}:{_literal(item, key)}' for name, item in value.items())}}}"
    if isinstance(value, str) and QUOTABLE.fullmatch(value):
        return value if PLAIN_WORD.fullmatch(value) else f"'{value}'"
    raise PipelineError(f"{key} = {value!r} cannot go through a command line unharmed: set it in {PARAMS_FILE} itself")

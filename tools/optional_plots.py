"""Which plots are of the optional stages of extras/dvc.yaml, and so may lack their files."""

from pathlib import Path, PurePath

from ruamel.yaml import YAML

EXTRA_STAGES = Path("extras/dvc.yaml")


def plots_of_extras(file: Path = EXTRA_STAGES) -> dict[str, str]:
    """The optional stage that each plot of theirs is of, by the name that DVC shows the plot under."""
    if not file.is_file():
        return {}
    entries = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8")).get("plots", [])
    drawn_from = {}
    for entry in entries:
        name, path = (entry, entry) if isinstance(entry, str) else next((key, next(iter(it["y"]))) for key, it in entry.items())
        drawn_from[name.removeprefix("../")] = PurePath(path).parent.name
    return drawn_from

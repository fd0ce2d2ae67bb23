"""Put the trained members together as the classifier that later stages read.

Reads   params `ensemble`; of every member that params name models/members/NAME/{weights.safetensors,config.json} and
        plots/train/NAME/history.csv; data/prepared and data/splits/train.csv (some images)
Writes  models/classifier/: ensemble.json (the members in order, and what they share) and a copy of each member's folder;
        plots/assemble/: {loss,metrics,learning_rate}.csv, the curves of all members; augmentation.png, what the augmentation
        presets and the values of the first member do to training images (of others that augment otherwise augmentation_NAME.png)

Members whose probabilities could not be averaged, or of which one may have seen another's test images, are refused.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import safetensors
from safetensors import SafetensorError

from skinlesion.artifacts.paths import CLASSIFIER, MEMBERS, PLOTS
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.splits import read_split
from skinlesion.artifacts.tables import write_table
from skinlesion.base.errors import PipelineError, name_some, run_stage
from skinlesion.base.files import atomic_folder, write_json
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.augmentation import AugmentationParams
from skinlesion.config.params import Params, load_params
from skinlesion.diagnoses import CLASSES
from skinlesion.model.classifier import CONFIG_FILE, ENSEMBLE_FILE, WEIGHTS_FILE, ClassifierConfig, read_classifier_config
from skinlesion.report.augmentation_page import draw_augmentation_page
from skinlesion.report.curves import CURVE_COLUMNS, collect_curves

# What members must have in common; a mean and a standard deviation of its own is a member's own affair.
SHARED = ("classes", "size", "fit", "color_constancy", "fingerprint", "images_sha256", "data")

PAGE_IMAGES = 6  # training images on a picture of the augmentation

logger = logging.getLogger(__name__)


@one_at_a_time("assemble")
def main() -> None:
    params = load_params()
    names = params.ensemble.member_names()
    configs = {name: read_member(name) for name in names}
    check_agreement(configs)
    curves = collect_curves(names)
    stale = sorted(path.name for path in MEMBERS.iterdir() if path.is_dir() and path.name not in names)
    if stale:
        logger.info("left out, since params do not name them: %s", name_some(stale))
    with atomic_folder(CLASSIFIER) as folder:
        for name in names:
            (folder / name).mkdir()
            for file in (WEIGHTS_FILE, CONFIG_FILE):
                shutil.copyfile(MEMBERS / name / file, folder / name / file)
        write_json(folder / ENSEMBLE_FILE, describe_ensemble(configs))
    with atomic_folder(PLOTS / "assemble") as folder:
        for table, frame in curves.items():
            write_table(frame, folder / f"{table}.csv", CURVE_COLUMNS)
        draw_augmentation(params, folder)
    logger.info("%s: %s", CLASSIFIER, ", ".join(f"{name} ({each.backbone})" for name, each in configs.items()))


def draw_augmentation(params: Params, folder: Path) -> None:
    """What the augmentation of the first member does to some training images, and of others that augment otherwise."""
    train, prepared = read_split("train"), read_prepared()
    some = train.iloc[:: max(1, len(train) // PAGE_IMAGES)].head(PAGE_IMAGES)
    images = prepared.images[prepared.rows_of(some["image_id"])]
    labels = [CLASSES.index(dx) for dx in some["dx"]]
    drawn: list[AugmentationParams] = []
    for member in params.ensemble.members:
        augmentation = params.member(member).augmentation
        if augmentation not in drawn:
            name = f"augmentation_{member}.png" if drawn else "augmentation.png"
            draw_augmentation_page(images, labels, augmentation, folder / name)
            drawn.append(augmentation)


def read_member(name: str) -> ClassifierConfig:
    """A member's config.

    Raises
    ------
    PipelineError
        A file of it is missing or damaged, or it is another member's.
    """
    folder = MEMBERS / name
    member, _, seed = name.rpartition("-")
    way_out = f"run `dvc repro`, or `python -m stages.train --member {member} --seed {seed}`"
    files = (folder / WEIGHTS_FILE, folder / CONFIG_FILE)
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise PipelineError(f"member '{name}' is not trained, for {', '.join(missing)} not found: {way_out}")
    try:
        with safetensors.safe_open(folder / WEIGHTS_FILE, framework="pt"):
            pass  # its header has the size that the file must have
    except SafetensorError as error:
        raise PipelineError(f"{folder / WEIGHTS_FILE} is damaged ({error}): {way_out}") from None
    config = read_classifier_config(folder)
    if config.name != name:
        raise PipelineError(f"{folder} holds member '{config.name}': {way_out}")
    return config


def check_agreement(configs: dict[str, ClassifierConfig]) -> None:
    """Refuse members that differ in one of `SHARED` from the first."""
    first, *others = configs
    for name in others:
        differing = [key for key in SHARED if getattr(configs[name], key) != getattr(configs[first], key)]
        if differing:
            described = "; ".join(f"{key} {brief(configs[name], key)}, not {brief(configs[first], key)}" for key in differing)
            raise PipelineError(
                f"member '{name}' was not trained on the images and lists of member '{first}' ({described}): run "
                "`dvc repro`, which trains again what is out of date"
            )


def brief(config: ClassifierConfig, key: str) -> str:
    """A value for a message; of a checksum the first digits."""
    value = getattr(config, key)
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 20 else str(value)


def describe_ensemble(configs: dict[str, ClassifierConfig]) -> dict[str, Any]:
    """The content of ensemble.json."""
    keys = ("name", "member", "seed", "backbone", "epoch", "needs_metadata", "weights_sha256")
    shared = next(iter(configs.values()))
    return {
        "members": [{key: getattr(config, key) for key in keys} for config in configs.values()],
        "vote": "mean of the members' probabilities",
        "needs_metadata": any(config.needs_metadata for config in configs.values()),
        **{key: getattr(shared, key) for key in SHARED},
    }


if __name__ == "__main__":
    run_stage(main)

"""What trainings cost in device-hours, from a measured speed: `python -m benchmarks.cost FILE`.

hours = trainings x epochs x images seen an epoch / images per second / 3600

The speed is the median of the fastest setting in a file that `python -m benchmarks.training --json FILE` wrote, on the machine
that it names and at its image size. An epoch sees what is not test (`split.folds` of params.yaml). Images of validation are
counted at the speed of training, which is more than they need, having no backward pass. Not in it: download, preparation,
compilation, evaluation and maps.
"""

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.training import positive
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import read_json
from skinlesion.config.params import load_params
from tools.readme_tables import table as markdown_table

IMAGES = (10_015, 400_000)  # HAM10000, and an archive of the size that ISIC 2024 had
EPOCHS = 40  # of the recipe best_gpu, as are the six trainings
TRAININGS = 6


@dataclass(frozen=True)
class Plan:
    """What is to be trained."""

    images: int  # of the whole archive
    trained_share: float  # of them in training and validation
    epochs: int
    trainings: int

    def hours(self, images_per_second: float) -> float:
        seen = self.trainings * self.epochs * self.images * self.trained_share
        return seen / images_per_second / 3600


def read_speeds(path: Path) -> tuple[str, int, list[tuple[str, str, float, str]]]:
    """The machine, the image size; of each backbone its name, the fastest setting, and images per second: median and range."""
    content = read_json(path)
    try:
        speeds = []
        for backbone, summary in content["backbones"].items():
            ours = summary["ours"][summary["fastest"]]
            setting, rounds = f"{ours['precision']}{', compiled' if ours['compiled'] else ''}", ours["end_to_end"]
            speeds.append((backbone, setting, statistics.median(rounds), f"{min(rounds):,.1f} to {max(rounds):,.1f}"))
        return f"{content['machine']} ({content['device']})", content["size"], speeds
    except (KeyError, TypeError, AttributeError, statistics.StatisticsError) as error:
        message = f"{path} is not a result of `python -m benchmarks.training --json` ({error!r}): write one, or name another file"
        raise PipelineError(message) from error


def describe(path: Path, plans: list[Plan]) -> list[str]:
    """A Markdown table: a row a backbone, the device-hours of each plan."""
    machine, size, speeds = read_speeds(path)
    # Of the array that `prepare` writes: uint8, three channels.
    sizes = ", ".join(f"{plan.images * size * size * 3 / 1e9:.1f} GB" for plan in plans)
    header = ["backbone", "setting", "images/s (range of the rounds)", *(f"{plan.images:,} images, hours" for plan in plans)]
    rows = [
        [backbone, setting, f"{median:,.1f} ({spread})", *(f"{plan.hours(median):,.1f}" for plan in plans)]
        for backbone, setting, median, spread in speeds
    ]
    title = f"{machine}, {size} px, {plans[0].trainings} trainings of {plans[0].epochs} epochs; prepared images {sizes}:"
    return [title, "", *markdown_table(header, rows)]


def main(arguments: list[str] | None = None) -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("measured", type=Path, help="what `python -m benchmarks.training --json` wrote")
    add("--images", type=positive, nargs="+", default=list(IMAGES), help="of the archives (default: %(default)s)")
    add("--epochs", type=positive, default=EPOCHS, help="(default: %(default)s)")
    add("--trainings", type=positive, default=TRAININGS, help="members times seeds (default: %(default)s)")
    options = parser.parse_args(arguments)
    share = 1 - 1 / load_params().split.folds
    plans = [Plan(images, share, options.epochs, options.trainings) for images in options.images]
    sys.stdout.write("\n".join(describe(options.measured, plans)) + "\n")


if __name__ == "__main__":
    run_stage(main)

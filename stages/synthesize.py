"""Draw images of the diagnoses that `synthesize.images` names, by a conditional VAE that sees the training list alone.

Reads the params `synthesize` and `machine`, `data/prepared` and `data/splits/train.csv`; no other list is opened, and of the
prepared images only the rows of that list are.
Writes `data/synthetic/images.npy` (uint8, M x size x size x 3, RGB), `index.csv` (`synthetic_id`, `dx`) and `facts.json`;
`plots/synthesize/counts.csv` and, where images were drawn, `samples.png`. Without an image asked for, array and index are
empty and nothing is trained.
"""

import logging
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.paths import PLOTS
from skinlesion.artifacts.prepared import PreparedImages, read_prepared
from skinlesion.artifacts.splits import read_split
from skinlesion.artifacts.synthetic import read_synthetic, training_fingerprint, write_synthetic
from skinlesion.artifacts.tables import write_table
from skinlesion.base.errors import PipelineError, name_some, run_stage
from skinlesion.base.files import atomic_folder
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.params import load_params
from skinlesion.config.training import SynthesizeParams
from skinlesion.diagnoses import CLASSES

# torch and matplotlib are imported where they are used: a stage that is off must not take their seconds.
if TYPE_CHECKING:
    from skinlesion.data.synthesis.page import Samples

logger = logging.getLogger(__name__)

COUNT_COLUMNS = ("dx", "training_images", "synthetic_images")


@one_at_a_time("synthesize")
def main() -> None:
    """Train and draw, or write that nothing was asked for."""
    whole = load_params()
    params = whole.synthesize
    train, prepared = read_split("train"), read_prepared()
    counts = count_images(train, params)
    total = int(counts["synthetic_images"].sum())
    facts = {"fingerprint": training_fingerprint(train), **counts.set_index("dx").to_dict()}
    samples: list[Samples] = []
    if total:
        samples = synthesize(train, prepared, params, counts=counts, facts=facts, device=whole.machine.device)
    else:
        write_synthetic([], [], size=prepared.size, facts={**facts, "losses": None})
    write_plots(counts, samples)
    logger.info("synthesize: %d images of %d diagnoses", total, len(samples))


def count_images(train: pd.DataFrame, params: SynthesizeParams) -> pd.DataFrame:
    """A row a diagnosis, columns `COUNT_COLUMNS`; where images are asked for, there must be one to learn from."""
    present = train["dx"].value_counts()
    rows = [(dx, int(present.get(dx, 0)), params.images.get(dx, 0)) for dx in CLASSES]
    lacking = [dx for dx, training, synthetic in rows if synthetic and not training]
    if lacking:
        raise PipelineError(
            f"synthesize.images asks for {name_some(lacking)}, of which the training list has no image: leave it out"
        )
    return pd.DataFrame(rows, columns=COUNT_COLUMNS)


def synthesize(
    train: pd.DataFrame,
    prepared: PreparedImages,
    params: SynthesizeParams,
    *,
    counts: pd.DataFrame,
    facts: dict[str, Any],
    device: str,
) -> "list[Samples]":
    """Train on the list, write `data/synthetic`, and return what the page shows of each diagnosis that was drawn."""
    from skinlesion.base.cpu_memory import keep_freed_memory
    from skinlesion.base.devices import choose_device
    from skinlesion.data.synthesis.fitting import draw_images, fit_vae, reconstruct, shrink_images
    from skinlesion.data.synthesis.page import SAMPLES, Samples

    keep_freed_memory()
    rows = prepared.rows_of(train["image_id"])
    small = shrink_images(prepared.images, rows)
    labels = np.array([CLASSES.index(dx) for dx in train["dx"]])
    vae, losses = fit_vae(small, labels, params, device=choose_device(device))

    asked = counts[counts["synthetic_images"] > 0]
    batches = chain.from_iterable(
        draw_images(vae, dx, number, seed=params.seed, size=prepared.size)
        for dx, number in zip(asked["dx"], asked["synthetic_images"], strict=True)
    )
    rounded = {name: round(float(value), 3) for name, value in losses._asdict().items()}
    write_synthetic(
        batches, asked["dx"].repeat(asked["synthetic_images"]).tolist(), size=prepared.size, facts={**facts, "losses": rounded}
    )
    drawn = read_synthetic(prepared.size)
    return [
        Samples(
            dx=row.dx,
            drawn=drawn.images[[position for position, dx in enumerate(drawn.dx) if dx == row.dx][:SAMPLES]],
            training=prepared.images[rows[shown := np.flatnonzero(labels == CLASSES.index(row.dx))[:SAMPLES]]],
            reconstructed=reconstruct(vae, small[shown], row.dx, size=prepared.size),
            number=row.synthetic_images,
            training_number=row.training_images,
        )
        for row in asked.itertuples()
    ]


def write_plots(counts: pd.DataFrame, samples: "list[Samples]") -> None:
    """Write `counts.csv` and, where there are samples, `samples.png`."""
    with atomic_folder(PLOTS / "synthesize") as folder:
        write_table(counts, folder / "counts.csv", COUNT_COLUMNS)
        if samples:
            from skinlesion.data.synthesis.page import draw_page

            draw_page(samples, folder / "samples.png")


if __name__ == "__main__":
    run_stage(main)

"""Decode and resize every image once, so that training never waits for a JPEG again.

Reads `prepare` of `params.yaml` and `data/raw/images/*.jpg`.
Writes `data/prepared/images.npy` (uint8, N x size x size x 3, RGB) and `data/prepared/index.csv` (id, original size,
fit and color constancy of each image), in the order of the ids.
"""

import logging

from skinlesion.artifacts.prepared import PREPARED
from skinlesion.artifacts.raw import list_images
from skinlesion.base.cores import available_cores
from skinlesion.base.errors import run_stage
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.params import load_params
from skinlesion.data.preparing import write_prepared

logger = logging.getLogger(__name__)


@one_at_a_time("prepare")
def main() -> None:
    """Prepare every image that `download` brought."""
    params = load_params().prepare
    image_ids = list_images()
    write_prepared(image_ids, **params.model_dump(), workers=available_cores())
    megabytes = (PREPARED / "images.npy").stat().st_size / 1e6
    how = f"{params.size} x {params.size} pixels ({params.fit}, color constancy {params.color_constancy})"
    logger.info("prepare: %d images, %s, %.1f MB", len(image_ids), how, megabytes)


if __name__ == "__main__":
    run_stage(main)

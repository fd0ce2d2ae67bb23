"""The pipeline, one script a stage: `python -m stages.train` from the root, or `dvc repro` for all of them in order."""

from skinlesion.base.errors import import_faster

import_faster()

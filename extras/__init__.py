"""Optional stages beside the pipeline, one script a stage; extras/dvc.yaml chains them."""

from skinlesion.base.errors import import_faster

import_faster()

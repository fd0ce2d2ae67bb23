"""Optional stages beside the pipeline, one script a stage; extras/dvc.yaml chains them."""

from skinlesion.base.errors import import_faster, say_interrupted_in_one_line

import_faster()
say_interrupted_in_one_line()

#!/usr/bin/env bash
# Put recipes (RECIPES, names with spaces between them) and overrides (OVERRIDES, as `train.epochs=5 train.lr=0.001`) into
# params.yaml of the working directory, as `dvc exp run -S` would; nothing where both are empty.
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
"$(dirname "$0")/setup.sh" . project
exec "$(environment_of . project)/bin/python" -m ci.set_params

#!/usr/bin/env bash
# Share what was computed, run cache and all; also after a failure, so that finished stages are not computed again. The step has
# credentials and runs nothing of the checkout, which is the working directory: see fetch.sh. push.sh TRUSTED_CHECKOUT.
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
PYTHONPATH="$(realpath "$1")" exec "$(environment_of "$1" tools)/bin/python" -P -m tools.push_runs --remote ci

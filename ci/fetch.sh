#!/usr/bin/env bash
# Bring what the remote has of the results that this checkout (the working directory) would compute, so that nobody trains what
# somebody trained, and what the report shows of the commit that it compares with. The step has credentials, so it runs nothing of
# the checkout: DVC comes from the tools environment, whose `dvc` does not import from the working directory, and the remote is
# named. fetch.sh TRUSTED_CHECKOUT.
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
bin="$(environment_of "$1" tools)/bin"
# --allow-missing: a new remote is empty, and what it lacks is computed; a remote that refuses or cannot be reached ends the step.
"$bin/dvc" pull --remote ci --run-cache --allow-missing dvc.yaml
"$bin/python" -P "$1/ci/fetch_results.py" --compare-with "$(base_commit)"

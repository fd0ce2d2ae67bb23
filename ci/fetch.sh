#!/usr/bin/env bash
# Bring what the remote has of the results that this checkout (the working directory) would compute, so that nobody trains what
# somebody trained. The step has credentials, so it runs nothing of the checkout: DVC comes from the tools environment, whose
# `dvc` does not import from the working directory, and the remote is named, so that a branch cannot point it elsewhere.
# fetch.sh TRUSTED_CHECKOUT.
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
bin="$(environment_of "$1" tools)/bin"
# A new remote is empty, and a change of params.yaml leaves nothing of dvc.lock to bring: no reason to stop.
if ! "$bin/dvc" pull --remote ci --run-cache --allow-missing dvc.yaml; then
    echo "not everything that dvc.lock names is in the remote: what is missing is computed"
fi
"$bin/python" -P "$1/ci/fetch_results.py"

#!/usr/bin/env bash
# Run the pipeline in the working directory. No credentials are here: this step runs the code of the branch. What the remote has
# was fetched before; --pull goes to the remote once more where that needs none (DVC_REMOTE_READABLE is `true`).
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
"$(dirname "$0")/setup.sh" . project
PATH="$(environment_of . project)/bin:$PATH"
export PATH
pull=()
if [ "${DVC_REMOTE_READABLE:-}" = true ]; then
    pull=(--pull)
fi
mkdir -p ci-report
start=$SECONDS
dvc repro "${pull[@]}" --allow-missing dvc.yaml 2>&1 | tee ci-report/repro.log
echo "dvc repro took $((SECONDS - start)) seconds" | tee -a ci-report/repro.log

# Sourced by the other scripts: strict mode, and where what outlives a job is kept. A runner's working folder is cleaned at every
# checkout, so that the DVC cache, unfinished trainings and downloads, and the virtual environments stand in PIPELINE_STATE.
# shellcheck shell=bash
set -euo pipefail

PIPELINE_STATE="${PIPELINE_STATE:-$HOME/.local/state/skin-lesion}"
export PIPELINE_STATE
export DVC_NO_ANALYTICS=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# The commit that the run is compared with: where this one left the line of BASE, a commit, or else the one before it. BASE may be
# of a branch that was overwritten, or none at all where a branch is new.
base_commit() {
    git merge-base "${BASE:-HEAD}" HEAD 2>/dev/null || git rev-parse --verify --quiet HEAD~1 || git rev-parse HEAD
}

# The environment of a checkout ($1), by what it requires: two branches with the same requirements share one.
# Kind ($2): `project` runs the pipeline; `tools` holds DVC for the steps with credentials, and nothing of a branch runs in it.
environment_of() {
    printf '%s/environments/%s-%s\n' "$PIPELINE_STATE" "$2" \
        "$(cat "$1"/requirements.txt "$1"/requirements/* | sha256sum | cut -c -16)"
}

#!/usr/bin/env bash
# Is dvc.lock in step with the code and the parameters? Refuses a commit after which `dvc repro` would have something to run.
# Nothing is downloaded and nothing is run: --allow-missing takes the data for what dvc.lock says.
set -euo pipefail
cd "$(dirname "$0")/.."
make --silent .venv/.installed
export PATH="$PWD/.venv/bin:$PATH" DVC_NO_ANALYTICS=1
status=0
said="$(dvc repro --dry --allow-missing 2>&1)" || status=$?
printf '%s\n' "$said"
# A stage that would run and whose inputs are not here, as in a fresh clone, makes DVC fail while it looks for them.
stages="$(sed -n "s/^Running stage '\(.*\)':$/\1/p; s/^ERROR: failed to reproduce '\([^']*\)':.*/\1/p" <<<"$said" | paste -sd ' ')"
if [ -n "$stages" ]; then
    echo "error: dvc.lock is behind the code or params.yaml; what would run, as far as can be told without data: $stages." \
        "Run \`dvc repro\` and commit dvc.lock and metrics/ with the change." >&2
    exit 1
fi
exit "$status"

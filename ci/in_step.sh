#!/usr/bin/env bash
# Is dvc.lock in step with the code and the parameters? Refuses a commit after which `dvc repro` would have something to run.
# Nothing is downloaded and nothing is run: --allow-missing takes the data for what dvc.lock says.
set -euo pipefail
cd "$(dirname "$0")/.."
make --silent .venv/.installed
export PATH="$PWD/.venv/bin:$PATH" DVC_NO_ANALYTICS=1
said="$(dvc repro --dry --allow-missing)"
printf '%s\n' "$said"
if grep -q "^Running stage" <<<"$said"; then
    stages="$(sed -n "s/^Running stage '\(.*\)':$/\1/p" <<<"$said" | paste -sd ' ')"
    echo "error: dvc.lock is behind the code or params.yaml; what would run: $stages." \
        "Run \`dvc repro\` and commit dvc.lock and metrics/ with the change." >&2
    exit 1
fi

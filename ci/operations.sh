#!/usr/bin/env bash
# Rehearsals and short drills: the GPU job on the sample, remotes, and the pipeline broken on purpose.
set -euo pipefail
cd "$(dirname "$0")/.."
exec make operations

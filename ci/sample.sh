#!/usr/bin/env bash
# The pipeline for real, on the sample and from nothing, held against what is committed: the data to the byte, the metrics within
# the tolerance that ci/compare_sample.py states.
set -euo pipefail
cd "$(dirname "$0")/.."
make --silent .venv/.installed
export PATH="$PWD/.venv/bin:$PATH" DVC_NO_ANALYTICS=1
dvc repro
python -m ci.compare_sample

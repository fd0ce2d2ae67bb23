#!/usr/bin/env bash
# End processes that this job left behind, as a training whose `dvc` was killed, and nothing else on the machine.
set -euo pipefail
exec python3 -P "$(dirname "$0")/end_leftovers.py"

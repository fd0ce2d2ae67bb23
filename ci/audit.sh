#!/usr/bin/env bash
# Have the packages of requirements/pipeline.lock known holes? ci/audit-allow.toml lists what is tolerated, and until when.
set -euo pipefail
cd "$(dirname "$0")/.."
exec make audit

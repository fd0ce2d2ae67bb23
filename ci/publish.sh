#!/usr/bin/env bash
# Publish ci-report/: pictures to the branch `pipeline-reports`, the report to the job summary and, with PULL_REQUEST, to one
# comment of that pull request, which later runs update. Needs GH_TOKEN; runs nothing of the report.
set -euo pipefail
gh auth setup-git # git pushes with GH_TOKEN
exec python3 -P "$(dirname "$0")/publish.py" ci-report

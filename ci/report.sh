#!/usr/bin/env bash
# Write ci-report/: what changed since BASE (a commit), as Markdown with pictures, and the page of all plots.
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
PATH="$(environment_of . project)/bin:$PATH"
export PATH
python -m ci.report --base "$(base_commit)" --out ci-report
python -m tools.plots_page --out ci-report/plots_page
cp -r dvc.lock metrics params.yaml report ci-report/

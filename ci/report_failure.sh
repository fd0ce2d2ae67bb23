#!/usr/bin/env bash
# Write ci-report/report.md of a job that failed: the last lines of its log, and where the rest is. In the checkout.
# shellcheck disable=SC2016 # backquotes of Markdown
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
mkdir -p ci-report/plots
rm -f ci-report/plots/*
{
    printf '<!-- pipeline-report -->\n## Pipeline report: failed\n\n'
    printf '`%s`: no results. ' "$(git rev-parse --short=10 HEAD)"
    printf '[The log](%s) has all of it; what had been computed is shared, so that the next run goes on from there.\n\n' "${RUN_URL:-}"
    if [ -f ci-report/repro.log ]; then
        printf '````text\n%s\n````\n' "$(tail -n 40 ci-report/repro.log | tail -c 6000 | tr -d '`')"
    else
        printf 'It failed before the pipeline was run.\n'
    fi
} >ci-report/report.md

#!/usr/bin/env bash
# Tell DVC and the stages, in the checkout that is the working directory, where what outlives a job is kept, and which remote to
# use: DVC_REMOTE_URL, with DVC_REMOTE_ENDPOINT for an S3-compatible server that is not Amazon's, and DVC_REMOTE_REGION. All of it
# goes into .dvc/config.local, which git ignores; credentials are not written anywhere. configure.sh TRUSTED_CHECKOUT.
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
dvc="$(environment_of "$1" tools)/bin/dvc"
: "${DVC_REMOTE_URL:?is not set: name the storage that results are shared through, as s3://bucket/skin-lesion}"
# What git has of a remote of this name would be merged with ours, and could lead credentials elsewhere.
if "$dvc" config --project --list | grep "^remote\.ci\."; then
    echo "error: .dvc/config has a remote of the name ci, which is this job's own: give it another name" >&2
    exit 1
fi
mkdir -p "$PIPELINE_STATE/dvc-cache" .resume
"$dvc" config --local cache.dir "$PIPELINE_STATE/dvc-cache"
"$dvc" remote add --local --force --default ci "$DVC_REMOTE_URL"
"$dvc" remote modify --local ci verify true # a file that was altered there is refused
if [ -n "${DVC_REMOTE_ENDPOINT:-}" ]; then
    "$dvc" remote modify --local ci endpointurl "$DVC_REMOTE_ENDPOINT"
fi
if [ -n "${DVC_REMOTE_REGION:-}" ]; then
    "$dvc" remote modify --local ci region "$DVC_REMOTE_REGION"
fi
# Unfinished trainings go on in the next job, and what was downloaded is used there; what else is in .resume/ is of this checkout.
for scratch in download precision train; do
    mkdir -p "$PIPELINE_STATE/resume/$scratch"
    ln -sfn "$PIPELINE_STATE/resume/$scratch" ".resume/$scratch"
done

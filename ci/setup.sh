#!/usr/bin/env bash
# Install what a job on a GPU runner needs: setup.sh CHECKOUT project|tools.
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "$0")/environment.sh"
checkout="$(realpath "$1")"
kind="$2"
environment="$(environment_of "$checkout" "$kind")"
case "$kind" in
project) packages=(--require-hashes -r "$checkout/requirements/pipeline.lock") ;;
# DVC and its remotes; not torch, which no step with credentials needs.
tools) packages=(--require-hashes -r "$checkout/requirements/tools.lock") ;;
*)
    echo "error: kind is '$kind'; it can be project or tools" >&2
    exit 1
    ;;
esac
if [ ! -f "$environment/.complete" ]; then
    rm -rf "$environment"
    [ "$kind" = tools ] || python3 "$checkout/tools/check_setup.py" --venv "$environment"
    python3 -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet "${packages[@]}"
    touch "$environment/.complete"
fi
echo "$kind environment: $environment"

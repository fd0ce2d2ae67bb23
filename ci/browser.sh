#!/usr/bin/env bash
# Have the programs that the tests of the demo and of the proxy need: Chromium and nginx, Debian's packages, installed where that
# needs no password. If one is not available, say why and succeed: its tests then skip with their own reason, or fail where
# BROWSER_REQUIRED is set.
set -euo pipefail
PATH="$PATH:/usr/sbin"
missing=()
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
command -v nginx >/dev/null || missing+=(nginx-light)
if [ "${#missing[@]}" = 0 ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "no apt-get here: install these for the tests of the demo and the proxy: ${missing[*]}" >&2
    exit 0
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "installing needs a password: sudo apt-get install ${missing[*]}" >&2
        exit 0
    fi
    as_root=(sudo)
fi
"${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install --yes -qq "${missing[@]}" >/dev/null ||
    echo "apt-get could not install ${missing[*]}, see above" >&2

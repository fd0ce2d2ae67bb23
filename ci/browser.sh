#!/usr/bin/env bash
# Have Chromium for the demo's tests: Debian's package, installed where that needs no password. Where it cannot be had, say why and
# succeed: tests/browser then skips with its own reason, or fails where BROWSER_REQUIRED is set.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then
        exit 0
    fi
done
if ! command -v apt-get >/dev/null; then
    echo "no Chromium and no apt-get here: install Chromium for the demo's tests" >&2
    exit 0
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "no Chromium, and installing it needs a password: sudo apt-get install chromium" >&2
        exit 0
    fi
    as_root=(sudo)
fi
"${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install --yes -qq chromium >/dev/null ||
    echo "no Chromium: apt-get could not install it, see above" >&2

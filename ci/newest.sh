#!/usr/bin/env bash
# The sample and the suite with the newest releases of everything: what the next `make lock UPGRADE=--upgrade` will meet.
# The names are those of the requirements files, their pins taken off; the lock is left alone. Makes the environment NEWEST_VENV.
set -euo pipefail
cd "$(dirname "$0")/.."
environment="${NEWEST_VENV:-.venv-newest}"

sed -E '/^(#|$)/d; s/==.*//' requirements.txt requirements/remotes.txt requirements/app.txt requirements/dev.txt >newest.txt
trap 'rm -f newest.txt' EXIT
[ "$(wc -l <newest.txt)" -gt 20 ] || { echo "error: no names in the requirements files" >&2; exit 1; }
rm -rf "$environment"
python3 -m venv "$environment"
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade --requirement newest.txt
PATH="$PWD/$environment/bin:$PATH"
export PATH

echo "newer than the lock (lock, newest):"
python - <<'END'
import re
from importlib.metadata import distributions

text = "".join(open(name, encoding="utf-8").read() for name in ("requirements/pipeline.lock", "requirements/app.lock"))
locked = dict(re.findall(r"^([a-z0-9._-]+)==([^ ;]+)", text, re.MULTILINE))
for found in sorted(distributions(), key=lambda each: each.name.lower()):
    name = re.sub(r"[-_.]+", "-", found.name).lower()
    if locked.get(name, found.version) != found.version:
        print(f"  {name} {locked[name]} {found.version}")
END
[ "${1:-}" != --list ] || exit 0
python -m pytest --numprocesses 2 --dist worksteal

#!/usr/bin/env bash
# Build the image of compose.yaml, start both services on the classifier of the sample, and ask each for what it is there for.
set -euo pipefail
cd "$(dirname "$0")/.."
make run
export COMPOSE_FILE=deploy/compose.yaml
trap 'docker compose logs --tail 50; docker compose down' EXIT
docker compose up --build --detach --wait --wait-timeout 180
for service in api app; do
    user="$(docker compose exec -T "$service" id -u)"
    if [ "$user" != 10001 ]; then
        echo "error: $service runs as user $user" >&2
        exit 1
    fi
    if docker compose exec -T "$service" touch /srv/skin-lesion/written 2>/dev/null; then
        echo "error: $service can write to its file system" >&2
        exit 1
    fi
done
image="$(find data/raw/images -name '*.jpg' | sort | head -n 1)"
answer="$(curl --fail --silent --show-error --form "files=@$image" http://127.0.0.1:8000/predict)"
grep -q '"probabilities"' <<<"$answer"
curl --fail --silent --show-error --output /dev/null http://127.0.0.1:8501/
echo "both services answer, without rights, on a read-only file system"

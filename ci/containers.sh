#!/usr/bin/env bash
# Build the image of compose.yaml, start the services on the classifier of the sample, and ask API and demo through the proxy.
set -euo pipefail
cd "$(dirname "$0")/.."
make run
export COMPOSE_FILE=deploy/compose.yaml
trap 'docker compose logs --tail 50; docker compose down' EXIT
docker compose up --build --detach --wait --wait-timeout 180
for service in proxy api app; do
    user="$(docker compose exec -T "$service" id -u)"
    if [ "$user" != 10001 ]; then
        echo "error: $service runs as user $user" >&2
        exit 1
    fi
    if docker compose exec -T "$service" sh -c 'touch /srv/written || touch /etc/nginx/written' 2>/dev/null; then
        echo "error: $service can write to its file system" >&2
        exit 1
    fi
done
image="$(find data/raw/images -name '*.jpg' | sort | head -n 1)"
answer="$(curl --fail --silent --show-error --form "files=@$image" http://127.0.0.1:8000/predict)"
grep -q '"probabilities"' <<<"$answer"
curl --fail --silent --show-error --output /dev/null http://127.0.0.1:8501/
echo "API and demo answer through the proxy, without rights, on a read-only file system"

#!/usr/bin/env bash
# Work through DVC's queue of experiments with one worker a GPU: ci/queue_gpus.sh 0 1 2 3
#
# A worker hands its environment to what it runs, and `dvc queue start --jobs N` adds workers until there are N: so that each call
# adds one, which sees one GPU. DVC finds a worker only once it answers; started before that, the next call would start it twice.
set -euo pipefail

[ $# -gt 0 ] || { echo "error: name the GPUs, as \`nvidia-smi --list-gpus\` numbers them: $0 0 1" >&2; exit 2; }
for gpu in "$@"; do
    [[ $gpu =~ ^([0-9]+|GPU-[0-9a-f-]+|MIG-[0-9A-Za-z/-]+)$ ]] || { echo "error: '$gpu' is no number or UUID of a GPU" >&2; exit 2; }
done
[ "$(printf '%s\n' "$@" | sort | uniq --repeated)" = "" ] || { echo "error: a GPU is named twice: $*" >&2; exit 2; }

workers() { dvc queue status | awk '/^Worker status:/ {print $3 + $5}'; }

there=$(workers)
[ "$there" = 0 ] || { echo "error: $there workers are there already, on GPUs of their own: \`dvc queue stop\` first" >&2; exit 1; }

wanted=0
for gpu in "$@"; do
    wanted=$((wanted + 1))
    CUDA_VISIBLE_DEVICES=$gpu dvc queue start --jobs "$wanted"
    for _ in $(seq 60); do
        [ "$(workers)" -lt "$wanted" ] || break
        sleep 1
    done
    [ "$(workers)" -ge "$wanted" ] || { echo "error: the worker of GPU $gpu does not answer; see .dvc/tmp/exps/celery" >&2; exit 1; }
done
echo "$wanted workers, one a GPU; \`dvc queue status\` shows them, \`dvc queue stop\` ends them when their experiment has ended"

#!/usr/bin/env bash
# Work through DVC's queue of experiments with one worker a GPU, and end when it is empty: ci/queue_gpus.sh 0 1 2 3
#
# A worker hands its environment to what it runs. `dvc queue start --jobs N` gives all workers the same one; so they are started here
# by the command that it uses itself (hidden from DVC's help, at the version of requirements.txt). Ctrl-C ends them all.
set -euo pipefail

[ $# -gt 0 ] || { echo "error: name the GPUs, as \`nvidia-smi --list-gpus\` numbers them: $0 0 1" >&2; exit 2; }
for gpu in "$@"; do
    [[ $gpu =~ ^([0-9]+|GPU-[0-9a-f-]+|MIG-[0-9A-Za-z/-]+)$ ]] || { echo "error: '$gpu' is no number or UUID of a GPU" >&2; exit 2; }
done
[ "$(printf '%s\n' "$@" | sort | uniq --repeated)" = "" ] || { echo "error: a GPU is named twice: $*" >&2; exit 2; }
[ -d .dvc/tmp/exps ] || { echo "error: no queue here: \`dvc exp run --queue\` first, in the project's root" >&2; exit 1; }

exec 9>.dvc/tmp/exps/queue_gpus.lock
flock --nonblock 9 || { echo "error: another $0 works through this queue: wait for it, or end it" >&2; exit 1; }

workers=()
trap '[ ${#workers[@]} -eq 0 ] || kill "${workers[@]}" 2>/dev/null || true' EXIT
for gpu in "$@"; do
    CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=$gpu dvc exp queue-worker --quiet "dvc-exp-gpu-${gpu//[^0-9A-Za-z]/-}@localhost" 9>&- &
    workers+=($!)
    echo "worker of GPU $gpu: process $!"
done

failed=0
for worker in "${workers[@]}"; do
    wait "$worker" || failed=1
done
workers=()
[ "$failed" = 0 ] || { echo "error: a worker ended with an error, see above" >&2; exit 1; }
echo "the queue is empty; \`dvc queue status\` says how each experiment ended"

#!/usr/bin/env bash
# Runs a command of the job in the image NAME on this machine: NAME train --recipe A --bucket bucket ...
#
# A bucket that is a folder is mounted; work/ has data and staged checkpoints. Files belong to the calling user. The
# container gets this machine's GPUs if there are any. A training's --data and a prediction's pictures are mounted to be read only, and its --out to
# be written, below /host under the paths that they have here: so the job sees if one lies in the other.
set -euo pipefail
# shellcheck source=docker/engine.sh
source "$(dirname "$0")/engine.sh"
image=$1
shift
require_image "$image"

options=(run --rm --read-only --tmpfs /tmp --ipc host --user "$(id -u):$(id -g)")
if [[ -t 0 && -t 1 ]]; then
    options+=(--interactive --tty)
    export LOG=${LOG:-text} # the image asks for JSON lines, and this is a person
fi
is_podman && [[ $(id -u) != 0 ]] && options+=(--userns keep-id)
if nvidia-smi >/dev/null 2>&1; then
    # Podman 4 takes --gpus and does nothing.
    if is_podman; then options+=(--device nvidia.com/gpu=all); else options+=(--gpus all); fi
fi
for variable in WANDB_{API_KEY,BASE_URL,ENTITY,MODE,PROJECT} JOB_{BUCKET,NOTIFY,USD_PER_HOUR} LOG; do # by name: a value would show in the list of processes
    [[ -n ${!variable:-} ]] && options+=(--env "$variable")
done

# Mounts a file or folder of this machine, `readonly` or not, and sets `word` to its path in the container.
mount_path() {
    if [[ -d $word ]]; then word=$(cd "$word" && pwd); else word=$(cd "$(dirname "$word")" && pwd)/$(basename "$word"); fi
    options+=(--mount "type=bind,source=$word,target=/host$word${1:+,$1}")
    word=/host$word
}

words=() previous='' flags=
for word in "$@"; do
    [[ $word == --* ]] && flags=begun
    if [[ ${1:-} == predict && -z $flags && ${#words[@]} -ge 2 && -e $word ]]; then # behind the command and the run
        mount_path readonly
    elif [[ ${1:-} == predict && $previous == --out && $word != *://* ]]; then
        mkdir -p "$word"
        mount_path ''
    elif [[ $previous == --data && -e $word ]]; then
        mount_path readonly
    elif [[ $previous == --bucket && $word != *://* ]]; then
        mkdir -p "$word"
        options+=(--volume "$(realpath "$word"):/bucket")
        word=/bucket
    fi
    words+=("$word")
    previous=$word
done
mkdir -p work
exec "$engine" "${options[@]}" --volume "$(realpath work):/work/work" "$image" "${words[@]}"

#!/usr/bin/env bash
# Builds the image NAME, or a TARGET of the Dockerfile, from the lock: NAME [TARGET [FLAG OF THE ENGINE...]].
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=docker/engine.sh
source docker/engine.sh

# One time for all files, of any commit: a layer with the same content is the same layer, on any day. Podman sets it by a
# flag; with Docker the large layers have it, by the Dockerfile.
epoch=$(sed -n 's/^ARG SOURCE_DATE_EPOCH=//p' docker/Dockerfile)
times=()
if is_podman; then times=(--timestamp "$epoch"); fi

# A build of this machine may need its network; nothing of its environment is passed on.
exec "$engine" build --network host --file docker/Dockerfile --tag "$1" ${2:+--target "$2"} \
    "${@:3}" ${times[@]+"${times[@]}"} ${BASE_IMAGE:+--build-arg "BASE_IMAGE=$BASE_IMAGE"} \
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
    --build-arg "VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' job/__init__.py)" .

#!/usr/bin/env bash
# Builds the image NAME, or a TARGET of the Dockerfile, from the lock: NAME [TARGET].
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=docker/engine.sh
source docker/engine.sh

# A build of this machine may need its network; nothing of its environment is passed on.
exec "$engine" build --network host --file docker/Dockerfile --tag "$1" ${2:+--target "$2"} \
    ${BASE_IMAGE:+--build-arg "BASE_IMAGE=$BASE_IMAGE"} \
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
    --build-arg "VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' job/__init__.py)" .

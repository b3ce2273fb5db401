# Finds the container engine; read by the other scripts of this folder.
# shellcheck shell=bash

# shellcheck disable=SC2034 # for the scripts that read this file
engine=${CONTAINER_ENGINE:-$(command -v docker || command -v podman || true)}
if [[ -z $engine ]]; then
    echo "container engine: neither docker nor podman was found; install Docker Engine or Podman" >&2
    exit 78
elif ! command -v "$engine" >/dev/null; then
    echo "container engine: CONTAINER_ENGINE names $engine, which is not here; install it, or name another" >&2
    exit 78
fi

# Whether the engine is Podman; its package podman-docker installs it under the name docker.
is_podman() {
    [[ $("$engine" --version) == *podman* ]]
}

# Whether the engine is a Docker whose buildx reads the images that are here.
has_buildx() {
    "$engine" buildx version >/dev/null 2>&1 &&
        [[ $("$engine" info --format '{{.DriverStatus}}' 2>/dev/null) == *io.containerd.snapshotter* ]]
}

# What make built, and nothing that was pulled under the same name.
require_image() {
    if ! "$engine" image inspect "$1" >/dev/null 2>&1; then
        echo "image $1: is not here; run make image" >&2
        exit 78
    fi
}

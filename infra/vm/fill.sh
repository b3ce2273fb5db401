#!/bin/bash
# Fills the disk of a machine that becomes a boot image with a container image and the GPU driver, and turns it off once both
# are there; `make boot-image` starts it with this script. The container image's name is the metadata's boot-image-container.

set -euo pipefail

METADATA="http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1/instance"
export DOCKER_CONFIG=${DOCKER_CONFIG:-/run/fill} # the registry's token is kept in memory, and so in no image

metadata() {
    curl --silent --show-error --fail --max-time 60 --retry 5 --retry-connrefused \
        --header 'Metadata-Flavor: Google' "$METADATA/$1"
}

trap 'echo "boot image: cannot be filled; line $LINENO of the startup script failed, and what it said is above" >&2' ERR

image=$(metadata attributes/boot-image-container)
token=$(metadata service-accounts/default/token | sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p')
docker login --username oauth2accesstoken --password-stdin "https://${image%%/*}" <<<"$token"
docker pull "$image"
cos-extensions install gpu # later starts find it in /var/lib/nvidia
poweroff

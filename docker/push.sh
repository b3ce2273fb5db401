#!/usr/bin/env bash
# Pushes the image NAME to REPOSITORY, there called job or OTHER, under a tag that is never used again, and prints the digest
# that a job is named by: NAME REPOSITORY [OTHER].
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=docker/engine.sh
source docker/engine.sh
require_image "$1"

repository=$2
if [[ -z $repository && -e infra/outputs.json ]]; then
    repository=$(sed -n '/"image_repository"/,/}/s/.*"value": *"\(.*\)".*/\1/p' infra/outputs.json)
fi
if [[ -z $repository ]]; then
    echo "make push: REPOSITORY is missing, for example REGION-docker.pkg.dev/PROJECT/yolo; make infra-apply makes one" >&2
    exit 2
fi
# Artifact Registry takes the token of the login that everything else uses, other people's impersonation included. Without
# gcloud the engine's own credentials have to do.
registry=${repository%%/*}
if [[ $registry == *-docker.pkg.dev ]] && command -v gcloud >/dev/null; then
    if ! token=$(gcloud auth application-default print-access-token); then
        echo "make push: $registry needs a login; run gcloud auth application-default login" >&2
        exit 78
    fi
    "$engine" login --username oauth2accesstoken --password-stdin "https://$registry" <<<"$token" >&2
fi
called=${3:-job}
target=$repository/$called:$(date -u +%Y%m%d-%H%M%S)
"$engine" tag "$1" "$target"
# Podman compresses on the way, so that the registry's digest is none that the image here has; Docker knows it afterwards.
# A machine has to fetch and unpack every layer before it trains: zstd makes a quarter less of them than gzip, and unpacks
# faster. Docker pulls it from version 23 on; Container-Optimized OS has a later one. It pushes gzip itself; what it keeps in
# containerd's image store buildx pushes with other compression, and builds nothing.
pushed=$(mktemp)
trap 'rm -f "$pushed"' EXIT
if is_podman; then
    compression=(--compression-format zstd)
    if [[ $("$engine" push --help) == *--compression-level* ]]; then # an older Podman has none
        compression+=(--compression-level 10)
    fi
    "$engine" push "${compression[@]}" --digestfile "$pushed" "$target" >&2
    digest=$repository/$called@$(<"$pushed")
elif has_buildx; then
    "$engine" buildx build --provenance false --metadata-file "$pushed" --output \
        "type=image,name=$target,push=true,oci-mediatypes=true,compression=zstd,compression-level=10,force-compression=true" \
        - <<<"FROM $1" >&2
    digest=$repository/$called@$(sed -n 's/.*"containerimage.digest": *"\([^"]*\)".*/\1/p' "$pushed")
else
    "$engine" push "$target" >&2
    digest=$("$engine" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$target" |
        grep "^$repository/$called@" | head -n 1)
fi
echo "IMAGE=$digest"

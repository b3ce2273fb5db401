#!/bin/bash
# Usage: boot_image.sh
#
# Makes a boot image that has the container image IMAGE, of the environment, and the GPU driver inside, and writes its name
# to infra/terraform.tfvars. A Spot machine of the VM's type fills its disk (infra/vm/fill.sh), since the driver is
# installed only where there is a GPU, and turns itself off once all is there.
# Guarantees that the machine is deleted: by this script, however it ends, and by Compute Engine after 40 minutes.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/require.sh"

DIGEST='@sha256:[0-9a-f]{64}$'
SETTINGS="$INFRA/terraform.tfvars"
DISK_GB=50
PAUSE_S=${BOOT_IMAGE_PAUSE_S:-15}
MOST_LOOKS=$((40 * 60 / PAUSE_S))

# The system of Batch's own images: on Container-Optimized OS it does not install its agent, which these have
# (github.com/GoogleCloudPlatform/batch-samples, build-custom-image/build-cos-image). The VM's boot files run there as well.
SYSTEM=(--image-project batch-custom-image --image-family batch-cos-stable-official)

machine() { # verb and flags of gcloud
    local verb=$1
    shift
    gcloud compute instances "$verb" "$name" --project "$project" --zone "$zone" "$@"
}

# Zones of the region that have the machine type.
zones() {
    gcloud compute machine-types list --project "$project" --filter "name=$type AND zone~^$region-" \
        --format 'value(zone.basename())'
}

# Asks one zone after the other, since Spot has machines in some.
start() {
    local image=$1 account subnetwork
    account=$(output runtime_service_account)
    subnetwork=$(output subnetwork)
    for zone in $(zones); do
        if machine create --machine-type "$type" --provisioning-model SPOT --maintenance-policy TERMINATE \
            --instance-termination-action DELETE --max-run-duration 40m "${SYSTEM[@]}" --shielded-secure-boot \
            --boot-disk-size "${DISK_GB}GB" --boot-disk-type pd-ssd --subnet "$subnetwork" --no-address \
            --service-account "$account" --scopes cloud-platform --metadata "boot-image-container=$image" \
            --metadata-from-file "startup-script=$INFRA/vm/fill.sh" >&2; then
            started=yes
            return
        fi
    done
    fail 75 "make boot-image: no zone of $region gave a Spot machine of type $type; see what gcloud says above, and try later"
}

wait_until_filled() {
    local look state
    for ((look = 1; look <= MOST_LOOKS; look++)); do
        state=$(machine describe --format 'value(status)') ||
            fail 75 "make boot-image: the machine that fills the image was taken; make boot-image starts another one"
        [[ $state != TERMINATED ]] || return 0
        if machine get-serial-port-output 2>/dev/null | grep 'boot image: cannot be filled' >&2; then
            fail 70 "make boot-image: container or driver could not be put into the image; the machine said why, above"
        fi
        sleep "$PAUSE_S"
    done
    fail 70 "make boot-image: the machine that fills the image did not end within 40 minutes"
}

write_setting() {
    local rest
    rest=$(grep -v '^ *boot_image\b' "$SETTINGS" || true)
    printf '%s\nboot_image = "%s"\n' "$rest" "$1" >"$SETTINGS.part"
    mv "$SETTINGS.part" "$SETTINGS"
}

delete_machine() {
    [[ -z ${started:-} ]] || machine delete --quiet >&2 || true
    rm -f "$CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"
}

image=${IMAGE:-}
require_gcloud
require_outputs
[[ -e $SETTINGS ]] || fail 78 "infra/terraform.tfvars: is not there, and the image's name belongs into it; run this where make infra-apply runs"
[[ $image == */* ]] || image="$(output image_repository)/$image"
[[ $image =~ $DIGEST ]] ||
    fail 2 "make boot-image: IMAGE must name an image by its digest, NAME@sha256:..., got '${IMAGE:-}'; make push prints it"
project=$(output project)
region=$(output region)
type=$(output vm_machine_type)
family=$(output group)
family=${family%-vm}-boot
name=$family-$(date -u +%Y%m%d-%H%M%S)
trap delete_machine EXIT

start "$image"
wait_until_filled
gcloud compute images create "$name" --project "$project" --family "$family" --source-disk "$name" --source-disk-zone "$zone" \
    --storage-location "$region" --description "$image" >&2
write_setting "projects/$project/global/images/$name"
echo "boot image $name is made, and infra/terraform.tfvars names it; make infra-apply has Batch and the VM boot it"

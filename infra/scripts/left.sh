#!/bin/bash
# Usage: left.sh
#
# Lists everything in the project that is billed by the hour whether or not it is used, or starts what is, and fails if
# there is any.
# Guarantees that nothing is called absent because a question failed.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/require.sh"

require_gcloud
require_outputs
project=$(output project)
region=$(output region)
num_left=0

look_for() { # what they are called, how to be rid of them, and the question to gcloud
    local things=$1 remedy=$2 found
    shift 2
    found=$(gcloud "$@" --project "$project") ||
        fail 78 "$things of $project: cannot be listed, so nothing is proven; see what gcloud says above"
    if [[ -z $found ]]; then
        echo "no $things"
    else
        num_left=$((num_left + $(wc -l <<<"$found")))
        printf '%s:\n%s\n  %s\n' "$things" "${found//$'\t'/  }" "$remedy"
    fi
}

look_for "groups with machines" "make vm-down" \
    compute instance-groups managed list --filter 'targetSize>0' --format 'value(name,targetSize)'
look_for "Batch jobs under way" "make cancel, or gcloud batch jobs delete NAME" \
    batch jobs list --format 'value(name,status.state)' \
    --filter 'status.state:(QUEUED SCHEDULED RUNNING CANCELLATION_IN_PROGRESS DELETION_IN_PROGRESS)'
look_for "schedules that start machines" "make supervise-down" \
    scheduler jobs list --location "$region" --filter state=ENABLED --format 'value(name.basename(),state)'
look_for "machines" "gcloud compute instances delete NAME --zone ZONE" \
    compute instances list --format 'value(name,zone.basename(),status)'
look_for "disks" "gcloud compute disks delete NAME --zone ZONE" \
    compute disks list --format 'value(name,location(),sizeGb)'
look_for "addresses" "nat-auto-ip-... go with make infra-destroy, others with gcloud compute addresses delete NAME" \
    compute addresses list --format 'value(name,region.basename(),status)'

((num_left == 0)) || fail 1 "$project: $num_left left that cost money by the hour; see how to be rid of each above"
echo "nothing is left in $project that costs money by the hour; what is stored still does: bucket, images, logs, the secret"

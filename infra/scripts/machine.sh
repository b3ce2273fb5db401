#!/bin/bash
# Usage: machine.sh up|status|down
#
# The machine of the VM road. `up` tells the group what to train and asks it for one machine; the machine resizes the
# group to zero by itself, when the run is over or at its limit. RECIPE, RUN, IMAGE, MAX_USD, NO_LIMIT, NO_PREFLIGHT and
# ARGS come from the environment, as make passes them.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/require.sh"

DIGEST='@sha256:[0-9a-f]{64}$'

group() { # verb and flags of gcloud
    local verb=$1
    shift
    # shellcheck disable=SC2086 # a verb may be two words
    gcloud compute instance-groups managed $verb "$name" --project "$project" --region "$region" "$@"
}

up() {
    local recipes image=${IMAGE:-} command size hours now until=never
    recipes=$(cd "$INFRA/../job/recipes" && echo *.yaml)
    [[ ${RECIPE:-} =~ ^[A-Za-z0-9_-]+$ && -e $INFRA/../job/recipes/$RECIPE.yaml ]] ||
        fail 2 "make vm-up: RECIPE must be one of ${recipes//.yaml/}, got '${RECIPE:-}'; a file of your own is not in the image"
    [[ $image == */* ]] || image="$(output image_repository)/$image"
    [[ $image =~ $DIGEST ]] ||
        fail 2 "make vm-up: IMAGE must name an image by its digest, NAME@sha256:..., got '${IMAGE:-}'; make push prints it"
    [[ ${RUN:-x} =~ ^[A-Za-z0-9][A-Za-z0-9_-]*$ ]] ||
        fail 2 "make vm-up: RUN must be a name of letters, digits, - and _, got '$RUN'"
    command="train --recipe $RECIPE${RUN:+ --run $RUN}${ARGS:+ $ARGS}"
    [[ $command != *[$'\n|']* ]] || fail 2 "make vm-up: RUN and ARGS must be words on one line without |, got '$command'"
    hours=$(limit)
    [[ -n ${NO_PREFLIGHT:-} ]] || preflight
    now=$(date +%s)
    [[ $hours == never ]] || until=$(awk "BEGIN { printf \"%d\", $now + $hours * 3600 }")
    size=$(group describe --format 'value(targetSize)')
    [[ $size == 0 ]] ||
        fail 65 "group $name: has a machine already; make vm-status shows what it trains, make vm-down stops it"
    group update --on-repair-allow-changing-zone YES || # gcloud 576 and later
        echo "group $name: a preempted machine comes back in its own zone alone, and waits until one is free there;" \
            "see what gcloud says above: an older one is updated by gcloud components update" >&2
    # The delimiter is | because a command may have commas.
    group 'all-instances-config update' --metadata \
        "^|^trainer-image=$image|trainer-command=$command|trainer-until=$until|trainer-order=$now"
    group resize --size 1
    echo "a machine was asked for and will run: job $command"
    echo "make vm-status shows it; it goes when the run is over"
}

# Checks the project for the machine; nothing is changed if a check fails.
preflight() {
    local dataset='' given='(^|[ -])dataset[= ]([^ ]+)'
    [[ ${ARGS:-} =~ $given ]] && dataset=${BASH_REMATCH[2]}
    "$JOB" doctor --vm --recipe "$RECIPE" --image "$image" --machine "$(output vm_machine_type)" \
        ${dataset:+"--dataset=$dataset"} >&2
}

# Longest duration of a machine in hours, or never; logs its cost.
limit() {
    require_job
    "$JOB" limit "$(output vm_machine_type)" ${MAX_USD:+"--max-usd=$MAX_USD"} ${NO_LIMIT:+--no-limit}
}

status() {
    group describe --format 'yaml(targetSize, allInstancesConfig.properties.metadata)'
    group list-instances
    echo "what kept the group from getting a machine, the newest first:"
    group list-errors --limit 5
}

down() {
    group resize --size 0
    echo "the machine is asked to commit and goes; make vm-up with the same values continues the run"
}

require_gcloud
require_outputs
project=$(output project)
region=$(output region)
name=$(output group)
case ${1:-} in
    up | status | down) "$1" ;;
    *) fail 2 "machine.sh: must be up, status or down, got '${1:-}'" ;;
esac

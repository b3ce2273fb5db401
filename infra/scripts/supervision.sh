#!/bin/bash
# Usage: supervision.sh up|down
#
# Supervision of a run without a laptop: a Cloud Run job that looks at the run once, and a schedule that starts it every
# five minutes. When the run has ended the job pauses the schedule. Its settings are those of this machine, as an argument.
# RUN, IMAGE, MAX_USD and NO_LIMIT come from the environment, as make passes them.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/require.sh"

DIGEST='@sha256:[0-9a-f]{64}$'
EVERY='*/5 * * * *'

run_jobs() { # verb and flags of gcloud
    local verb=$1
    shift
    gcloud run jobs "$verb" "$@" --project "$project" --region "$region"
}

schedules() { # verb and flags of gcloud
    local verb=$1
    shift
    # shellcheck disable=SC2086 # a verb may be two words
    gcloud scheduler jobs $verb "$@" --project "$project" --location "$region"
}

optional() { # name of one of Terraform's outputs, which leaves out those that are null
    "${PYTHON:-python3}" -c 'import json, sys; print(json.load(open(sys.argv[1])).get(sys.argv[2], {}).get("value", ""))' "$OUTPUTS" "$1"
}

# Each is empty if there is none.
schedule_state() {
    schedules list --format 'value(name.basename(),state)' | awk -v name="$name" '$1 == name { print $2 }'
}

made_job() {
    run_jobs list --format 'value(metadata.name)' | awk -v name="$name" '$1 == name'
}

# What the container is started with, between bars: the settings are those of a submission here, and never a record's.
arguments() {
    local settings
    require_job
    settings=$("$JOB" settings) || exit
    printf '%s|' supervise "$RUN" --once "--schedule=projects/$project/locations/$region/jobs/$name"
    [[ -z ${MAX_USD:-} ]] || printf '%s|' "--max-usd=$MAX_USD"
    [[ -z ${NO_LIMIT:-} ]] || printf '%s|' --no-limit
    printf '%s' "--settings=$settings"
}

up() {
    local image=${IMAGE:-} account webhook words state secrets=(--clear-secrets)
    [[ ${RUN:-} =~ ^[A-Za-z0-9][A-Za-z0-9_-]*$ ]] ||
        fail 2 "make supervise-up: RUN must be a name of letters, digits, - and _, got '${RUN:-}'"
    [[ $image == */* ]] || image="$(output image_repository)/$image"
    [[ $image =~ $DIGEST ]] ||
        fail 2 "make supervise-up: IMAGE must name the supervisor's image by its digest, got '${IMAGE:-}'; make supervisor-image prints it"
    [[ ${MAX_USD:-1} =~ ^[0-9]+(\.[0-9]+)?$ ]] ||
        fail 2 "make supervise-up: MAX_USD must be a number of dollars, got '$MAX_USD'"
    account=$(output supervisor_service_account)
    webhook=$(optional notify_secret)
    [[ -z $webhook ]] || secrets=(--set-secrets "JOB_NOTIFY=$webhook")
    words=$(arguments)
    state=$(schedule_state)
    [[ $state != ENABLED ]] || fail 65 "schedule $name: supervises a run already; make supervise-down ends that"
    [[ -z $state ]] || schedules delete "$name" --quiet
    run_jobs deploy "$name" --image "$image" --service-account "$account" --args "^|^$words" "${secrets[@]}" \
        --max-retries 0 --task-timeout 10m --memory 1Gi --quiet
    schedules 'create http' "$name" --schedule "$EVERY" --http-method POST --oauth-service-account-email "$account" \
        --uri "https://run.googleapis.com/v2/projects/$project/locations/$region/jobs/$name:run"
    if ! run_jobs execute "$name" --wait; then
        schedules delete "$name" --quiet
        fail 70 "run $RUN: the first look at it failed or gave it up, so there will be no other; the log of Cloud Run job $name says why"
    fi
    if [[ $(schedule_state) == PAUSED ]]; then
        echo "run $RUN has ended, so there will be no other look; make supervise-down removes the schedule"
        return
    fi
    echo "run $RUN is looked at every five minutes until it ends; make supervise-down ends that before"
}

down() {
    local found
    found=$(schedule_state)
    [[ -z $found ]] || schedules delete "$name" --quiet
    found=$(made_job)
    [[ -z $found ]] || run_jobs delete "$name" --quiet
    echo "no run is supervised from the cloud now; what is submitted goes on"
}

require_gcloud
require_outputs
project=$(output project)
region=$(output region)
name=$(output supervisor)
case ${1:-} in
    up | down) "$1" ;;
    *) fail 2 "supervision.sh: must be up or down, got '${1:-}'" ;;
esac

#!/bin/bash
# Trains one run on this machine, from boot to its end, and then has the machine's group resized to zero.
#
# Guarantees: the training is started again after whatever trying again may help against, and the group is asked for
# zero machines until this machine is gone once the run is finished (exit 0), failed for good (2, 65, 70, 74), ended over
# and over without a checkpoint, or is at its limit. A machine that is unfit (78) is given back for another one, once.
# Knows nothing of runs: `job train` resumes by itself, and on a finished run exits 0 at once.
#
# What to train comes from the group's metadata (`make vm-up` writes it): trainer-image, trainer-command, trainer-until
# (when it has to end, in seconds since 1970, or never) and trainer-order (one word for each `make vm-up`). BUCKET,
# ARCHIVE and WANDB_SECRET come from Terraform, through the unit's environment. The other variables are for tests.

set -fuo pipefail # the words of a command are no patterns

METADATA="http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1/instance"
COMPUTE="${COMPUTE_API:-https://compute.googleapis.com}/compute/v1"
SECRETS="${SECRETS_API:-https://secretmanager.googleapis.com}/v1"
STORAGE="${STORAGE_API:-https://storage.googleapis.com}/upload/storage/v1"
PAUSE_S=10 # before the first try again; doubles
LONGEST_PAUSE_S=300
GONE_S=120 # how long a machine may take to vanish after its group was resized
USUAL_HOURS=48 # if the group does not say until when
MAX_CRASHES=8 # without a checkpoint in between: a GPU is paid for meanwhile
MAX_AGAIN=20 # ends that ask to be tried again (75), without a checkpoint in between

say() {
    printf 'trainer: %s\n' "$*" >&2
}

# Transient answers and refused connections are tried again by curl; a body is printed on success alone.
http() {
    curl --silent --show-error --fail --max-time 60 --retry 5 --retry-connrefused --retry-max-time 120 "$@"
}

metadata() {
    http --header 'Metadata-Flavor: Google' "$METADATA/$1"
}

status_of_metadata() {
    curl --silent --max-time 60 --output /dev/null --write-out '%{http_code}' \
        --header 'Metadata-Flavor: Google' "$METADATA/$1"
}

token() {
    metadata service-accounts/default/token | sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p'
}

# The header goes to curl through a file descriptor: what is on a command line, every process can read.
authorized() {
    local token
    token=$(token) && [[ -n $token ]] || return 1
    http --header @<(printf 'Authorization: Bearer %s' "$token") "$@"
}

install_driver() {
    [[ -n ${driver_installed:-} ]] && return
    cos-extensions install gpu >&2 &&
        mount --bind /var/lib/nvidia /var/lib/nvidia &&
        mount -o remount,exec /var/lib/nvidia &&
        driver_installed=yes
}

log_in() {
    local registry=${image%%/*} token
    token=$(token) && [[ -n $token ]] &&
        docker login --username oauth2accesstoken --password-stdin "https://$registry" <<<"$token" >&2
}

# Training continues without the key.
fetch_wandb_key() {
    unset WANDB_API_KEY
    [[ -z ${WANDB_SECRET:-} ]] && return
    WANDB_API_KEY=$(authorized "$SECRETS/$WANDB_SECRET:access" |
        sed -n 's/.*"data" *: *"\([^"]*\)".*/\1/p' | base64 --decode)
    export WANDB_API_KEY
    [[ -n $WANDB_API_KEY ]] || say "the key of Weights & Biases cannot be read; training without tracking"
}

# One attempt. systemd sends SIGTERM to `docker run` as well, which passes it on and ends as the container does.
train() {
    install_driver || { say "the GPU driver cannot be installed"; return 1; }
    log_in || { say "the registry of $image cannot be logged in to"; return 1; }
    fetch_wandb_key
    docker rm --force trainer >/dev/null 2>&1
    local began=$SECONDS limiter code
    docker pull --quiet "$image" >&2 || say "$image cannot be pulled; a copy of it may be here"
    export JOB_IMAGE_PULL_S=$((SECONDS - began))
    leave_if_asked
    stop_at_the_limit &
    limiter=$!
    # The driver's files and devices one by one: Docker here has no --gpus. The loaders need the machine's shared memory.
    # Not --rm: `has_committed` reads what it said.
    # shellcheck disable=SC2086 # the command is words
    docker run --name trainer --network host --ipc host \
        --device /dev/nvidia0 --device /dev/nvidiactl --device /dev/nvidia-uvm \
        --volume /var/lib/nvidia/lib64:/usr/local/nvidia/lib64:ro \
        --volume /var/lib/nvidia/bin:/usr/local/nvidia/bin:ro \
        ${WANDB_API_KEY:+--env WANDB_API_KEY} --env JOB_IMAGE_PULL_S \
        "$image" $command --bucket "$BUCKET" ${ARCHIVE:+--archive "$ARCHIVE"}
    code=$?
    kill "$limiter" 2>/dev/null
    return "$code"
}

# In the background: asks the container to commit and end, as a preemption does. The read waits without a process that
# would be left behind; nothing ever comes from that pipe.
stop_at_the_limit() {
    local nothing
    [[ $until == never ]] && return
    exec {nothing}<> <(:)
    read -rt "$(left_s)" -u "$nothing"
    say "the limit is reached; the run is asked to commit and end"
    docker stop --time "$GONE_S" trainer >/dev/null
}

left_s() {
    local left=$((until - $(date +%s)))
    echo $((left > 0 ? left : 0))
}

has_committed() {
    grep -qE 'committed (epoch|batch)' <(docker logs trainer 2>&1)
}

train_until_it_is_over() {
    local pause=$PAUSE_S crashes=0 agains=0 code
    while true; do
        [[ $until == never || $(left_s) != 0 ]] || { say "the limit is reached; make vm-up resumes the run"; return; }
        train
        code=$?
        leave_if_asked
        has_committed && pause=$PAUSE_S crashes=0 agains=0
        case $code in
            0) say "the run is finished"; return ;;
            2 | 65 | 70 | 74) say "failed for good, exit code $code"; return ;;
            78) say "this machine is unfit, exit code $code"; ask_for_another_machine; return ;;
            75) agains=$((agains + 1)) ;;
            *) crashes=$((crashes + 1)) ;;
        esac
        ((crashes == MAX_CRASHES || agains == MAX_AGAIN)) && {
            say "ended $((crashes + agains)) times without a checkpoint, exit code $code; giving up"
            return
        }
        say "exit code $code; again in $pause s"
        wait_for "$pause"
        pause=$(doubled "$pause")
    done
}

# Once for each `make vm-up`: the next machine finds the note in the bucket, which can be made only once. Returns if
# there is to be no other machine.
ask_for_another_machine() {
    local order note group zone name
    # gs://NAME, perhaps with a prefix
    if ! { order=$(metadata attributes/trainer-order) && note=${BUCKET#gs://} &&
        authorized --output /dev/null --request POST --data '' \
            "$STORAGE/b/${note%%/*}/o?uploadType=media&ifGenerationMatch=0&name=machines/$order.unfit"; }; then
        say "another machine was asked for before, or cannot be; giving up"
    elif ! { group=$(metadata attributes/created-by) && zone=$(metadata zone) && name=$(metadata name) &&
        authorized --output /dev/null --request POST --header 'Content-Type: application/json' \
            --data "{\"instances\": [\"$zone/instances/$name\"]}" "$COMPUTE/$group/recreateInstances"; }; then
        say "the group cannot be asked for another machine; giving up"
    else
        say "the group is asked for another machine; this one goes"
        wait_for "$GONE_S"
    fi
}

# Never returns: a return would train again, or leave a machine idle that is paid for.
resize_to_zero() {
    local pause=$PAUSE_S group
    while true; do
        # projects/P/regions/R/instanceGroupManagers/G
        if group=$(metadata attributes/created-by) &&
            authorized --output /dev/null --request POST --data '' "$COMPUTE/$group/resize?size=0"; then
            say "$group is resized to zero; this machine goes"
            wait_for "$GONE_S"
        else
            say "the group cannot be resized to zero; again in $pause s"
            wait_for "$pause"
            pause=$(doubled "$pause")
        fi
    done
}

doubled() {
    echo $(($1 * 2 < LONGEST_PAUSE_S ? $1 * 2 : LONGEST_PAUSE_S))
}

wait_for() {
    sleep "$1"
    leave_if_asked
}

leave_if_asked() {
    [[ -z ${stopping:-} ]] || { say "asked to stop"; exit 0; }
}

# Bash waits for the container before it heeds this. It must not end first: systemd would send what is left a second
# SIGTERM, at which a job leaves without committing.
trap stopping=yes TERM

until image=$(metadata attributes/trainer-image) && command=$(metadata attributes/trainer-command); do
    if [[ $(status_of_metadata attributes/trainer-image) == 404 ]]; then
        say "the group does not say what to train; make vm-up does"
        resize_to_zero
    fi
    wait_for "$PAUSE_S"
done
until=$(metadata attributes/trainer-until) || until=$(($(date +%s) + USUAL_HOURS * 3600))
train_until_it_is_over
resize_to_zero

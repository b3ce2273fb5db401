# shellcheck shell=bash
# Checks of the programs and files that the scripts beside this one need. Sourced, from anywhere.

INFRA=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
OUTPUTS="$INFRA/outputs.json"
JOB=$INFRA/../.venv/bin/job

fail() { # exit code, message
    printf '%s\n' "$2" >&2
    exit "$1"
}

require_terraform() {
    command -v terraform >/dev/null ||
        fail 78 "terraform: is not installed; get 1.11 or later, https://developer.hashicorp.com/terraform/install"
}

# One login for every tool: gcloud acts with the application default credentials, as Terraform and job do, so that it
# impersonates the submitter where they do.
require_gcloud() {
    command -v gcloud >/dev/null ||
        fail 78 "gcloud: is not installed; get the Google Cloud CLI, https://cloud.google.com/sdk/docs/install"
    umask 077
    CLOUDSDK_AUTH_ACCESS_TOKEN_FILE=$(mktemp)
    trap 'rm -f "$CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"' EXIT
    gcloud auth application-default print-access-token >"$CLOUDSDK_AUTH_ACCESS_TOKEN_FILE" ||
        fail 78 "gcloud: there are no credentials on this machine; run gcloud auth application-default login"
    export CLOUDSDK_AUTH_ACCESS_TOKEN_FILE
}

require_job() {
    [[ -x $JOB ]] || fail 78 "job: the environment is not there, which knows settings, prices and limits; make light makes it"
}

require_outputs() {
    [[ -s $OUTPUTS ]] || fail 78 "infra/outputs.json: is not there; make infra-apply writes it, or copy it from the machine that ran that"
}

output() { # name of one of Terraform's outputs
    "${PYTHON:-python3}" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]]["value"])' "$OUTPUTS" "$1" ||
        fail 78 "infra/outputs.json: has no $1; make infra-apply writes it anew"
}

#!/bin/bash
# Usage: provision.sh plan|apply|destroy|test [ARGUMENT FOR TERRAFORM...]
#
# Terraform with what surrounds it. Guarantees that `destroy` leaves the bucket with everything in it, and that `test`
# works on a copy: it leaves the folder's own state, providers and settings alone.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/require.sh"

NOT_KNOWN_YET='Cannot find metric|SERVICE_DISABLED|has not been used in project|Service account .* does not exist'
MOST_TRIES=11
PAUSE_S=${APPLY_PAUSE_S:-60}

verb=${1:?plan, apply, destroy or test}
shift

initialize() {
    [[ -e $INFRA/terraform.tfvars || -n ${TF_VAR_project:-} ]] ||
        fail 78 "infra/terraform.tfvars: is not there; copy infra/terraform.tfvars.example to it and put your project's id in"
    if grep -q '^ *project *= *"my-project-123"' "$INFRA/terraform.tfvars" 2>/dev/null; then
        fail 78 "infra/terraform.tfvars: has the project of the example, which is another person's; put your project's id in"
    fi
    terraform -chdir="$INFRA" init -input=false >/dev/null
}

# A bucket is never destroyed, and other projects may use the services. Both stay in the state, so that the next apply
# keeps them.
destroy() {
    local addresses address targets=()
    addresses=$(terraform -chdir="$INFRA" state list)
    while read -r address; do
        case $address in
            "" | data.* | google_storage_bucket.* | google_project_service.*) ;;
            *) targets+=("-target=$address") ;;
        esac
    done <<<"$addresses"
    if ((${#targets[@]} == 0)); then
        echo "nothing is left to destroy"
    else
        terraform -chdir="$INFRA" destroy "${targets[@]}" "$@"
    fi
    rm -f "$OUTPUTS"
    echo "the bucket is kept with everything in it; make down shows what else is paid for"
}

# Asks once for the address of alerts, on a terminal; elsewhere says that there is none.
ask_for_address() {
    local address
    if [[ -n ${TF_VAR_alert_email:-} ]] || cat "$INFRA"/*.tfvars 2>/dev/null | grep -q '^ *alert_email\b'; then
        return
    fi
    if [[ ! -t 0 ]]; then
        echo "alert_email: is not set, so alerts show in the console only; write an address to infra/terraform.tfvars" >&2
        return
    fi
    read -rp "e-mail address for alerts; empty for none, and they show in the console only: " address
    address=${address:+"\"$address\""}
    printf '\nalert_email = %s\n' "${address:-null}" >>"$INFRA/terraform.tfvars"
}

# Google answers about new APIs, accounts and metrics as if they did not exist, for minutes. Such a refusal is waited for;
# what was approved once is what is applied again.
apply() {
    local try
    errors=$(mktemp) # not local: the trap looks for it when the function is over
    trap 'rm -f "$errors"' EXIT
    for ((try = 1; ; try++)); do
        if terraform -chdir="$INFRA" apply "$@" 2>"$errors"; then
            cat "$errors" >&2
            return
        fi
        cat "$errors" >&2
        if ! grep -Eq "$NOT_KNOWN_YET" "$errors" || ((try == MOST_TRIES)); then
            return 1
        fi
        echo "Google does not know yet what was just made; trying again in $PAUSE_S s, $try of $((MOST_TRIES - 1))" >&2
        sleep "$PAUSE_S"
        [[ " $* " == *" -auto-approve "* ]] || set -- "$@" -auto-approve
    done
}

check() {
    copy=$(mktemp -d) # not local: the trap looks for it when the function is over
    trap 'rm -rf "$copy"' EXIT
    terraform -chdir="$INFRA" fmt -check -diff -recursive
    cp -r "$INFRA"/*.tf "$INFRA/tests" "$INFRA/vm" "$copy"
    rm -f "$copy/backend.tf"
    terraform -chdir="$copy" init -input=false >/dev/null
    terraform -chdir="$copy" validate
    terraform -chdir="$copy" test "$@"
}

require_terraform
case $verb in
    plan)
        initialize
        terraform -chdir="$INFRA" plan "$@"
        ;;
    apply)
        initialize
        ask_for_address
        apply "$@" || failed=$?
        terraform -chdir="$INFRA" output -json >"$OUTPUTS.part"
        if [[ $(<"$OUTPUTS.part") == "{}" ]]; then # nothing was made
            rm "$OUTPUTS.part"
        else
            mv "$OUTPUTS.part" "$OUTPUTS"
        fi
        exit "${failed:-0}"
        ;;
    destroy)
        initialize
        destroy "$@"
        ;;
    test) check "$@" ;;
    *) fail 2 "provision.sh: must be plan, apply, destroy or test, got $verb" ;;
esac

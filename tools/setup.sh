#!/usr/bin/env bash
# Installs what building nemoc needs and this machine lacks, and says what it does. Safe to run again.
#
#   tools/setup.sh           LLVM 22 and a C compiler
#   tools/setup.sh --deny    cargo-deny, which `make lint` uses
#   tools/setup.sh --ptxas   NVIDIA's PTX assembler, which tests of GPU kernels use; it stays in target/ptxas
set -euo pipefail

say() { printf 'setup: %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install_packages() {
    say "installing $* from Debian's packages"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

if [ "${1:-}" = --deny ]; then
    if ! cargo deny --version >/dev/null 2>&1; then
        say "installing cargo-deny with cargo"
        cargo install --locked --quiet cargo-deny
    fi
    exit 0
fi

if [ "${1:-}" = --ptxas ]; then
    version=12.9.86
    home=target/ptxas
    if [ "$(cat $home/version 2>/dev/null)" != $version ]; then
        python3 -m pip --version >/dev/null 2>&1 || install_packages python3 python3-pip
        say "fetching ptxas $version from PyPI (NVIDIA's licence; used here, not part of this project)"
        rm -rf $home && mkdir -p $home/wheel
        python3 -m pip download -q --disable-pip-version-check --no-deps -d $home/wheel nvidia-cuda-nvcc-cu12==$version
        python3 -m zipfile -e $home/wheel/*.whl $home/wheel/files
        cp $home/wheel/files/nvidia/cuda_nvcc/bin/ptxas $home/ptxas
        chmod +x $home/ptxas
        rm -rf $home/wheel
        echo $version >$home/version
    fi
    exit 0
fi

missing=()
[ -x /usr/bin/llvm-config-22 ] && [ -e /usr/lib/llvm-22/lib/libLLVM.so ] || missing+=(llvm-22-dev)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
if [ ${#missing[@]} -gt 0 ]; then
    install_packages "${missing[@]}"
fi
if ! command -v cargo >/dev/null; then
    say "Rust is missing: Debian's own is too old for this project, so install it with rustup (https://rustup.rs)" >&2
    exit 1
fi

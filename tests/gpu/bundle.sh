#!/usr/bin/env bash
# Makes a bundle for run.sh on a build machine: bundle.sh OUT
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: tests/gpu/bundle.sh OUT" >&2; exit 2; }
mkdir -p "$1/bin"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
cargo build --release --locked -q -p nemort -p nemo-gpu-check
cargo run --release --locked -q -p nemo-tests --example gpu_bundle -- "$out"
target=${CARGO_TARGET_DIR:-target}
cp "$target/release/nemort" "$target/release/gpu-check" "$out/bin/"
cp tests/gpu/run.sh tests/gpu/peer.py "$out/"

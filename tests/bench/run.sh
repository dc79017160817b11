#!/usr/bin/env bash
# Decode and prefill of two models of 0.8 B parameters with random weights, beside what this machine
# can do, measured in the same runs; then the kernels that they spend their time in.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for model in nano2-mini llama-mini; do
    target/release/nemoc compile "tests/golden/mini/$model" --target host -o "$out/$model.nemo" --quiet
    target/release/nemort bench "$out/$model.nemo" --random-weights --prompt 512 --new 64 --repeat 5
    echo
done
cargo bench --locked -q -p nemo-tests --bench linear

#!/usr/bin/env bash
# Compiles a model of this repository for this CPU, and has it answer one question three times: thinking, not thinking, and
# thinking for 32 tokens at most.
set -euo pipefail
cd "$(dirname "$0")/.."
model=models/tiny/nano2-tiny
artifact=target/demo/nano2-tiny.nemo
question='What is 989 + 303 + 849 + 742?'

mkdir -p target/demo
PATH="$PWD/target/release:$PATH"
show() { printf '\n$ %s\n' "$1"; }
show "nemoc compile $model --target host -o $artifact"
nemoc compile "$model" --target host -o "$artifact"
ask() {
    show "nemort generate $artifact --weights $model --prompt '$question'${*:+ $*}"
    nemort generate "$artifact" --weights "$model" --prompt "$question" "$@"
}
ask
ask --think off
ask --think-budget 32

#!/usr/bin/env bash
# Answers the held-out problems with both trained models under every thinking budget. Tables and curves go to docs/thinking.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p target/eval docs/thinking
for name in nano2-tiny nas-tiny; do
    model=models/tiny/$name
    target/release/nemoc compile "$model" --target host -o "target/eval/$name.nemo" --quiet
    target/release/nemort eval "target/eval/$name.nemo" --weights "$model" --problems models/tiny/problems.jsonl \
        --budgets off,0,8,16,32,64,128,none --max-new-tokens 256 --svg "docs/thinking/$name.svg" |
        tee "target/eval/$name.txt"
    mv "target/eval/$name.txt" "docs/thinking/$name.txt"
    echo
done

#!/usr/bin/env bash
# What the release binaries promise: the runtime is small and stands alone, and every built-in system
# compiles for this CPU in little memory, to a small artifact, to the same bytes each time.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'release: %s\n' "$*" >&2; exit 1; }

size=$(stat -c %s target/release/nemort)
[ "$size" -le $((12 << 20)) ] || fail "nemort has $size bytes, more than 12 MiB"
foreign=$(ldd target/release/nemort | grep -vE 'linux-vdso|libc\.so|libm\.so|libgcc_s\.so|ld-linux' || true)
[ -z "$foreign" ] || fail "nemort needs more than libc, libm and libgcc: $foreign"

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
count=0
for toml in models/*.toml; do
    model=$(basename "$toml" .toml)
    [ "$model" != Cargo ] || continue
    for round in 1 2; do
        # Address space bounds resident memory from above.
        (ulimit -v $((1 << 20)) && target/release/nemoc compile "$model" --target host -o "$out/$round.nemo" --quiet) ||
            fail "$model does not compile within 1 GiB"
    done
    cmp -s "$out/1.nemo" "$out/2.nemo" || fail "$model compiles to other bytes the second time"
    size=$(stat -c %s "$out/1.nemo")
    [ "$size" -le $((5 << 20)) ] || fail "the artifact of $model has $size bytes, more than 5 MiB"
    count=$((count + 1))
done
echo "release: nemort stands alone; $count systems compile small, in 1 GiB, to the same bytes twice"

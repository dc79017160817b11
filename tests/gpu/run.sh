#!/usr/bin/env bash
# Checks and measures everything that needs an NVIDIA GPU, from a bundle that bundle.sh made: run.sh [BUNDLE_DIR]
# Needs a driver and bash; python3 with torch only for the numbers of peers. Takes less than eight minutes.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bundle=$(cd "${1:-$here}" 2>/dev/null && pwd) || { echo "run.sh: there is no folder '$1'" >&2; exit 1; }
fail() { printf 'run.sh: %s\n' "$*" >&2; exit 1; }

{ command -v nvidia-smi >/dev/null && name=$(timeout -k 5 20 nvidia-smi -i 0 --query-gpu=name --format=csv,noheader 2>/dev/null) && [ -n "$name" ]; } ||
    fail "this machine has no working NVIDIA driver: nvidia-smi found no GPU"
check=$bundle/bin/gpu-check
nemort=$bundle/bin/nemort
for file in "$check" "$nemort"; do
    [ -x "$file" ] || fail "'$bundle' is no bundle: $file is missing; tests/gpu/bundle.sh makes one"
done
results=$here/results
mkdir -p "$results" && [ -w "$results" ] || fail "'$results' cannot be written"
out=$(mktemp -d) || fail "no temporary folder can be made"
trap 'rm -rf "$out"' EXIT

# Steps that begin later are not run, and those that run then are ended.
end=465

# step NAME SECONDS COMMAND...: its standard output is kept as NAME.out, and what became of it as a line of steps.tsv.
step() {
    local name=$1 limit=$2 start=$SECONDS code state
    shift 2
    [ "$limit" -le $((end - start)) ] || limit=$((end - start))
    if [ "$limit" -lt 5 ]; then
        printf '%s\tlate\t0\n' "$name" >>"$out/steps.tsv"
        echo "LATE   $name: no time is left"
        return 1
    fi
    timeout -k 5 "$limit" "$@" >"$out/$name.out" 2>"$out/$name.err"
    code=$?
    if [ "$code" -eq 0 ]; then
        state=ok
    elif [ "$code" -ge 124 ] && [ $((SECONDS - start)) -ge "$limit" ]; then
        state=late
    elif grep -q 'the GPU has not enough free memory' "$out/$name.err"; then
        # A smaller GPU than the shape asks for: no fault of anybody.
        state=no-room
    else
        state=failed
    fi
    printf '%s\t%s\t%d\n' "$name" "$state" $((SECONDS - start)) >>"$out/steps.tsv"
    case $state in
        ok) echo "ok     $name ($((SECONDS - start)) s)" ;;
        no-room) echo "no room for $name" ;;
        *)
            echo "${state^^} $name (exit $code, $((SECONDS - start)) s)"
            tail -n 20 "$out/$name.out" "$out/$name.err"
            ;;
    esac
    return "$code"
}

# bench SEQS PROMPT: of each system.
bench() {
    local model
    for model in nemotron-nano-9b-v2 llama-3.1-nemotron-nano-8b-v1; do
        step "bench-$model-$1-$2" 60 "$nemort" bench "$bundle/models/$model.nemo" --device cuda --random-weights \
            --seqs "$1" --prompt "$2" --new 32 --repeat 1 --json
    done
}

step cases 120 "$check" cases "$bundle"
for fixture in hybrid llama nas qwen; do
    weights=$bundle/fixtures/$fixture
    reference=$weights/reference.safetensors
    artifact=$bundle/models/$fixture-f32.nemo
    tokens=$(timeout -k 5 10 "$check" tokens "$reference") || tokens=
    for phase in prefill decode; do
        more=()
        [ "$phase" = prefill ] || more=(--decode)
        step "$fixture-logits-$phase" 30 "$nemort" logits "$artifact" --device cuda --weights "$weights" --tokens "$tokens" \
            "${more[@]+"${more[@]}"}" -o "$out/logits.safetensors" &&
            step "$fixture-compare-$phase" 10 "$check" compare "$out/logits.safetensors" "$reference"
    done
    step "$fixture-generate" 30 "$nemort" generate "$artifact" --device cuda --weights "$weights" --tokens "$tokens" \
        --max-new-tokens 32 --ignore-eos --temperature 0 --json &&
        step "$fixture-greedy" 10 "$check" greedy "$out/$fixture-generate.out" "$reference"
done
# What matters most comes first.
bench 1 512
bench 1 8192
if command -v python3 >/dev/null && [ $((end - SECONDS)) -ge 40 ] && timeout -k 5 20 python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    step peer-card 40 python3 "$bundle/peer.py" card
    for model in nemotron-nano-9b-v2 llama-3.1-nemotron-nano-8b-v1; do
        step "peer-$model" 60 python3 "$bundle/peer.py" "$model"
    done
else
    echo "no torch that sees the GPU, or no time: no numbers of peers, no product of matrices to compare with"
fi
bench 8 512
bench 64 512
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        if [ $((end - SECONDS)) -lt 30 ]; then
            echo "no time is left for $tool"
        else
            step "$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 1 "$check" cases "$bundle" --every 10
        fi
    done
fi

file=$results/$(date -u +%Y%m%d-%H%M%S)-$(printf '%s' "$name" | tr -cs 'A-Za-z0-9' '-')
echo
"$check" report "$out" --gpu "$name" --date "$(date -u +%Y-%m-%dT%H:%M:%SZ)" --json "$file.json" --table "$file.md"
code=$?
echo "$SECONDS s in all; $file.json, $file.md"
exit "$code"

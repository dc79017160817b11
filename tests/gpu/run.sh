#!/usr/bin/env bash
# Checks and measures everything that needs an NVIDIA GPU, from a bundle that bundle.sh made: run.sh [BUNDLE_DIR]
# Needs a driver and bash; python3 with torch only for the numbers of peers.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bundle=$(cd "${1:-$here}" 2>/dev/null && pwd) || { echo "run.sh: there is no folder '$1'" >&2; exit 1; }
fail() { printf 'run.sh: %s\n' "$*" >&2; exit 1; }

{ command -v nvidia-smi >/dev/null && name=$(nvidia-smi -i 0 --query-gpu=name --format=csv,noheader 2>/dev/null) && [ -n "$name" ]; } ||
    fail "this machine has no working NVIDIA driver: nvidia-smi found no GPU"
check=$bundle/bin/gpu-check
nemort=$bundle/bin/nemort
for file in "$check" "$nemort"; do
    [ -x "$file" ] || fail "'$bundle' is no bundle: $file is missing; tests/gpu/bundle.sh makes one"
done

out=$(mktemp -d) || fail "no temporary folder can be made"
trap 'rm -rf "$out"' EXIT
gpu=$(printf '%s' "$name" | tr -cs 'A-Za-z0-9\n' '-')
results=results-$(date -u +%Y%m%d-%H%M%S)-$gpu.json
names=() codes=() took=()

# step NAME SECONDS COMMAND...: its standard output is kept as NAME.out, whatever becomes of it.
step() {
    local name=$1 limit=$2 start code
    shift 2
    start=$SECONDS
    timeout -k 5 "$limit" "$@" >"$out/$name.out" 2>"$out/$name.err"
    code=$?
    names+=("$name") codes+=("$code") took+=($((SECONDS - start)))
    if [ "$code" -ne 0 ]; then
        echo "FAILED $name (exit $code, $((SECONDS - start)) s)"
        tail -n 20 "$out/$name.out" "$out/$name.err"
    else
        echo "ok     $name ($((SECONDS - start)) s)"
    fi
    return "$code"
}

step cases 150 "$check" cases "$bundle"
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        step "$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 1 "$check" cases "$bundle" --every 10
    done
fi
for fixture in hybrid llama nas qwen; do
    weights=$bundle/fixtures/$fixture
    reference=$weights/reference.safetensors
    artifact=$bundle/models/$fixture-f32.nemo
    tokens=$("$check" tokens "$reference") || tokens=
    for phase in prefill decode; do
        more=()
        [ "$phase" = prefill ] || more=(--decode)
        step "$fixture-logits-$phase" 20 "$nemort" logits "$artifact" --device cuda --weights "$weights" --tokens "$tokens" \
            "${more[@]+"${more[@]}"}" -o "$out/logits.safetensors" &&
            step "$fixture-compare-$phase" 10 "$check" compare "$out/logits.safetensors" "$reference"
    done
    step "$fixture-generate" 20 "$nemort" generate "$artifact" --device cuda --weights "$weights" --tokens "$tokens" \
        --max-new-tokens 32 --ignore-eos --temperature 0 --json &&
        step "$fixture-greedy" 10 "$check" greedy "$out/$fixture-generate.out" "$reference"
done
for model in nemotron-nano-9b-v2 llama-3.1-nemotron-nano-8b-v1; do
    for shape in "1 512" "8 512" "64 512" "1 8192"; do
        read -r seqs prompt <<<"$shape"
        step "bench-$model-$seqs-$prompt" 60 "$nemort" bench "$bundle/models/$model.nemo" --device cuda --random-weights \
            --seqs "$seqs" --prompt "$prompt" --new 32 --repeat 1 --json
    done
done
if command -v python3 >/dev/null && python3 -c 'import torch' 2>/dev/null; then
    step peer 90 python3 "$bundle/peer.py"
else
    echo "no torch: no numbers of peers"
fi

failed=0
{
    printf '{"gpu":"%s","date":"%s","steps":[' "$name" "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
    for n in "${!names[@]}"; do
        [ "$n" -eq 0 ] || printf ','
        # A document is the last thing that a step prints; of a failed step it may be torn.
        document=null
        if [ "${codes[n]}" -eq 0 ]; then
            case ${names[n]} in
                bench-* | *-generate) document=$(cat "$out/${names[n]}.out") ;;
                cases | *-compare-* | *-greedy | peer) document=$(tail -n 1 "$out/${names[n]}.out") ;;
            esac
        fi
        printf '{"step":"%s","exit":%d,"seconds":%d,"result":%s}' "${names[n]}" "${codes[n]}" "${took[n]}" "${document:-null}"
        [ "${codes[n]}" -eq 0 ] || failed=$((failed + 1))
    done
    printf ']}\n'
} >"$results" || fail "'$results' cannot be written"

# Numbers of one field of a step's JSON, whose keys are its own.
figure() { sed -n "s/.*\"$2\": *\\([0-9.eE+-]*\\).*/\\1/p" "$out/$1.out" | head -n 1; }
printf '\n| step | prefill tok/s | decode tok/s | decode GB/s | copy GB/s |\n|---|---|---|---|---|\n'
for n in "${!names[@]}"; do
    case ${names[n]} in
        bench-*)
            row=${names[n]}
            for field in prefill_tok_s decode_tok_s decode_gb_s read_bandwidth_gb_s; do row+=" | $(figure "${names[n]}" "$field")"; done
            echo "| $row |"
            ;;
    esac
done
[ ! -s "$out/peer.out" ] || tail -n 1 "$out/peer.out"
echo "$failed of ${#names[@]} steps failed, $SECONDS s in all; $results"
[ "$failed" -eq 0 ]

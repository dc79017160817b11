# Two commands do everything on a fresh Debian machine, set-up included: `make demo` and `make test`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo eval test ptxas release lint bench

help: ## List the commands
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## Install what is missing: LLVM 22 from Debian's packages
	@tools/setup.sh

demo: setup ## Compile a trained model for this CPU and watch it think: freely, not at all, and on a budget
	cargo build --release --locked -q -p nemoc -p nemort
	@tools/demo.sh

eval: setup ## Measure what the trained models get right under every thinking budget; writes docs/thinking
	cargo build --release --locked -q -p nemoc -p nemort
	@tools/eval.sh

test: setup ## Run every test that needs no GPU
	@tools/setup.sh --ptxas
	cargo test --workspace --locked

ptxas: setup ## Assemble the GPU kernels of every system, and write docs/gpu-kernels.md anew
	@tools/setup.sh --ptxas
	cargo run --locked -q -p nemo-tests --example gpu_kernels > target/gpu-kernels.md
	mv target/gpu-kernels.md docs/gpu-kernels.md

release: setup ## Build the release binaries and check what they promise
	cargo build --release --locked -q -p nemoc -p nemort
	tests/release.sh

lint: setup ## Formatting, clippy, documentation, licences
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	@tools/setup.sh --deny
	cargo deny --locked check licenses bans sources

bench: setup ## Measure decode and prefill against this machine's bandwidth and peaks
	cargo build --release --locked -q -p nemoc -p nemort
	tests/bench/run.sh

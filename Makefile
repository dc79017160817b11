# Two commands do everything on a fresh Debian machine, set-up included: `make demo` and `make test`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test ptxas release lint bench

DEMO_MODEL := tests/golden/hybrid
OUT := target/demo

help: ## List the commands
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## Install what is missing: LLVM 22 from Debian's packages
	@tools/setup.sh

demo: setup ## Compile a model of the repository for this CPU and generate text with it
	cargo build --release --locked -q -p nemoc -p nemort
	@mkdir -p $(OUT)
	target/release/nemoc compile $(DEMO_MODEL) --target host -o $(OUT)/hybrid.nemo
	target/release/nemort generate $(OUT)/hybrid.nemo --weights $(DEMO_MODEL) --prompt "Tell me about the river."

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

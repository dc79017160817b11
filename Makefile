# Two commands do everything on a fresh Debian machine, set-up included: `make demo` and `make test`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test release lint bench

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
	cargo test --workspace --locked

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

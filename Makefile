# demo: the product on real history, with one command. test: everything that must hold. lint: how the code reads.
SHELL := /bin/bash
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kirolinter/target
CARGO_FLAGS := --profile quick --locked

.PHONY: help setup demo test lint docs bench fuzz soak clean

help: ## Show the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: ## Install the Debian packages that the build needs, or say which
	@scripts/setup.sh

test: ## Run all tests
	@scripts/setup.sh test
	cargo build $(CARGO_FLAGS) --workspace --bins
	cargo test $(CARGO_FLAGS) --workspace --no-fail-fast -- --skip faults::
	cargo test $(CARGO_FLAGS) --workspace --test end_to_end -- --test-threads=1 faults::

demo: setup ## Import real CI history, ask it, judge a model; DATA=file.csv MAPPING=file.yaml takes your own
	@scripts/demo.sh

lint: setup ## Check formatting, lints, doc comments, licences and unused dependencies
	cargo fmt --all -- --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items --quiet
	export PATH="$$(scripts/tools.sh):$$PATH" && cargo machete && cargo deny check --hide-inclusion-graph licenses bans sources

bench: ## Measure against peers in one run and print the ratios; BENCH_PROFILE=quick builds faster
	@scripts/setup.sh test
	@scripts/bench.sh

fuzz: setup ## Fuzz every parser of outside bytes, each for FUZZ_SECONDS (30); FUZZ_CHANGED=COMMIT only those that changed since
	@fuzz/run.sh

soak: ## Long runs under faults, all or SOAK=what; SOAK_COUNT and SOAK_MINUTES say how much; scripts/soak.sh lists them
	@scripts/setup.sh test
	cargo build $(CARGO_FLAGS) --workspace --bins
	@scripts/soak.sh $(SOAK)

docs: ## Write docs/tables.md, docs/errors.md and docs/coverage.md anew from the sources
	mkdir -p docs
	KIROLINTER_WRITE_DOCS=1 cargo test $(CARGO_FLAGS) -p kiro-tests --test house generated
	KIROLINTER_WRITE_DOCS=1 cargo test $(CARGO_FLAGS) -p kiro-integrations --test platforms document

clean: ## Remove what was built
	cargo clean

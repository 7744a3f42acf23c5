# The commands people and CI use. `make test` is the whole check; the other targets are its parts, and things to look at.

CARGO ?= cargo
BROKER := tests/broker.sh run --
POSTGRES := tests/postgres.sh run --

.DEFAULT_GOAL := help
.PHONY: help fmt clippy doc unit test chaos mutants bench demo

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

fmt: ## is the code formatted? (`cargo fmt` mends it)
	$(CARGO) fmt --all -- --check

# Tests are built with the fail points (src/failpoint.rs), releases without.
TESTED := --locked --features failpoints

clippy: ## lints, warnings denied, with the fail points and without
	$(CARGO) clippy $(TESTED) --all-targets -- -D warnings
	$(CARGO) clippy --locked -- -D warnings

doc: ## the documentation of the code, broken links denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

unit: ## the tests that need no broker
	$(CARGO) test $(TESTED) --lib --bins

# Those that `make test` plants, to show that its tests can fail; `make mutants` puts all of them to the chaos suite.
CHEAP_MUTANTS := parked-not-put-back,one-attempt-too-few

# The tests come last, so that their result is what one sees.
test: fmt clippy doc ## everything: format, lints, documentation, and all tests on a real broker and a real PostgreSQL
	$(POSTGRES) $(BROKER) $(CARGO) test $(TESTED)
	$(BROKER) env ONLY=$(CHEAP_MUTANTS) CHAOS=no tests/mutants.sh

chaos: ## the proof that nothing is lost: EVENTS=1000000 MINUTES=20 SEED=1; the report is target/chaos/long/report.md
	EVENTS=$(or $(EVENTS),1000000) MINUTES=$(or $(MINUTES),20) SEED=$(or $(SEED),1) \
	$(CARGO) test --locked --release --test it a_million_events_end -- --ignored --nocapture

mutants: ## breaks the promises one by one, and demands that the tests see it (ONLY=a,b; all take half an hour)
	$(BROKER) tests/mutants.sh

bench: ## the benchmarks, on a real broker
	$(BROKER) $(CARGO) bench --locked

demo: ## the whole thing in one process, with an embedded broker
	$(CARGO) run --locked --release -- demo

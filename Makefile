# The commands people and CI use. `make test` is the whole check; the other targets are its parts, and things to look at.

CARGO ?= cargo
BROKER := tests/broker.sh run --

.DEFAULT_GOAL := help
.PHONY: help fmt clippy doc unit test bench demo chaos

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

fmt: ## is the code formatted? (`cargo fmt` mends it)
	$(CARGO) fmt --all -- --check

clippy: ## lints, warnings denied
	$(CARGO) clippy --locked --all-targets -- -D warnings

doc: ## the documentation of the code, broken links denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

unit: ## the tests that need no broker
	$(CARGO) test --locked --lib --bins

# The tests come last, so that their result is what one sees.
test: fmt clippy doc ## everything: format, lints, documentation, and all tests on a real broker
	$(BROKER) $(CARGO) test --locked

bench: ## the benchmarks, on a real broker
	$(BROKER) $(CARGO) bench --locked

demo: ## the whole thing in one process, with an embedded broker
	$(CARGO) run --locked --release -- demo

chaos: ## the proof that nothing is lost: EVENTS=1000000 MINUTES=20 SEED=1; the report is target/chaos/long/report.md
	EVENTS=$(or $(EVENTS),1000000) MINUTES=$(or $(MINUTES),20) SEED=$(or $(SEED),1) \
	$(CARGO) test --locked --release --test it a_million_events_end -- --ignored --nocapture

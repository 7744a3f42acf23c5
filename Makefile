# The commands people and CI use. `make test` is the whole check; the other targets are its parts, and things to look at.

CARGO ?= cargo
BROKER := tests/broker.sh run --
POSTGRES := tests/postgres.sh run --

.DEFAULT_GOAL := help
.PHONY: help fmt clippy doc deny unit test fuzz chaos mutants bench demo dashboards deploy deploy-check incident pictures

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

fmt: ## is the code formatted? (`cargo fmt` mends it)
	$(CARGO) fmt --all -- --check

# Tests are built with the fail points (src/failpoint.rs), releases without.
TESTED := --locked --features failpoints

clippy: ## lints, warnings denied, with the fail points and without
	$(CARGO) clippy $(TESTED) --all-targets -- -D warnings
	$(CARGO) clippy --locked -- -D warnings
	cp Cargo.lock tests/fuzz/
	$(CARGO) clippy --manifest-path tests/fuzz/Cargo.toml --target-dir target --no-default-features -- -D warnings

doc: ## the documentation of the code, broken links denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

deny: ## licences, duplicates, sources and known faults of the dependencies (cargo install cargo-deny)
	$(CARGO) deny check

unit: ## the tests that need no broker
	$(CARGO) test $(TESTED) --lib --bins

# Those that `make test` plants, to show that its tests can fail; `make mutants` puts all of them to the chaos suite.
CHEAP_MUTANTS := parked-not-put-back,one-attempt-too-few

# The tests come last, so that their result is what one sees.
test: fmt clippy doc ## everything: format, lints, documentation, and all tests on a real broker and a real PostgreSQL
	$(POSTGRES) $(BROKER) $(CARGO) test $(TESTED)
	$(BROKER) env ONLY=$(CHEAP_MUTANTS) CHAOS=no tests/mutants.sh
	$(BROKER) tests/schemathesis.sh 60

FUZZ_SECONDS = $$(($(or $(MINUTES),10) * 60))

fuzz: ## random events, filters and headers (cargo-fuzz) and API requests, for MINUTES=10 each; what fails is kept in tests/fuzz/artifacts
	cp Cargo.lock tests/fuzz/
	set -e; for target in event filter headers; do \
	  mkdir -p target/fuzz/corpus/$$target; \
	  $$(tests/tools.sh cargo-fuzz) run --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none $$target \
	    target/fuzz/corpus/$$target tests/fuzz/corpus/$$target -- \
	    -dict=tests/fuzz/dictionaries/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=2 -max_len=65536; \
	done
	$(BROKER) tests/schemathesis.sh $(FUZZ_SECONDS)

chaos: ## the proof that nothing is lost: EVENTS=1000000 MINUTES=20 SEED=1; the report is target/chaos/long/report.md
	EVENTS=$(or $(EVENTS),1000000) MINUTES=$(or $(MINUTES),20) SEED=$(or $(SEED),1) \
	$(CARGO) test --locked --release --test it a_million_events_end -- --ignored --nocapture

mutants: ## breaks the promises one by one, and demands that the tests see it (ONLY=a,b; all take half an hour)
	$(BROKER) tests/mutants.sh

bench: ## the benchmarks, on a real broker (BENCH_ISOLATION=1, BENCH_BACKLOG=1, BENCH_MEMORY=1, BENCH_RECOVERY=1, BENCH_REPLAY=1 add to them; tests/bench/pipeline/main.rs)
	$(BROKER) $(CARGO) bench --locked

demo: ## the whole thing in one process, with an embedded broker
	$(CARGO) run --locked --release -- demo

PYTHON = $$(tests/tools.sh python)

dashboards: ## writes what is made from src/metrics.rs and dashboards/generate.py
	python3 dashboards/generate.py
	POSTRIDER_WRITE_METRICS=1 $(CARGO) test $(TESTED) --test it dashboards
	cp dashboards/*.json dashboards/alerts/postrider.rules.yaml deploy/helm/postrider/files/

deploy: ## writes what is made from the chart and the plan of the topics: deploy/kubernetes, deploy/strimzi/topics.yaml
	$(CARGO) build --locked
	$(PYTHON) tests/deploy/check.py --write target/debug/postrider
	$(BROKER) sh -c 'POSTRIDER__KAFKA__BOOTSTRAP_SERVERS=$$KAFKA_BOOTSTRAP_SERVERS target/debug/postrider --config config/postrider.toml topics plan --output json | python3 tests/deploy/strimzi.py'

deploy-check: ## dashboards, alerts and deployments, checked by promtool, helm, schemas and linters; then with mistakes in them
	$(CARGO) build --locked
	$(BROKER) sh -c 'export POSTRIDER__KAFKA__BOOTSTRAP_SERVERS=$$KAFKA_BOOTSTRAP_SERVERS; \
	  $(PYTHON) tests/deploy/check.py target/debug/postrider && $(PYTHON) tests/deploy/check.py --mistakes target/debug/postrider'

incident: ## a scripted incident before a real Prometheus: every panel shows something, and the right alerts fire
	$(CARGO) build --locked
	$(BROKER) sh -c 'python3 tests/deploy/incident.py target/debug/postrider $$(tests/tools.sh prometheus)'

pictures: incident ## draws dashboards/overview.png from the incident
	$(PYTHON) tests/deploy/pictures.py target/incident/series.json dashboards/overview.png

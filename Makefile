# Every target works in a fresh clone, as root or not, without a terminal. What a target installs goes
# under target/, apart from tests/clients/node_modules: Node finds packages only beside the scripts.

FUZZ_SECONDS ?= 60
FUZZ_TARGETS := $(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs)))
BENCHES := $(basename $(notdir $(wildcard benches/*.rs)))
SWARM_TESTS := $(wildcard loadtest/tests/run.sh)
TOOLS := $(CURDIR)/target/tools
# CI must not repair a Cargo.lock that was forgotten.
LOCKED := $(if $(CI),--locked)

.PHONY: help run test test-rust test-loom test-memory test-kafka test-clients test-swarm check-deploy lint bench bench-encode bench-fanout bench-growth bench-streams fuzz docs clean

help: ## print the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

run: ## serve the sample data on http://localhost:8080
	cargo run --release

test: test-rust test-loom test-kafka test-clients test-swarm check-deploy ## install what the tests need and run them all

test-rust: ## unit, property, black-box and doc tests
	cargo test $(LOCKED) --workspace --all-targets
	cargo test $(LOCKED) --workspace --doc

test-loom: ## every interleaving of the engine's own primitives
	cd tests/loom && cargo test $(LOCKED) --target-dir $(CURDIR)/target/loom

test-memory: ## AddressSanitizer over engine, shards, black-box tests and fuzz targets; valgrind over the shards' tests
	bash tests/memory.sh

test-kafka: ## Kafka against a real broker, which needs Java; KAFKA_BROKERS= uses one that is there
	python3 tests/kafka/setup.py >/dev/null
	cargo test $(LOCKED) -p flowcast --test kafka

test-clients: target/release/flowcast ## GexBot's and Azure's own clients and the example client against the release binary
	bash tests/clients/setup.sh
	bash tests/clients/run.sh

test-swarm: target/release/flowcast ## swarm and k6 against the release binary
	$(if $(SWARM_TESTS),bash $(SWARM_TESTS),@echo "no loadtest/tests/run.sh here")

check-deploy: target/release/flowcast ## compose, HAProxy with TLS, Prometheus, Grafana and Kubernetes files, with their own tools
	bash deploy/check.sh

# Cargo knows better than make whether anything changed.
.PHONY: target/release/flowcast
target/release/flowcast:
	cargo build $(LOCKED) --release --workspace --bins

lint: ## formatting and clippy; warnings are errors
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo fmt --manifest-path tests/loom/Cargo.toml --check
	cargo clippy $(LOCKED) --workspace --all-targets -- -D warnings
	cargo clippy $(LOCKED) -p flowcast --test kafka -- -D warnings
	cargo clippy $(LOCKED) -p flowcast --all-targets --no-default-features -- -D warnings

bench: ## all benchmarks; compares with the last run
	cargo bench -p flowcast $(addprefix --bench ,$(BENCHES))

bench-encode: ## JSONL line to finished frames, records/s of one core
	cargo bench -p flowcast --bench encode

# $(call flags,ROWS SERIES) passes the variables that are set on as --rows and --series.
flags = $(foreach name,$(1),$(if $($(name)),--$(shell echo $(name) | tr A-Z a-z) "$($(name))"))

bench-fanout: ## flowcast against the floor and its peers, or AGAINST=another binary; ROWS= WIRES= ROUNDS= SECONDS= choose, rounds add up
	cargo build $(LOCKED) --release --workspace --bins
ifndef AGAINST
	cargo build --release --manifest-path loadtest/peers/tungstenite/Cargo.toml --target-dir target/peers
	cd loadtest/peers && npm install --no-audit --no-fund --silent
endif
	python3 loadtest/bench/fanout.py $(call flags,AGAINST ROWS WIRES ROUNDS SECONDS PEERS)

bench-growth: target/release/flowcast ## how cost grows with connections, groups, memberships, message size and churn; SERIES= ROUNDS= SECONDS= choose
	python3 loadtest/bench/growth.py $(call flags,SERIES ROUNDS SECONDS)

bench-streams: ## 5,000 clients of the JSON streams at 200 messages/s, and what docs/scaling.md computes with
	python3 loadtest/bench/streams.py $(call flags,ROUNDS SECONDS)

# Stable Rust has no sanitizers; the code under test has none of the bugs they find, since `unsafe`
# stands outside the parsers.
fuzz: ## fuzz every decoder, FUZZ_SECONDS (60) each; needs a C++ compiler
	@PATH="$(TOOLS)/bin:$$PATH" cargo fuzz --version >/dev/null 2>&1 \
	  || cargo install cargo-fuzz --locked --root $(TOOLS)
	@set -e; for target in $(FUZZ_TARGETS); do \
	  mkdir -p fuzz/corpus/$$target; \
	  PATH="$(TOOLS)/bin:$$PATH" cargo fuzz run -s none $$target fuzz/corpus/$$target fuzz/seeds/$$target \
	    -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 -print_final_stats=1; \
	done

# Private items are documented too, so links to them lead somewhere.
docs: ## API documentation; warnings are errors
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc $(LOCKED) --workspace --no-deps --document-private-items

clean: ## remove everything that was built or installed
	rm -rf target fuzz/target tests/clients/node_modules

# Every target works in a fresh clone, as root or not, without a terminal. What a target installs goes
# under target/, apart from tests/clients/node_modules: Node finds packages only beside the scripts.

FUZZ_SECONDS ?= 60
FUZZ_TARGETS := $(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs)))
BENCHES := $(basename $(notdir $(wildcard benches/*.rs)))
TOOLS := $(CURDIR)/target/tools
# CI must not repair a Cargo.lock that was forgotten.
LOCKED := $(if $(CI),--locked)

.PHONY: help run test test-programs test-rust test-loom test-memory test-protocol test-kafka test-tools test-clients test-page test-swarm check-deploy picture lint bench bench-encode bench-fanout bench-growth bench-market bench-streams bench-floods bench-clock bench-latency bench-shards bench-resume cuts soak bench-page test-cost bench-quick fuzz docs clean

help: ## print the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

run: ## serve the sample data on http://localhost:8080
	cargo run --release

# The Rust tests keep all processors busy; the others mostly wait for sockets, timeouts and brokers, so
# two of them share the machine. Each prints when it has ended.
test: test-rust ## install what the tests need and run them all
	$(MAKE) --jobs=2 --output-sync=target --no-print-directory test-kafka test-clients check-deploy test-loom test-page test-swarm test-cost

# Always the whole workspace: with `-p` cargo chooses other features of shared dependencies, and builds
# them, and everything that uses them, once more.
test-rust: ## unit, property, black-box and doc tests
	cargo test $(LOCKED) --workspace --all-targets
	cargo test $(LOCKED) --workspace --doc

# The programs as the Rust tests have built them already: a release build of everything would take
# minutes more, and has no debug assertions.
test-programs:
	cargo test $(LOCKED) --workspace --test hub --test truth --no-run

test-loom: ## every interleaving of the engine's own primitives
	cd tests/loom && cargo test $(LOCKED) --target-dir $(CURDIR)/target/loom

test-memory: ## AddressSanitizer over engine, shards, black-box tests and fuzz targets; valgrind over the shards' tests
	bash tests/memory.sh

test-protocol: ## Autobahn's cases of RFC 6455 against the framing, which needs Python 2.7; CASES= chooses, such as 6.*
	WSTEST=$$(bash tests/protocol/setup.sh) && export WSTEST && cargo test $(LOCKED) --workspace --test protocol -- --nocapture

# Unless the environment names other programs.
test-clients test-page test-swarm check-deploy picture: export FLOWCAST_BIN ?= $(CURDIR)/target/debug/flowcast
test-swarm picture: export SWARM_BIN ?= $(CURDIR)/target/debug/swarm

test-kafka: test-programs ## Kafka against a real broker, which needs Java; KAFKA_BROKERS= uses one that is there
	python3 tests/kafka/setup.py >/dev/null
	cargo test $(LOCKED) --workspace --test kafka

# Before whatever needs it, so that no two install at once.
test-tools:
	bash tests/clients/setup.sh

test-clients: test-programs test-tools ## GexBot's and Azure's own clients and the example client against flowcast
	bash tests/clients/run.sh

test-page: test-programs test-tools ## the live page in headless Chromium, against flowcast
	cd tests/clients && node --test --test-force-exit --test-reporter=spec live_page/*.test.mjs

picture: test-programs test-tools ## the picture of the live page in the README, from the sample day; takes three minutes
	node tests/clients/live_page/picture.mjs

test-cost: test-programs ## instructions per frame, client and record under valgrind; fails above + 3 %; RENEW=1 keeps the new figures
	python3 loadtest/bench/cost.py $(if $(RENEW),--renew)

test-swarm: test-programs ## swarm and k6 against flowcast
	bash loadtest/tests/run.sh

check-deploy: test-programs test-tools ## compose, HAProxy with TLS, Prometheus, Grafana and Kubernetes files, with their own tools
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
	cargo clippy $(LOCKED) --workspace --test kafka --test protocol -- -D warnings
	cargo clippy $(LOCKED) --workspace --no-default-features -- -D warnings

bench: ## all benchmarks; compares with the last run
	cargo bench -p flowcast $(addprefix --bench ,$(BENCHES))

bench-encode: ## JSONL line to finished frames, records/s of one core
	cargo bench -p flowcast --bench encode

# $(call flags,ROWS SERIES) passes the variables that are set on as --rows and --series.
flags = $(foreach name,$(1),$(if $($(name)),--$(shell echo $(name) | tr A-Z a-z) "$($(name))"))

bench-fanout: ## flowcast against the floor and its peers (ROWS=peers), or AGAINST=another binary; ROWS= WIRES= ROUNDS= SECONDS= choose, rounds add up
	cargo build $(LOCKED) --release --workspace --bins
ifndef AGAINST
	$(if $(filter 0,$(PEERS)),,bash loadtest/peers/build.sh)
endif
	python3 loadtest/bench/fanout.py $(call flags,AGAINST ROWS WIRES ROUNDS SECONDS PEERS)

bench-growth: target/release/flowcast ## how cost grows with connections, groups, memberships, message size and churn; SERIES= ROUNDS= SECONDS= choose
	python3 loadtest/bench/growth.py $(call flags,SERIES ROUNDS SECONDS)

bench-quick: target/release/flowcast ## did a change cost something? two minutes, five ratios, one table; ROUNDS= chooses
	python3 loadtest/bench/quick.py $(call flags,ROUNDS)

bench-market: target/release/flowcast ## start and memory with 10 GB of market data, which it makes and removes; ROWS= TICKERS= RECORDS= ROUNDS= SECONDS= CLIENTS= choose
	python3 loadtest/bench/market.py $(call flags,ROWS TICKERS RECORDS ROUNDS SECONDS CLIENTS)

bench-streams: target/release/flowcast ## 5,000 clients of the JSON streams at 200 messages/s, and what docs/scaling.md computes with; ROUNDS= SECONDS= choose
	python3 loadtest/bench/streams.py $(call flags,ROUNDS SECONDS)

bench-clock: target/release/flowcast ## how exact the clock is, what a seek costs, and a thousand requests beside 5,000 clients; ROWS= CLIENTS= REQUESTS= ROUNDS= SECONDS= choose
	python3 loadtest/bench/clock.py $(call flags,ROWS CLIENTS REQUESTS ROUNDS SECONDS)

bench-latency: target/release/flowcast ## publish to receive for 1, 10 and 100 subscribers, divided by a bare TCP ping-pong; ROWS= SUBSCRIBERS= ROUNDS= MESSAGES= RATE= CORES= AGAINST= choose
	python3 loadtest/bench/latency.py $(call flags,ROWS SUBSCRIBERS ROUNDS MESSAGES RATE CORES AGAINST)

bench-shards: target/release/flowcast ## from one shard to two: frames/s, latency, fairness, and one shard's overload beside the other; ROWS= ROUNDS= SECONDS= choose
	python3 loadtest/bench/shards.py $(call flags,ROWS ROUNDS SECONDS)

bench-resume: target/release/flowcast ## 5,000 clients of /ws resume at once, each 1,000 messages behind; CLIENTS= BEHIND= OTHERS= SECONDS= ROUNDS= choose
	python3 loadtest/bench/resume.py $(call flags,CLIENTS BEHIND OTHERS SECONDS ROUNDS)

bench-page: target/release/flowcast ## what an open live page costs with 10,000 connections; ROWS= CLIENTS= WIRE= WINDOWS= choose
	python3 loadtest/bench/page.py $(call flags,ROWS CLIENTS WIRE WINDOWS)

bench-floods: target/release/flowcast ## what strangers can do to a server beside well clients, flood by flood; FLOODS= SECONDS= CLIENTS= LIMIT= choose
	python3 loadtest/bench/floods.py $(call flags,FLOODS SECONDS CLIENTS LIMIT)

cuts: target/release/flowcast ## a thousand reliable connections cut in the middle of frames, nothing lost and nothing twice; CUTS= CLIENTS= INTERVAL= choose
	python3 loadtest/bench/cuts.py $(call flags,CUTS CLIENTS INTERVAL)

soak: target/release/flowcast ## an hour of clients that come and go, ordered faults and seeks: nothing lost, nothing grows; HOURS= CLIENTS= REPORT= choose
	python3 loadtest/bench/soak.py $(call flags,HOURS CLIENTS REPORT)

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

# Private items are documented too, so links to them lead somewhere. Help texts have URLs that are printed as they stand.
docs: ## API documentation; warnings are errors
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links -A rustdoc::bare-urls" \
	  cargo doc $(LOCKED) --workspace --no-deps --document-private-items

clean: ## remove everything that was built or installed
	rm -rf target fuzz/target tests/clients/node_modules

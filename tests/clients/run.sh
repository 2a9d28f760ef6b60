#!/usr/bin/env bash
# Runs the tests with real clients against flowcast: $FLOWCAST_BIN, or target/debug/flowcast.
# Arguments go to pytest. The example page is opened in the Chromium that chromium.sh finds.
set -euo pipefail

clients=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$clients/../.." && pwd)
environment=$(realpath "${FLOWCAST_TEST_ENV:-$root/target/test-env}")
FLOWCAST_BIN=$(realpath "${FLOWCAST_BIN:-$root/target/debug/flowcast}")
CHROMIUM_BIN=$(bash "$clients/chromium.sh" || true)
export FLOWCAST_BIN CHROMIUM_BIN PYTHONDONTWRITEBYTECODE=1

# The suites spend most of their time waiting for timeouts and reconnections, each with servers of its own, so they
# run side by side; those of Node are printed once pytest has ended.
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
cd "$clients"
# Forced, because the SDK's keep-alive timers run on for up to 40 s after a client was stopped.
node --test --test-force-exit --test-concurrency=3 --test-reporter=spec *.test.mjs >"$logs/sdk" 2>&1 &
sdk=$!
# The example client is tested with the WebSocket that Node 22 has and Node 20 has behind this flag.
node --experimental-websocket --test --test-reporter=spec streams/*.test.mjs >"$logs/streams" 2>&1 &
streams=$!

# The two examples for authors of tests.
(cd "$root/examples/node" && node --test --test-reporter=spec) >"$logs/example" 2>&1 &
example=$!

status=0
"$environment/bin/python" -m pytest -p no:cacheprovider -q "$clients" "$@" || status=$?
"$environment/bin/python" -m pytest -p no:cacheprovider -q "$root/examples/python" || status=$?
wait "$sdk" || status=$?
cat "$logs/sdk"
wait "$streams" || status=$?
cat "$logs/streams"
wait "$example" || status=$?
cat "$logs/example"
exit "$status"

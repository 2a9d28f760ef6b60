#!/usr/bin/env bash
# Runs the tests with real clients against the built server: $FLOWCAST_BIN, or target/release/flowcast.
# Arguments go to pytest. The live page is looked at in $CHROMIUM_BIN, or `chromium` where there is one.
set -euo pipefail

clients=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$clients/../.." && pwd)
environment=$(realpath "${FLOWCAST_TEST_ENV:-$root/target/test-env}")
FLOWCAST_BIN=$(realpath "${FLOWCAST_BIN:-$root/target/release/flowcast}")
export FLOWCAST_BIN PYTHONDONTWRITEBYTECODE=1

status=0
"$environment/bin/python" -m pytest -p no:cacheprovider -q "$clients" "$@" || status=$?
# Forced, because the SDK's keep-alive timers run on for up to 40 s after a client was stopped.
(cd "$clients" && node --test --test-force-exit --test-reporter=spec js_sdk.test.mjs) || status=$?
# The example client is tested with the WebSocket that Node 22 has and Node 20 has behind this flag.
(cd "$clients" && node --experimental-websocket --test --test-reporter=spec streams/*.test.mjs) || status=$?
exit "$status"

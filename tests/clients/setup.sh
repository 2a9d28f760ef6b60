#!/usr/bin/env bash
# Installs what the client tests need: a Python environment in $FLOWCAST_TEST_ENV (target/test-env by default)
# and the JavaScript packages beside this file. Does nothing the second time.
set -euo pipefail

clients=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$clients/../.." && pwd)
environment=${FLOWCAST_TEST_ENV:-$root/target/test-env}

if ! cmp -s "$clients/requirements.txt" "$environment/installed.txt"; then
  python3 -m venv --clear "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check -r "$clients/requirements.txt"
  cp "$clients/requirements.txt" "$environment/installed.txt"
fi

if ! cmp -s "$clients/package-lock.json" "$clients/node_modules/installed.json"; then
  (cd "$clients" && npm ci --no-fund --no-audit --loglevel=error)
  cp "$clients/package-lock.json" "$clients/node_modules/installed.json"
fi

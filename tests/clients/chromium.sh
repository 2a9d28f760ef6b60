#!/usr/bin/env bash
# Prints the path of a Chromium: $CHROMIUM_BIN, the one on the PATH, or Debian's, which is installed first:
# for the whole machine as root, else with what it needs below target/tools/chromium.
# Fails, and says why, where there is none to be had.
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target/tools/chromium

runs() { # program
  timeout 20 "$1" --version 2>/dev/null | grep -q '^Chromium'
}

for found in "${CHROMIUM_BIN:-}" "$(command -v chromium || true)" "$tools/run"; do
  if [[ -x $found ]] && runs "$found"; then
    echo "$found"
    exit
  fi
done

command -v apt-get >/dev/null || { echo "no Chromium: it is installed with apt-get, and there is none" >&2; exit 1; }
mkdir -p "$tools"/{debs,root,lists/partial,cache/archives/partial}
log=$tools/install.log

as_root() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -qq -y --no-install-recommends chromium ||
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; }
}

# What Debian would install, unpacked. The lists are fetched into a folder of our own where the machine has none.
unpacked() {
  local own=() missing libraries
  if ! apt-cache show chromium >/dev/null 2>&1; then
    own=(-o "Dir::State::Lists=$tools/lists" -o "Dir::Cache=$tools/cache")
    apt-get "${own[@]}" update -qq || return
  fi
  missing=$(apt-get "${own[@]}" -s install --no-install-recommends chromium | sed -n 's/^Inst \([^ ]*\) .*/\1/p') || return
  cd "$tools/debs" || return
  # shellcheck disable=SC2086
  apt-get "${own[@]}" download -qq $missing || return
  for package in *.deb; do dpkg -x "$package" "$tools/root" || return; done
  rm -f ./*.deb
  libraries=$(find "$tools/root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%q exec %q "$@"\n' "$libraries" "$tools/root/usr/lib/chromium/chromium" >"$tools/run"
  chmod +x "$tools/run"
}

if [[ $(id -u) == 0 ]] && (as_root) </dev/null >"$log" 2>&1; then
  command -v chromium
elif (unpacked) </dev/null >>"$log" 2>&1 && runs "$tools/run"; then
  echo "$tools/run"
else
  tail -5 "$log" >&2
  echo "no Chromium: Debian's could not be installed (all of it: $log)" >&2
  exit 1
fi

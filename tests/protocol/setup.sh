#!/usr/bin/env bash
# Installs Autobahn's test suite below target/tools/autobahn and prints the path of its wstest. The suite is written
# for Python 2.7 and runs on nothing newer; PYTHON2 names one that is not on the PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=25.10.1
tools=$PWD/target/tools/autobahn
for python in "${PYTHON2:-}" python2.7 python2 "$HOME"/.pyenv/versions/2.7.*/bin/python2.7 pypy; do
  if [[ -n $python ]] && "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null; then break; fi
  python=
done
if [[ -z $python ]]; then
  echo "tests/protocol/setup.sh: expected Python 2.7 (python2.7, or PYTHON2=PATH), which Autobahn's test suite needs; found none" >&2
  exit 1
fi
if [[ $(cat "$tools/installed" 2>/dev/null) != "$version" ]]; then
  rm -rf "$tools"
  mkdir -p "$tools"
  "$python" -m pip install --quiet --disable-pip-version-check --no-warn-script-location --target "$tools/site" \
    "autobahntestsuite==$version" >&2
  cat >"$tools/wstest" <<END
#!/bin/sh
# As a site folder, for the packages that come in several parts.
exec $(command -v "$python") -W ignore -c 'import site; site.addsitedir("$tools/site")
from autobahntestsuite.wstest import run; run()' "\$@"
END
  chmod +x "$tools/wstest"
  echo "$version" >"$tools/installed"
fi
echo "$tools/wstest"

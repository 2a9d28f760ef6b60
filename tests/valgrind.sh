#!/usr/bin/env bash
# Prints the path of a valgrind: the one on the PATH, or Debian's, which is unpacked below target/tools first, with the
# debug information of libc that memcheck needs. Fails, and says why, where there is none to be had.
set -euo pipefail

room=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/target/tools/valgrind

if type -P valgrind; then
  exit
fi
if [[ ! -x $room/run ]]; then
  command -v apt-get >/dev/null || { echo "no valgrind: it is taken from Debian, and there is no apt-get" >&2; exit 1; }
  mkdir -p "$room"
  cd "$room"
  {
    # The lists are fetched into a folder of our own where the machine has none.
    own=()
    if ! apt-cache show valgrind >/dev/null 2>&1; then
      mkdir -p lists/partial cache/archives/partial
      own=(-o "Dir::State::Lists=$room/lists" -o "Dir::Cache=$room/cache")
      apt-get "${own[@]}" update -qq
    fi
    apt-get "${own[@]}" download -qq valgrind libc6-dbg
    for package in *.deb; do dpkg -x "$package" .; done
    printf '#!/bin/sh\nVALGRIND_LIB=%q exec %q --extra-debuginfo-path=%q "$@"\n' \
      "$room/usr/libexec/valgrind" "$room/usr/bin/valgrind" "$room/usr/lib/debug" >run
    chmod +x run
  } >&2
fi
echo "$room/run"

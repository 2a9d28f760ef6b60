#!/usr/bin/env bash
# Memory errors, looked for by tools: AddressSanitizer over the unit tests, the black-box tests of the
# fan-out and the fuzz targets; valgrind over the unit tests of the engine and the shards. All without
# mimalloc, which they cannot look into. What is missing is installed below target/tools, without root.
#
#   tests/memory.sh [tests] [fuzz] [valgrind]    default: all three
#   FUZZ_SECONDS                                 for each fuzz target; default 10
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=$PWD/target/tools
host=$(rustc -vV | sed -n 's/^host: //p')
flowcast=(-p flowcast --no-default-features --features io-uring)

sanitized() { # environment and command…
  # Sanitizers are unstable options, which a stable compiler takes only with RUSTC_BOOTSTRAP; here alone.
  # C libraries stay as they are: `cc` would have another compiler sanitize them, and the two disagree about
  # globals (zstd's tables are reported as stack frames that were left).
  env RUSTC_BOOTSTRAP=1 CFLAGS=-fno-sanitize=all CXXFLAGS=-fno-sanitize=all "$@"
}

tests() {
  echo "== AddressSanitizer: unit tests, and black-box tests against a sanitized server"
  # What is lost at exit is not looked for: a server ends with its process.
  local asan=(RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR="$PWD/target/asan" ASAN_OPTIONS=detect_leaks=0:abort_on_error=1)
  sanitized "${asan[@]}" cargo test "${flowcast[@]}" --target "$host" --lib
  # The skipped one looks at resident memory, and the sanitizer keeps what was freed.
  sanitized "${asan[@]}" cargo test "${flowcast[@]}" --target "$host" \
    --test hub --test streams \
    -- --skip messages_that_everybody_has_are_not_kept
}

fuzz() {
  echo "== AddressSanitizer: fuzz targets"
  export PATH="$tools/bin:$PATH"
  cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked --root "$tools"
  local target
  for target in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$target" .rs)
    mkdir -p "fuzz/corpus/$target"
    sanitized cargo fuzz run -s address "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" \
      -- -max_total_time="${FUZZ_SECONDS:-10}" -max_len=4096 -timeout=20
  done
}

valgrind() {
  echo "== valgrind: unit tests of the engine and the shards"
  local program tests
  program=$(bash tests/valgrind.sh)
  tests=$(CARGO_TARGET_DIR=$PWD/target/valgrind cargo test "${flowcast[@]}" --lib --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
  # Properties of a few cases: under valgrind everything takes fifty times as long.
  PROPTEST_CASES=4 "$program" --quiet --error-exitcode=1 --leak-check=no \
    "$tests" --test-threads=1 engine:: server::
}

if [[ $# == 0 ]]; then set -- tests fuzz valgrind; fi
for part in "$@"; do
  case $part in
    tests | fuzz | valgrind) "$part" ;;
    *) echo "expected tests, fuzz or valgrind, got $part" >&2 && exit 2 ;;
  esac
done
echo "no memory errors found"

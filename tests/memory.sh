#!/usr/bin/env bash
# Memory errors, looked for by tools: AddressSanitizer over the unit tests, the black-box tests of the
# fan-out and the fuzz targets; valgrind over the unit tests of the shards and the engine. Both without
# mimalloc, which they cannot look into. What is missing is installed below target/tools, without root.
#
#   FUZZ_SECONDS   for each fuzz target; default 10
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=$PWD/target/tools
host=$(rustc -vV | sed -n 's/^host: //p')
features=(--no-default-features --features io-uring)

echo "== AddressSanitizer: unit tests, and black-box tests against a sanitized server"
# Sanitizers are unstable options, which a stable compiler takes only with RUSTC_BOOTSTRAP; here alone.
(
  export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=$PWD/target/asan
  # What leaks at exit is not what is looked for: a server ends with its process.
  export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1
  cargo test -p flowcast "${features[@]}" --target "$host" --lib
  cargo test -p flowcast "${features[@]}" --target "$host" \
    --test groups --test lag --test reliable --test upgrade --test protocol_errors --test shutdown --test streams
)

echo "== AddressSanitizer: fuzz targets"
PATH="$tools/bin:$PATH"
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked --root "$tools"
for target in fuzz/fuzz_targets/*.rs; do
  target=$(basename "$target" .rs)
  mkdir -p "fuzz/corpus/$target"
  RUSTC_BOOTSTRAP=1 cargo fuzz run -s address "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" \
    -- -max_total_time="${FUZZ_SECONDS:-10}" -max_len=4096 -timeout=20
done

echo "== valgrind: unit tests of the engine and the shards"
if ! valgrind=$(command -v valgrind); then
  mkdir -p "$tools/valgrind"
  (
    cd "$tools/valgrind"
    apt-get download -qq valgrind libc6-dbg || { [[ $(id -u) == 0 ]] && apt-get update -qq && apt-get download -qq valgrind libc6-dbg; }
    for package in *.deb; do dpkg -x "$package" .; done
  )
  valgrind=$tools/valgrind/usr/bin/valgrind
  export VALGRIND_LIB=$tools/valgrind/usr/libexec/valgrind
  debug_info=(--extra-debuginfo-path="$tools/valgrind/usr/lib/debug")
fi
tests=$(cargo test -p flowcast "${features[@]}" --lib --no-run --message-format=json 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
# One thread at a time is valgrind's way; properties of a hundred cases would take an hour.
PROPTEST_CASES=4 "$valgrind" "${debug_info[@]}" --quiet --error-exitcode=1 --leak-check=no \
  "$tests" --test-threads=1 engine:: server::
echo "no memory errors found"

#!/usr/bin/env bash
# Builds the servers that flowcast is compared with, below target/peers and node_modules, each from its package
# registry in the version named here or in a lock file. What cannot be built is left out, and says so.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
built=$(cd ../.. && pwd)/target/peers
mkdir -p "$built"

left_out() { echo "left out of the comparison: $1" >&2; }

cargo build --release --manifest-path tungstenite/Cargo.toml --target-dir "$built" || left_out "tokio-tungstenite did not build"

if command -v npm >/dev/null; then
  npm install --no-audit --no-fund --silent || left_out "ws and Bun could not be installed with npm"
else
  left_out "ws and Bun, because there is no npm"
fi

# Where go.dev's archive is unpacked, which not every shell has on its PATH.
PATH=$PATH:/usr/local/go/bin
if command -v go >/dev/null; then
  (cd gorilla && go build -o "$built/gorilla" .) || left_out "gorilla/websocket did not build"
  for module in github.com/centrifugal/centrifugo/v6@v6.9.1 github.com/nats-io/nats-server/v2@v2.15.3; do
    GOBIN=$built go install "$module" || left_out "$module did not build"
  done
else
  left_out "gorilla/websocket, Centrifugo and nats-server, because there is no Go"
fi

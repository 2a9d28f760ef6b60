#!/bin/sh
# Rebuilds fzstd.js from the npm package: needs npm, works in a folder of its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init --yes >/dev/null
npm install --silent fzstd@0.1.1 esbuild@0.25 >/dev/null
echo "export { decompress } from 'fzstd';" >entry.js
{
  echo "/* fzstd 0.1.1 from npm, bundled by vendor/build.sh. Its licence:"
  sed 's/^/ * /; s/ *$//' node_modules/fzstd/LICENSE
  echo " */"
  ./node_modules/.bin/esbuild entry.js --bundle --format=esm --minify
} >"$here/fzstd.js"

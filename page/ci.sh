#!/usr/bin/env bash
# The page from nothing: its dependencies, its build, and its tests, which open it in Chromium. To be
# called in a Python environment that has this package with its extra `onnx`.
set -euo pipefail
cd "$(dirname "$0")"

if [ ! -x /usr/bin/chromium ]; then
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium > /dev/null
fi
npm ci --ignore-scripts
npm run build
npm test

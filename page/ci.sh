#!/usr/bin/env bash
# Builds the page and runs its tests, which open it in Chromium. Needs install.sh, and a Python
# environment with this package and its extra `onnx`.
set -euo pipefail
cd "$(dirname "$0")"

npm run build
npm test

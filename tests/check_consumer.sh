#!/usr/bin/env bash
# Installs the build into a temporary prefix and builds and runs a project that finds it there.
# Usage: check_consumer.sh BUILD_DIR CXX_FLAGS
set -euo pipefail
build=$1
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
cmake --install "$build" --prefix "$prefix" >/dev/null
cmake -S "$(dirname "$0")/consumer" -B "$prefix/build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_CXX_FLAGS="${2:-}" >/dev/null
cmake --build "$prefix/build" >/dev/null
"$prefix/build/consumer"
"$prefix/bin/sgm" --version

#!/usr/bin/env bash
# Fails when a source file is not as clang-format 14 would write it. Other versions disagree on details: skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! clang-format --version 2>/dev/null | grep -q 'version 14\.'; then
  echo "skipped: clang-format 14 is not installed"
  exit 77
fi
find include src kernels tests bench -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' |
  xargs clang-format --dry-run --Werror

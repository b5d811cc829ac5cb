#!/usr/bin/env bash
# Installs what is missing, builds, runs every test, in release and under the sanitizers, and ends with a line
# "N passed, N failed, N skipped".   Usage: scripts/test.sh [release|debug ...]
set -uo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh || exit
presets=("$@")
[ ${#presets[@]} -gt 0 ] || presets=(release debug)

passed=0 failed=0 skipped=0
for preset in "${presets[@]}"; do
  cmake --preset "$preset" && cmake --build --preset "$preset" || exit 1
  log=build/$preset/test.log
  ctest --preset "$preset" --no-tests=error | tee "$log"
  for kind in Passed Failed Skipped; do
    case $kind in
      Passed) passed=$((passed + $(grep -cE 'Test +#[0-9]+: .* +Passed ' "$log"))) ;;
      Failed) failed=$((failed + $(grep -cE 'Test +#[0-9]+: .*\*\*\*(Failed|Timeout|Exception|Not Run)' "$log"))) ;;
      Skipped) skipped=$((skipped + $(grep -cE 'Test +#[0-9]+: .*\*\*\*Skipped' "$log"))) ;;
    esac
  done
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]

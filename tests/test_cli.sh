#!/usr/bin/env bash
# The program as its users meet it: exit codes, messages, files, interruptions.
# Usage: test_cli.sh SGM PART, where PART is the name of a file in cli/.
# Exits with 77, and a reason, where this machine cannot check the part.
set -uo pipefail
sgm=$(realpath "$1")
part=$2
repository=$(realpath "$(dirname "$0")/..")
export OMP_WAIT_POLICY=passive # the machine may be busy with other tests
# No part but gpu_run uses a GPU, so that all say the same on every machine.
visible=${CUDA_VISIBLE_DEVICES-all}
export CUDA_VISIBLE_DEVICES=
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

fail() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}

# run CODE COMMAND...: the command must end with that code. What it printed lies in ./out and ./err.
run() {
  local expected=$1 code
  shift
  "$@" >out 2>err
  code=$?
  [ $code -eq "$expected" ] && return
  fail "exit code $code, expected $expected: $*"
  cat err >&2
}

# bad TEXT COMMAND...: bad input, answered with code 2 and one line that holds TEXT.
bad() {
  local text=$1
  shift
  run 2 "$@"
  grep -v '^\(device\|data\|memory\|model\): \|^step ' err >errors
  [ "$(wc -l <errors)" -eq 1 ] || fail "not one line of error: $* -> $(cat errors)"
  grep -q '^sgm: error: ' errors || fail "no 'sgm: error:': $* -> $(cat errors)"
  grep -qF -- "$text" errors || fail "the error does not name '$text': $* -> $(cat errors)"
}

has() { grep -qF -- "$2" "$1" || fail "$1 lacks '$2': $(head -c 2000 "$1")"; }
same() { cmp -s "$1" "$2" || fail "$1 and $2 differ"; }
absent() { [ ! -e "$1" ] || fail "$1 was left behind"; }
no_temporaries() { [ -z "$(find . -name '*.tmp')" ] || fail "left behind: $(find . -name '*.tmp')"; }

# Eight grey images of 8 x 8 pixels, and a network for them.
make_config() {
  local i
  mkdir -p images
  for i in 0 1 2 3 4 5 6 7; do
    { printf 'P5\n8 8\n255\n'; printf "a${i}b|z0W<$i.~MvQ9}%.0s" 1 2 3 4; } >"images/$i.pgm"
  done
  cat >tiny.toml <<'TOML'
[data]
path = "images"
image_size = 8
num_channels = 1
centered = true
[sde]
name = "vpsde"
[model]
nf = 8
ch_mult = [1, 2]
num_res_blocks = 1
attn_resolutions = [4]
fir = false
progressive_input = "none"
embedding_type = "positional"
scale_by_sigma = false
[training]
n_iters = 4
batch_size = 2
log_freq = 1
reduce_mean = true
[optim]
warmup = 2
[sampling]
predictor = "euler_maruyama"
corrector = "none"
steps = 5
snapshot_count = 4
TOML
}

# wait_for FILE: until it exists, a minute at most.
wait_for() {
  local i
  for i in $(seq 600); do
    [ -e "$1" ] && return
    sleep 0.1
  done
  fail "$1 did not appear"
}

# A checkpoint of colour images: run/.
make_colour_run() {
  make_config
  sed -i -e 's/num_channels = 1/num_channels = 3/' tiny.toml
  run 0 "$sgm" train tiny.toml --workdir run --steps 1
}

[ -f "$repository/tests/cli/$part.sh" ] || { echo "test_cli.sh: no part '$part'" >&2 && exit 2; }
# In a function, so that parts may have local variables.
run_part() { . "$repository/tests/cli/$part.sh"; }
run_part
[ $failures -eq 0 ] && echo "$part: passed"
exit $((failures > 0))

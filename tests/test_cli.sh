#!/usr/bin/env bash
# The program as its users meet it: exit codes, messages, files, interruptions.
# Usage: test_cli.sh SGM PART, where PART is one of the functions below named part_*.
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
  grep -v '^\(device\|data\|model\): \|^step ' err >errors
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

part_train() {
  make_config
  run 0 "$sgm" train tiny.toml --dry-run
  cp out resolved.toml
  has resolved.toml 'num_scales = 1000'
  run 0 "$sgm" train resolved.toml --dry-run
  same out resolved.toml
  absent run
  # An override takes one value, wherever it stands.
  run 0 "$sgm" train --set optim.lr=0.5 --set data.path=x tiny.toml --dry-run
  has out 'lr = 0.5'
  has out 'path = "x"'

  run 0 "$sgm" train tiny.toml --workdir run --threads 2
  has err 'device: cpu: 2 threads'
  has err 'step 4/4'
  for file in config.toml metrics.jsonl checkpoints/checkpoint_00000004.safetensors samples/step_00000004.png; do
    [ -s "run/$file" ] || fail "run/$file is missing"
  done
  [ "$(wc -l <run/metrics.jsonl)" -eq 4 ] || fail "metrics.jsonl has not four lines"
  ls run/events.out.tfevents.* >out 2>&1 || fail "no TensorBoard events"
  cp run/checkpoints/checkpoint_00000004.safetensors before
  bad '--resume' "$sgm" train tiny.toml --workdir run
  bad 'lr = ' "$sgm" train tiny.toml --workdir run --resume --set optim.lr=0.5
  same run/checkpoints/checkpoint_00000004.safetensors before
  run 0 "$sgm" train tiny.toml --workdir run --resume --steps 6 --threads 2
  run 0 "$sgm" train tiny.toml --workdir whole --steps 6 --threads 2
  same run/checkpoints/checkpoint_00000006.safetensors whole/checkpoints/checkpoint_00000006.safetensors
  same run/samples/step_00000006.png whole/samples/step_00000006.png
  no_temporaries
}

part_signals() {
  make_config
  local signal pid code number
  for signal in TERM INT; do
    # A shell ignores SIGINT for what it starts in the background, and the child inherits that; job control does not.
    set -m
    "$sgm" train tiny.toml --workdir "run$signal" --steps 1000000 >out 2>err &
    pid=$!
    set +m
    wait_for "run$signal/metrics.jsonl"
    sleep 0.3
    kill -s $signal $pid
    wait $pid
    code=$?
    [ $code -eq 130 ] || fail "SIG$signal: exit code $code, expected 130"
    has err 'interrupted: saved'
    number=$(find "run$signal/checkpoints" -name 'checkpoint_*.safetensors' | wc -l)
    [ "$number" -eq 1 ] || fail "SIG$signal left $number checkpoints"
    run 0 "$sgm" info "run$signal"
    number=$(sed -n 's/^step: //p' out)
    run 0 "$sgm" train tiny.toml --workdir "run$signal" --resume --steps $((number + 2))
    [ "$(wc -l <"run$signal/metrics.jsonl")" -eq $((number + 2)) ] || fail "SIG$signal: steps are missing in metrics.jsonl"
    no_temporaries
  done

  set -m
  "$sgm" sample runTERM --out late.npz --n 100000 --batch 4 --steps 1000 >out 2>err &
  pid=$!
  set +m
  for number in $(seq 300); do
    grep -q '^step' err && break
    sleep 0.1
  done
  kill -s INT $pid
  wait $pid
  code=$?
  [ $code -eq 130 ] || fail "sampling, SIGINT: exit code $code, expected 130"
  has err 'nothing was written'
  absent late.npz
}

part_sample() {
  make_config
  run 0 "$sgm" train tiny.toml --workdir run
  local out
  for out in grid.png samples.npz folder; do
    run 0 "$sgm" sample run --out "a_$out" --n 5 --seed 3
    run 0 "$sgm" sample run/checkpoints/checkpoint_00000004.safetensors --out "b_$out" --n 5 --seed 3
    run 0 "$sgm" sample run --out "c_$out" --n 5 --seed 4
    diff -r "a_$out" "b_$out" >/dev/null || fail "the same seed gives two versions of $out"
    diff -r "a_$out" "c_$out" >/dev/null && fail "two seeds give the same $out"
  done
  [ "$(ls a_folder)" = "$(printf '%06d.png\n' 0 1 2 3 4)" ] || fail "the folder holds $(ls a_folder)"
  # At other batch sizes sums are rounded in another order, which may move a pixel by one level.
  run 0 "$sgm" sample run --out d_folder --n 5 --seed 3 --batch 2
  run 0 "$sgm" sample run --out e_folder/ --n 3 --seed 3 --batch 3
  for out in d_folder e_folder; do
    number=0
    for file in "$out"/*.png; do cmp -s "$file" "a_folder/${file##*/}" || number=$((number + 1)); done
    [ $number -le 1 ] || fail "$number images depend on the batch size"
  done
  run 0 "$sgm" sample run --out raw.png --n 2 --raw
  run 0 "$sgm" sample run --out ode.png --n 2 --sampler ode --rtol 0.1 --atol 0.1
  run 0 "$sgm" sample run --out pc.png --n 2 --predictor reverse_diffusion --corrector langevin --steps 30 --snr 0.1
  has err 'NFE 60' # thirty updates, each of the predictor and the corrector

  bad 'nowhere' "$sgm" sample nowhere --out x.png
  bad 'no checkpoints' "$sgm" sample images --out x.png
  bad 'tiny.toml' "$sgm" sample tiny.toml --out x.png
  bad 'x.jpg' "$sgm" sample run --out x.jpg
  bad '--n' "$sgm" sample run --out x.png --n 0
  bad 'frob' "$sgm" sample run --out x.png --sampler frob
  bad 'frob' "$sgm" sample run --out x.png --predictor frob
  bad 'frob' "$sgm" sample run --out x.png --precision frob
  # Refused before any work: not even the device is opened.
  for out in gone/x.png gone/folder /dev/full tiny.toml; do
    bad "$out" "$sgm" sample run --out "$out" --n 1000000
    ! grep -q '^device' err || fail "--out $out was not refused before the work"
  done
  mkdir folder.png
  bad 'folder.png' "$sgm" sample run --out folder.png
  head -c 3000 run/checkpoints/checkpoint_00000004.safetensors >cut
  bad 'cut' "$sgm" sample cut --out x.png
  absent x.png
  absent gone
  no_temporaries
}

part_classify() {
  make_config
  mkdir -p labelled/dark labelled/light
  cp images/[0-3].pgm labelled/dark && cp images/[4-7].pgm labelled/light
  sed 's/"images"/"labelled"/' tiny.toml >labelled.toml
  printf '[classifier]\nbase_width = 8\nwiden_factor = 1\nblocks = 1\nembedding = 4\n' >>labelled.toml
  run 0 "$sgm" classify-train labelled.toml --workdir c --test labelled
  has err '% right'
  has out 'accuracy on 8 images of labelled'
  [ "$(wc -l <out)" -eq 12 ] || fail "not ten parts of the noise levels"
  has c/metrics.jsonl '"accuracy":'
  run 0 "$sgm" classify-train labelled.toml --workdir c --resume --steps 6
  has out 'accuracy on 8 training images'
  run 0 "$sgm" classify-train labelled.toml --workdir whole --steps 6
  same c/checkpoints/checkpoint_00000006.safetensors whole/checkpoints/checkpoint_00000006.safetensors
  bad 'the images have no classes' "$sgm" classify-train tiny.toml --workdir none
  bad 'the images have no classes' "$sgm" classify-train labelled.toml --workdir none --test images
  absent none/checkpoints
  bad 'is of a classifier, not of a score model' "$sgm" train labelled.toml --workdir c --resume

  run 0 "$sgm" train tiny.toml --workdir run
  run 0 "$sgm" sample run --classifier c --class all --n 3 --out grid.png
  has err '4 images' # two rows of two
  run 0 "$sgm" sample run --classifier c --class 1 --n 2 --out one.npz
  run 0 "$sgm" sample run --classifier c --class 0 --n 2 --out other.npz
  run 0 "$sgm" sample run --classifier c --class 0 --n 2 --guidance 0 --out unguided.npz
  run 0 "$sgm" sample run --n 2 --out plain.npz
  same unguided.npz plain.npz
  cmp -s one.npz other.npz && fail "two classes give the same images"
  run 0 "$sgm" sample run --classifier c --class 1,0 --sampler ode --rtol 0.1 --atol 0.1 --n 2 --out ode.png
  bad 'the classifier knows classes 0 to 1' "$sgm" sample run --classifier c --class 2 --out x.png
  bad 'neither a class' "$sgm" sample run --classifier c --class 0, --out x.png
  bad 'needs --classifier' "$sgm" sample run --class 0 --out x.png
  bad 'needs --class' "$sgm" sample run --classifier c --out x.png
  bad 'holds a score model, not a classifier' "$sgm" sample run --classifier run --class 0 --out x.png
  bad 'holds a classifier, not a score model' "$sgm" sample c --out x.png
  run 0 "$sgm" classify-train labelled.toml --workdir large --set data.image_size=16 --set model.attn_resolutions=[8] --steps 1
  bad 'a classifier of 16 x 16 x 1 images' "$sgm" sample run --classifier large --class 0 --out x.png
  absent x.png
  no_temporaries
}

part_likelihood() {
  make_config
  run 0 "$sgm" train tiny.toml --workdir run --threads 2
  local quick="--rtol 0.01 --atol 0.01 --eps 0.01 --threads 2" signal
  # The eighth image is not reached by whole batches of three.
  run 0 "$sgm" likelihood run --data images/ --out whole.jsonl --draws 2 --batch 3 $quick
  has out 'bits/dim'
  has out 'over 8 images'
  [ "$(wc -l <whole.jsonl)" -eq 9 ] || fail "whole.jsonl has not a header and eight lines"
  has whole.jsonl '"standard_error":'
  has whole.jsonl '"image":7,'
  # What was interrupted in the middle of a line, continued.
  head -c $(($(head -6 whole.jsonl | wc -c) + 20)) whole.jsonl >cut.jsonl
  run 0 "$sgm" likelihood run --data images/ --out cut.jsonl --draws 2 --batch 3 $quick --resume
  same cut.jsonl whole.jsonl
  run 0 "$sgm" likelihood run --data images/ --out cut.jsonl --draws 2 --batch 3 $quick --resume
  same cut.jsonl whole.jsonl
  bad '--resume' "$sgm" likelihood run --data images --out whole.jsonl
  bad 'rtol = 0.01, not 0.02' "$sgm" likelihood run --data images/ --out cut.jsonl --draws 2 --batch 3 --resume \
    --atol 0.01 --eps 0.01 --rtol 0.02
  bad 'more than --n 4' "$sgm" likelihood run --data images/ --out cut.jsonl --draws 2 --batch 3 --n 4 $quick --resume
  { head -3 whole.jsonl; echo '{"image":2,"ni'; } >cut.jsonl
  bad 'line 4' "$sgm" likelihood run --data images/ --out cut.jsonl --draws 2 --batch 3 $quick --resume
  echo '{}' >cut.jsonl
  bad 'first line' "$sgm" likelihood run --data images --out cut.jsonl --resume
  run 0 "$sgm" likelihood run --data images --n 1 --first 7 --exact $quick --out exact.jsonl
  has exact.jsonl '"trace":"exact"'

  bad '--draws' "$sgm" likelihood run --data images --draws 0
  bad '--probe' "$sgm" likelihood run --data images --probe cauchy
  bad '--exact' "$sgm" likelihood run --data images --exact --probes 2
  bad '--data' "$sgm" likelihood run
  bad 'gone' "$sgm" likelihood run --data gone
  bad 'only 8 images' "$sgm" likelihood run --data images --first 8
  bad 'only 3 images' "$sgm" likelihood run --data images --first 5 --n 4
  bad 'leapfrog' "$sgm" likelihood run --data images --solver leapfrog
  mkdir wide
  printf 'P5\n16 8\n255\n%0128d' 0 >wide/a.pgm
  bad '--resize' "$sgm" likelihood run --data wide --out wide.jsonl
  absent wide.jsonl
  bad 'gone' "$sgm" likelihood run --data images --out gone/x.jsonl

  set -m
  "$sgm" likelihood run --data images --out late.jsonl --batch 1 --draws 60000 >out 2>err &
  signal=$!
  set +m
  wait_for late.jsonl
  sleep 0.3
  kill -s INT $signal
  wait $signal
  [ $? -eq 130 ] || fail "likelihood, SIGINT: the exit code is not 130"
  has err '0 of 8 images are finished'
  [ "$(wc -l <late.jsonl)" -eq 1 ] || fail "late.jsonl is not the header alone"
  no_temporaries
}

part_latent() {
  make_config
  run 0 "$sgm" train tiny.toml --workdir run --threads 2
  run 0 "$sgm" train tiny.toml --workdir other --threads 2 --set training.seed=5
  local quick="--rtol 0.01 --atol 0.01 --eps 0.01 --threads 2"
  run 0 "$sgm" encode run --data images --first 2 --n 3 --out codes.npz $quick
  run 0 "$sgm" decode run codes.npz --out cool $quick --temperature 0.9
  [ "$(ls cool | wc -l)" -eq 3 ] || fail "decode did not write three images"
  run 0 "$sgm" decode run codes.npz --out fixed.png --solver heun --steps 3 --eps 0.01
  has err 'NFE 6 '
  run 0 "$sgm" interpolate run --out random --rows 2 --frames 3 --seed 4 $quick
  [ "$(ls random | wc -l)" -eq 6 ] || fail "interpolate did not write two rows of three"
  run 0 "$sgm" interpolate run --data images --from 1 2 --to 3 4 --frames 2 --out pairs.png $quick
  run 0 "$sgm" identify run run --data images --n 4 --out same.json $quick
  has out 'relative_difference                0.0000   0.0000'
  has same.json '"shuffled_correlation"'
  run 0 "$sgm" identify run other --data images --n 4 --out two.json $quick

  bad 'codes.txt' "$sgm" encode run --data images --out codes.txt
  bad '--from' "$sgm" interpolate run --data images --from 1 2 --to 3 --out x.png
  bad 'image 8' "$sgm" interpolate run --data images --from 1 --to 8 --out x.png
  bad '--frames' "$sgm" interpolate run --frames 1 --out x.png
  bad '--n' "$sgm" identify run other --data images --n 2 --out x.json
  run 0 "$sgm" train tiny.toml --workdir ve --steps 1 --set sde.name=vesde --set model.scale_by_sigma=true \
    --set data.centered=true --set training.snapshot_sampling=false --threads 2
  bad 'sde.name' "$sgm" identify run ve --data images --out x.json
  run 0 "$sgm" sample run --n 2 --out pixels.npz
  bad 'no array z' "$sgm" decode run pixels.npz --out x.png
  bad 'gone.npz' "$sgm" decode run gone.npz --out x.png
  run 0 "$sgm" train tiny.toml --workdir large --steps 1 --set data.image_size=16 --set "model.attn_resolutions=[8]" \
    --set training.snapshot_sampling=false --threads 2
  bad '16 x 16 x 1' "$sgm" encode large --data images --out x.npz
  bad 'z must be a batch like' "$sgm" decode large codes.npz --out x.png
  absent x.png
  no_temporaries
}

part_bad_input() {
  make_config
  bad 'command' "$sgm"
  bad 'frob' "$sgm" frob
  bad 'frob' "$sgm" doctor --frob
  bad 'frob' "$sgm" doctor "$(printf 'a\nfrob')"
  bad 'threads' "$sgm" doctor --threads -1
  bad 'threads' "$sgm" doctor --threads 100000
  bad 'config' "$sgm" train
  bad '--workdir' "$sgm" train tiny.toml
  bad 'gone.toml' "$sgm" train gone.toml --workdir run
  bad 'model.frob' "$sgm" train tiny.toml --workdir run --set model.frob=1
  bad 'frob' "$sgm" train tiny.toml --workdir run --set frob
  bad 'training.batch_size' "$sgm" train tiny.toml --workdir run --set training.batch_size=0
  bad 'frob' "$sgm" train tiny.toml --workdir run --set sde.name=frob
  bad 'frob' "$sgm" train tiny.toml --workdir run --set model.name=frob
  bad 'steps' "$sgm" train tiny.toml --workdir run --steps -5
  bad 'steps' "$sgm" train tiny.toml --workdir run --steps 0
  bad 'gone' "$sgm" train tiny.toml --workdir run --set data.path=gone
  bad 'data.path' "$sgm" train tiny.toml --workdir run --set 'data.path='
  printf '[model]\nnf = 8\nfrobs = 1\n' >unknown.toml
  bad 'unknown.toml:3' "$sgm" train unknown.toml --workdir run
  printf '[model\n' >broken.toml
  bad 'broken.toml' "$sgm" train broken.toml --workdir run
  bad 'cuda' "$sgm" train tiny.toml --workdir run --device cuda
  bad 'tpu' "$sgm" train tiny.toml --workdir run --device tpu
  bad 'tiny.toml' "$sgm" train tiny.toml --workdir tiny.toml
  bad 'gone' "$sgm" verify gone
  bad 'tiny.toml' "$sgm" verify tiny.toml
  bad 'f16' "$sgm" verify tiny.toml --precision f16
  bad 'gone' "$sgm" data gone
  bad 'tiny.toml' "$sgm" data tiny.toml --out x.png
  bad 'gone' "$sgm" data images --out gone/x.png
  bad 'gone' "$sgm" info gone
  bad 'images' "$sgm" info images
  bad 'tiny.toml' "$sgm" info tiny.toml
  absent run
  absent x.png
  absent preview.png
  absent gone
}

part_verify() {
  local golden=$repository/tests/golden file
  for file in ddpm_vp ddpmpp_positional_ddpmblock; do
    run 0 "$sgm" verify "$golden/$file.safetensors"
    has out 'passed'
    run 1 "$sgm" verify "$golden/$file.safetensors" --tolerance 1e-12
    has out 'FAILED'
  done
  run 1 "$sgm" verify "$golden/ddpm_vp.safetensors" --gradient-tolerance 1e-12
  run 0 "$sgm" info --tensors "$golden/ddpm_vp.safetensors"
  has out 'f32 ['
}

# A checkpoint of colour images: run/.
make_colour_run() {
  make_config
  sed -i -e 's/num_channels = 1/num_channels = 3/' tiny.toml
  run 0 "$sgm" train tiny.toml --workdir run --steps 1
}

part_conditional() {
  make_colour_run
  local out
  for out in grid.png samples.npz folder; do
    run 0 "$sgm" inpaint run --data images --n 2 --samples 3 --known left --seed 3 --out "a_$out"
    run 0 "$sgm" inpaint run --data images --n 2 --samples 3 --known left --seed 3 --out "b_$out"
    run 0 "$sgm" inpaint run --data images --n 2 --samples 3 --known left --seed 4 --out "c_$out"
    diff -r "a_$out" "b_$out" >/dev/null || fail "the same seed gives two versions of $out"
    diff -r "a_$out" "c_$out" >/dev/null && fail "two seeds give the same $out"
  done
  [ "$(ls a_folder)" = "$(printf '%06d.png\n' 0 1 2 3 4 5)" ] || fail "the folder holds $(ls a_folder)"
  # Two rows of five images of 8 pixels, each with a border of two.
  mkdir grids && cp a_grid.png grids
  run 0 "$sgm" data grids --out x.png
  has out '1 images [22, 52, 3]'
  run 0 "$sgm" colorize run --data images --n 2 --samples 1 --out coloured.png --predictor reverse_diffusion \
    --corrector langevin --steps 30 --reference-compat
  has err 'NFE 60'
  # A mask of the right size; others.
  { printf 'P5\n8 8\n255\n'; printf '\377%.0s' $(seq 40); printf '\0%.0s' $(seq 24); } >mask.pgm
  { printf 'P5\n8 8\n255\n'; printf '\377%.0s' $(seq 64); } >all.pgm
  { printf 'P5\n8 8\n255\n'; printf '\0%.0s' $(seq 64); } >nothing.pgm
  { printf 'P5\n4 4\n255\n'; printf '\377%.0s' $(seq 16); } >small.pgm
  run 0 "$sgm" inpaint run --data images --n 1 --mask mask.pgm --out masked.png
  bad '4x4' "$sgm" inpaint run --data images --mask small.pgm --out y.png
  bad 'everything' "$sgm" inpaint run --data images --mask all.pgm --out y.png
  bad 'nothing' "$sgm" inpaint run --data images --mask nothing.pgm --out y.png
  bad 'gone.png' "$sgm" inpaint run --data images --mask gone.png --out y.png
  bad '--known' "$sgm" inpaint run --data images --out y.png
  bad '--known' "$sgm" inpaint run --data images --mask mask.pgm --known left --out y.png
  bad 'middle' "$sgm" inpaint run --data images --known middle --out y.png
  bad 'ode' "$sgm" inpaint run --data images --known left --sampler ode --out y.png
  bad 'vesde' "$sgm" inpaint run --data images --known left --sampler annealed_langevin --out y.png
  bad 'images' "$sgm" inpaint run --data images --known left --first 7 --n 2 --out y.png
  make_config
  run 0 "$sgm" train tiny.toml --workdir grey --steps 1
  bad 'grey images' "$sgm" colorize grey --data images --out y.png
  printf 'P6\n8 8\n255\n%s' "$(printf 'abc%.0s' $(seq 64))" >colour.ppm
  bad '3 channels' "$sgm" inpaint grey --data images --mask colour.ppm --out y.png
  absent y.png
  # The original NCSN's sampler.
  sed -i -e 's/vpsde/vesde/' tiny.toml
  run 0 "$sgm" train tiny.toml --workdir ve --steps 1
  run 0 "$sgm" sample ve --sampler annealed_langevin --start uniform --step-lr 1e-5 --n-steps-each 2 --n 1 --out ncsn.png
  has err 'NFE 11'
  no_temporaries
}

part_data() {
  run 0 "$sgm" data "$repository/data/mnist10k-images-idx3-ubyte.gz" --out digits.png
  has out '10000 images [28, 28, 1], 10 classes'
  run 0 "$sgm" data "$repository/data/twemoji32.zip" --out emoji.png --n 7
  has out '3786 images [32, 32, 3]'
  run 0 "$sgm" data "$repository/data/mnist10k-images-idx3-ubyte.gz" --image-size 8 --suggest --out x.png
  has out 'method = "annealed_langevin"'
  sed -n '/^\[sde\]/,$p' out >suggested.toml
  run 0 "$sgm" train suggested.toml --dry-run
  has out "$(grep sigma_max suggested.toml)"
  for file in digits.png emoji.png; do
    [ "$(head -c 4 $file | tail -c 3)" = PNG ] || fail "$file is no PNG file"
  done
  mkdir set
  cp digits.png emoji.png set
  run 0 "$sgm" data set --image-size 16 --channels 1 --out small.png
  has out '2 images [16, 16, 1]'
  no_temporaries
}

part_about() {
  run 0 "$sgm" --version
  grep -qE '^sgm [0-9]+\.[0-9]+\.[0-9]+$' out || fail "--version printed $(cat out)"
  run 0 "$sgm" --help
  for command in train sample inpaint colorize verify data info doctor profile; do
    has out "$command"
    run 0 "$sgm" "$command" --help
    [ ! -s err ] || fail "$command --help wrote to stderr"
    run 0 "$sgm" --help
  done
  run 0 "$sgm" doctor --threads 1
  has out 'cpu: 1 threads'
  has out 'bf16: '
}

# Where there is no GPU, everything says so and why.
part_gpu() {
  make_config
  local why versions='(driver for CUDA [0-9]+\.[0-9]+|no NVIDIA driver), runtime [0-9]+\.[0-9]+'
  run 0 "$sgm" doctor
  why=$(sed -n 's/^cuda: \(.*\); every command runs on the CPU$/\1/p' out)
  [ -n "$why" ] || fail "doctor does not say why no GPU is used: $(cat out)"
  case $why in
    *'no CUDA backend'*) ;;
    *) grep -qE "$versions" <<<"$why" || fail "doctor names no versions of driver and runtime: $why" ;;
  esac
  bad "$why" "$sgm" train tiny.toml --workdir run --device cuda
  has err '--device cpu'
  absent run
  bad "$why" "$sgm" profile tiny.toml --device cuda
  run 0 "$sgm" train tiny.toml --workdir run --steps 1
  [ "$(grep -c '^device: cpu: .*; no GPU: ' err)" -eq 1 ] || fail "auto does not say that it uses the CPU: $(cat err)"
  has err "; no GPU: $why"
  run 0 "$sgm" train tiny.toml --workdir chosen --steps 1 --device cpu
  ! grep -q 'no GPU' err || fail "--device cpu explains itself: $(cat err)"

  # The check of a GPU ends before it begins.
  mkdir nothing broken
  printf '#!/bin/sh\necho "No devices were found"\nexit 6\n' >broken/nvidia-smi
  chmod +x broken/nvidia-smi
  for tools in nothing "broken:$PATH"; do
    PATH=$tools run 2 /bin/bash "$repository/scripts/gpu_check.sh" results
    [ "$(cat out err | wc -l)" -eq 1 ] || fail "gpu_check.sh wrote more than a line: $(cat out err)"
    has err 'gpu_check: there is no GPU here: '
    absent results
  done
  has err 'No devices were found'
}

# On a GPU: captured or not, interrupted or not, a run has the same bits.
part_gpu_run() {
  if [ "$visible" = all ]; then unset CUDA_VISIBLE_DEVICES; else export CUDA_VISIBLE_DEVICES=$visible; fi
  run 0 "$sgm" doctor
  if ! grep '^cuda: ' out | grep -qv 'every command runs on the CPU'; then
    echo "skipped: $(grep '^cuda: ' out)"
    exit 77
  fi
  make_config
  local run
  run 0 "$sgm" train tiny.toml --workdir parts --device cuda
  has err 'device: cuda: '
  run 0 "$sgm" train tiny.toml --workdir parts --device cuda --resume --steps 12
  run 0 "$sgm" train tiny.toml --workdir whole --device cuda --steps 12
  ! grep -q 'call by call' err || fail "steps were not captured: $(cat err)"
  run 0 "$sgm" train tiny.toml --workdir calls --device cuda --steps 12 --no-graph
  for run in parts calls; do
    same whole/checkpoints/checkpoint_00000012.safetensors $run/checkpoints/checkpoint_00000012.safetensors
    same whole/samples/step_00000012.png $run/samples/step_00000012.png
  done
  run 0 "$sgm" train tiny.toml --workdir cpu --device cpu --steps 12
  for run in whole cpu; do sed 's/.*"loss":\([^,}]*\).*/\1/' $run/metrics.jsonl >$run.losses; done
  paste whole.losses cpu.losses | awk '!(($1 - $2) ^ 2 <= 1e-6 * $2 ^ 2) { exit 1 } END { if (NR != 12) exit 1 }' ||
    fail "losses on the GPU and on the CPU differ: $(paste whole.losses cpu.losses)"
  run 0 "$sgm" sample whole --out a.png --n 4 --device cuda
  run 0 "$sgm" sample whole --out b.png --n 4 --device cuda --no-graph
  same a.png b.png
  bad 'memory' "$sgm" train tiny.toml --workdir small --device cuda --max-memory 64kB
  no_temporaries
}

# What a step launches on a GPU is counted without one.
part_eval() {
  make_config
  run 0 "$sgm" train tiny.toml --workdir run
  run 0 "$sgm" eval run --data images --n 6 --levels 4 --out a.json --plot a.png
  cp out table
  [ "$(grep -c '^ *[01]\.' table)" -eq 4 ] || fail "not four levels: $(cat table)"
  has table 'loss: '
  has a.json '"denoising_error"'
  [ "$(head -c 4 a.png | tail -c 3)" = PNG ] || fail "a.png is no PNG"
  run 0 "$sgm" eval run --data images --n 6 --levels 4 --batch 4
  same out table
  run 0 "$sgm" eval run --data images --n 6 --levels 4 --seed 1
  cmp -s out table && fail "two seeds give the same losses"
  bad 'has 8 images' "$sgm" eval run --data images --n 9 --out x.json
  bad 'has 8 images' "$sgm" eval run --data images --n 6 --first 3 --out x.json
  bad '--levels' "$sgm" eval run --data images --levels 0
  bad 'gone' "$sgm" eval run --data gone
  bad 'gone' "$sgm" eval gone --data images
  bad 'gone/x.json' "$sgm" eval run --data images --out gone/x.json
  bad 'gone/x.png' "$sgm" eval run --data images --plot gone/x.png
  absent x.json
  no_temporaries
}

part_lab() {
  cat >two.toml <<'TOML'
kind = "gaussian_mixture"
weights = [0.8, 0.2]
means = [[2.0, 2.0], [-2.0, -2.0]]
stds = [0.5, 0.5]
range = [-4.0, 4.0]
TOML
  local figure
  run 0 "$sgm" lab two.toml --sde vpsde --n 200 --steps 40 --seed 3 --out a \
    --figure density --figure score --figure forward --figure samplers
  cp out table
  for figure in density score forward samplers; do
    [ "$(head -c 4 "a/$figure.png" | tail -c 3)" = PNG ] || fail "a/$figure.png is no PNG"
    grep -q "^$figure" table || fail "the table lacks $figure"
  done
  [ -s a/density.npz ] || fail 'no samples'
  has a/results.json '"distance of the samples"'
  run 0 "$sgm" lab two.toml --sde vpsde --n 200 --steps 40 --seed 3 --out b --figure density
  same a/density.png b/density.png
  same a/density.npz b/density.npz

  # A line, and a network in the place of the score.
  printf 'kind = "gaussian_mixture"\nweights = [0.5, 0.5]\nmeans = [[-1.0], [1.0]]\nstds = [0.3, 0.3]\n' >line.toml
  run 0 "$sgm" lab line.toml --sde subvpsde --score fit --loss ssm_vr --n 100 --steps 30 --rtol 1e-2 --atol 1e-2 \
    --set training.n_iters=20 --set training.batch_size=32 --set model.hidden=[8] --set model.nf=4 --out c \
    --figure score --figure reverse --figure likelihood
  has out 'relative error of the score'
  [ "$(head -c 6 c/reverse.gif)" = GIF89a ] || fail 'c/reverse.gif is no GIF'

  sed 's/0.2\]/0.3]/' two.toml >sum.toml
  bad 'weights' "$sgm" lab sum.toml --out x
  sed 's/weights/wieghts/' two.toml >key.toml
  bad 'nearest known key is weights' "$sgm" lab key.toml --out x
  bad 'gone.toml' "$sgm" lab gone.toml --out x
  bad 'frob' "$sgm" lab two.toml --out x --figure frob
  bad 'frob' "$sgm" lab two.toml --out x --sde frob
  bad 'frob' "$sgm" lab two.toml --out x --score frob
  bad 'frob' "$sgm" lab two.toml --out x --sampler frob
  bad 'frob' "$sgm" lab two.toml --out x --score fit --loss frob
  bad '--score fit' "$sgm" lab two.toml --out x --loss ssm
  bad 'sde.frob' "$sgm" lab two.toml --out x --set sde.frob=1
  bad '--n' "$sgm" lab two.toml --out x --n 1
  bad 'gone/x' "$sgm" lab two.toml --out gone/x
  bad 'two.toml' "$sgm" lab two.toml --out two.toml
  absent x
  absent gone
  no_temporaries
}

part_prove() {
  run 0 "$sgm" prove --only strong_orders --only solvers --out proof.json --plot orders.png
  has out '| solver order: VP, rk45'
  has err '0 failed'
  has proof.json '"passes": true'
  [ "$(head -c 4 orders.png | tail -c 3)" = PNG ] || fail "orders.png is no PNG file"
  bad "'solver' is unknown" "$sgm" prove --only solver
  bad 'measures an order' "$sgm" prove --only samplers --plot x.png
  bad 'no_such_folder' "$sgm" prove --out no_such_folder/proof.json
  no_temporaries
}

part_profile() {
  make_config
  run 0 "$sgm" doctor
  if grep -q 'no CUDA backend' out; then
    echo "skipped: $(grep '^cuda: ' out)"
    exit 77
  fi
  local mode config train=0 launches
  for config in tiny.toml "$repository/configs/vp_cifar10_ddpmpp_continuous.toml"; do
    for mode in forward train; do
      run 0 "$sgm" profile "$config" --mode $mode --count --set training.batch_size=2
      launches=$(sed -n 's/^launches per step: \([0-9][0-9]*\)$/\1/p' out)
      awk -v total="${launches:-0}" '/^kernel /{ next } /^[^:]*$/ { sum += $(NF - 1); if (!($NF >= 0)) bad = 1 }
        END { exit !(total > 20 && sum == total && !bad) }' out || fail "$config, $mode: counts do not add up: $(cat out)"
      grep -qE '^memory-bound traffic per step: [0-9.]+ MB' out || fail "no bytes: $(cat out)"
      [ "${launches:-0}" -gt $train ] || fail "$config, $mode: $launches launches, not more than $train"
      train=$launches
    done
    train=0
  done
}

# A disk that is full, or a shell that limits the size of files.
part_full_disk() {
  make_config
  if [ -e /dev/full ]; then
    for arguments in --version --help doctor 'train tiny.toml --dry-run'; do
      # shellcheck disable=SC2086
      "$sgm" $arguments >/dev/full 2>err
      code=$?
      [ $code -eq 2 ] || fail "sgm $arguments >/dev/full: exit code $code, expected 2"
      has err 'sgm: error: standard output'
    done
  fi
  run 0 "$sgm" train tiny.toml --workdir run --steps 2
  cp -r run before
  limited() { (ulimit -f 8 && exec "$@"); } # 8 KiB
  bad 'checkpoint_00000003' limited "$sgm" train tiny.toml --workdir run --resume --steps 3
  diff -r run/checkpoints before/checkpoints >/dev/null || fail "the checkpoint of before has changed"
  bad 'big.npz' limited "$sgm" sample run --out big.npz --n 200 --steps 2
  absent big.npz
  bad 'big.png' limited "$sgm" data "$repository/data/twemoji32.zip" --out big.png
  absent big.png
  run 0 "$sgm" train tiny.toml --workdir run --resume --steps 3
  no_temporaries
}

part_read_only() {
  make_config
  local as=()
  if [ "$(id -u)" -eq 0 ]; then # nothing is read-only for root: become somebody else
    as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    chmod 755 "$work"
    if ! "${as[@]}" "$sgm" --version >out 2>err; then
      echo "skipped: as root every folder can be written, and setpriv cannot start $sgm as another user"
      exit 77
    fi
  fi
  run 0 "$sgm" train tiny.toml --workdir run --steps 1
  mkdir locked
  chmod 755 run run/checkpoints
  chmod 555 locked
  as_other() { "${as[@]}" "$@"; }
  bad 'locked' as_other "$sgm" train tiny.toml --workdir locked --steps 1
  bad 'locked' as_other "$sgm" train tiny.toml --workdir locked/run --steps 1
  bad 'locked' as_other "$sgm" sample run --out locked/x.png --n 1000000
  ! grep -q '^device' err || fail "the read-only folder was not refused before the work"
  bad 'locked' as_other "$sgm" data images --out locked/x.png
  [ -z "$(ls -A locked)" ] || fail "left behind: $(ls -A locked)"
  chmod 755 locked
}

declare -F "part_$part" >/dev/null || { echo "test_cli.sh: no part '$part'" >&2 && exit 2; }
"part_$part"
[ $failures -eq 0 ] && echo "$part: passed"
exit $((failures > 0))

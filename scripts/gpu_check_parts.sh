# shellcheck shell=bash disable=SC2154 # variables of gpu_check.sh
# The parts of gpu_check.sh, which sources this. They read $root, $build, $commit, $work and $side_by_side; each leaves
# files in $work, of which write_results and write_log make results.json and log.txt.

export LC_ALL=C OMP_WAIT_POLICY=passive
python=${PYTHON:-python3}
libraries=${LD_LIBRARY_PATH:-}
[ ! -d "$build/lib" ] || libraries=$build/lib${libraries:+:$libraries}
mkdir -p "$work/log" "$work/parts" "$work/rows" "$work/tests"

# native COMMAND...: with the libraries of this program, which are not Python's.
native() { LD_LIBRARY_PATH=$libraries "$@"; }
sgm() { native "$build/sgm" "$@"; }

# Where a library is not where the build expects it: the toolkit, and the wheels that PyTorch brings.
find_libraries() {
  local library folder wheels
  wheels=$("$python" -c 'import glob, site
print(*(f for s in site.getsitepackages() for f in glob.glob(s + "/nvidia/*/lib")))' 2>/dev/null)
  for library in $(native ldd "$build"/sgm "$build"/tests/test_* 2>/dev/null |
    awk '/not found/ { print $1 }' | sort -u); do
    # shellcheck disable=SC2086
    for folder in /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib $wheels; do
      [ ! -e "$folder/$library" ] || { libraries=$libraries:$folder && continue 2; }
    done
    missing "$library is not installed here; install it, or name its folder in LD_LIBRARY_PATH"
  done
}

# Tests name their data by the path at which they were built.
link_sources() {
  local path
  path=$(cat "$build/source" 2>/dev/null) || return 0
  [ ! -e "$path" ] || return 0
  if mkdir -p "$(dirname "$path")" && ln -s "$root" "$path"; then linked=$path; fi
}

start_clock() { deadline=$((SECONDS + $1)); }
left() { echo $((deadline - SECONDS)); }
least() { [ "$1" -lt "$2" ] && echo "$1" || echo "$2"; }

# part NAME LIMIT COMMAND...: runs it for LIMIT seconds at most, or as long as there is time. What it prints goes to
# log.txt, how it ended to results.json. Reads $input. Returns its exit code.
part() {
  local name=$1 limit code=124 start=$SECONDS
  limit=$(least "$2" "$(left)")
  shift 2
  if [ "$limit" -lt 3 ]; then
    echo "not run: no time was left" >"$work/log/$name"
  else
    timeout -k 10 "$limit" "$@" >"$work/log/$name" 2>&1 <"${input:-/dev/null}"
    code=$?
  fi
  { printf '{"exit_code": %d, "seconds": %d' $code $((SECONDS - start)) &&
    if [ $code -ne 0 ]; then printf ', "last_line": %s' "$(tail -n 1 "$work/log/$name" | json_text)"; fi &&
    printf '}'; } >"$work/parts/$name"
  return $code
}

# Standard input as a JSON string.
json_text() {
  tr -d '\000-\010\013-\037\177-\377' | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/\t/ /g' |
    awk 'BEGIN { printf "\"" } NR > 1 { printf "\\n" } { printf "%s", $0 } END { printf "\"" }'
}

# Two minutes of training end as a user ends it, by Ctrl-C.
check_training() {
  export XDG_CACHE_HOME=$work/cache-of-tests
  part training 160 timeout --preserve-status -s INT "${GPU_CHECK_TRAINING:-120}" \
    env LD_LIBRARY_PATH="$libraries" "$build/sgm" train configs/emoji32.toml --device cuda --workdir "$work/run" \
    --set training.precision=bf16 \
    --set training.n_iters=1000000 --set training.snapshot_sampling=false --set optim.warmup=500 \
    --set model.ema_rate=0.999
  part sampling 60 env LD_LIBRARY_PATH="$libraries" "$build/sgm" sample "$work/run" --device cuda --n 64 --seed 1 \
    --out "$work/samples.png"
}

# The lines of a GoogleTest log as: test, passed, failed, skipped, unfinished or not_run. A test that crashes
# or takes too long is unfinished; those that did not begin were not run.
test_results() {
  awk '
    function name(mark) { s = substr($0, index($0, mark) + length(mark)); sub(/[, ].*/, "", s); return s }
    function ends(result, mark) { print name(mark) "\t" result; current = ""; ++seen }
    /^\[==========\] Running / { total = $3 }
    /\[ RUN      \] / { current = name("[ RUN      ] ") }
    /\[       OK \] .* ms\)$/ { ends("passed", "[       OK ] ") }
    /\[  SKIPPED \] .* ms\)$/ { ends("skipped", "[  SKIPPED ] ") }
    /\[  FAILED  \] .* ms\)$/ { ends("failed", "[  FAILED  ] ") }
    END {
      if (current != "") { print current "\tunfinished"; ++seen }
      if (total == "" || total > 0 && seen == 0) print "(the program)\tunfinished"
      for (; seen > 0 && seen < total; ++seen) print "(test " seen + 1 ")\tnot_run"
    }' "$1"
}

# Runs one program of tests; where a test ends it, the others run without that one.
run_program() {
  local program=$1 name=${1##*/} results log limit skip="" try
  results=$work/tests/$name.results
  for try in 1 2 3 4 5; do
    log=$work/tests/$name.$try.log
    limit=$(least 170 "$(left)")
    [ "$limit" -ge 3 ] || break
    native timeout -k 10 "$limit" "$program" --gtest_color=no ${skip:+"--gtest_filter=-$skip"} >"$log" 2>&1
    [ $? -ne 124 ] || try=5
    test_results "$log" >"$log.results"
    [ ! -f "$results" ] || sed -i '/\tnot_run$/d' "$results"
    cat "$log.results" >>"$results"
    if [ $try -eq 5 ] || ! grep -q 'not_run$' "$log.results"; then break; fi
    skip=$(cut -f 1 "$results" | grep -v '^(' | paste -sd :)
  done
  [ -f "$results" ] || printf '(the program)\tnot_run\n' >"$results"
}

# Tests of the GPU are those with "cuda" in their parameter, and all of the programs that test nothing else.
all_results() {
  local file name
  for file in "$work"/tests/*.results; do
    case $file in *.log.results) continue ;; esac
    name=${file##*/}
    awk -v program="${name%.results}" '{
      gpu = $1 ~ /\/[^\/]*cuda[^\/]*$/ || program == "test_cuda" || $1 == "Cli.gpu_run"
      sub(/\t/, "\t" (gpu ? "gpu" : "cpu") "\t"); print program "\t" $0 }' "$file"
  done
}

# An error of a GPU stays with its process and fails every test after it: those that failed run once more, alone.
run_alone() {
  local program test limit log
  all_results | awk -F '\t' '$3 == "gpu" && ($4 == "failed" || $4 == "unfinished") && $2 !~ /^[(C]/' |
    while IFS=$'\t' read -r program test _; do
      limit=$(least 20 $((until - SECONDS)))
      [ "$limit" -ge 3 ] || break
      log=$work/tests/alone.${test//\//.}.log
      native timeout -k 5 "$limit" "$build/tests/$program" --gtest_color=no "--gtest_filter=$test" \
        >"$log" 2>&1 </dev/null
      printf '%s\t%s\n' "$program $test" "$(test_results "$log" | head -n 1 | cut -f 2)" >>"$work/tests/alone"
    done
}

check_tests() {
  export XDG_CACHE_HOME=$work/cache-of-tests
  local slots=$(($(nproc) / 4)) cli program until
  [ "$side_by_side" -eq 1 ] || slots=1
  [ $slots -ge 1 ] || slots=1
  [ $slots -le 4 ] || slots=4
  # Those of the GPU first: they are what the machine is for.
  for program in $(printf '%s\n' "$build"/tests/test_* |
    awk '{ print (/test_(cu|ops|samp|train)/ ? 0 : 1), $0 }' | sort | cut -d ' ' -f 2); do
    [ -f "$program" ] && [ -x "$program" ] || continue
    while [ "$(jobs -rp | wc -l)" -ge $slots ]; do wait -n; done
    run_program "$program" &
  done
  wait
  for cli in gpu gpu_run; do
    native timeout -k 10 60 tests/test_cli.sh "$build/sgm" $cli >"$work/tests/cli_$cli.1.log" 2>&1
    case $? in
      0) printf 'Cli.%s\tpassed\n' $cli ;;
      77) printf 'Cli.%s\tskipped\n' $cli ;;
      *) printf 'Cli.%s\tfailed\n' $cli ;;
    esac
  done >"$work/tests/test_cli.results"
  until=$((SECONDS + $(least 60 "$(left)")))
  run_alone
}

# What is timed: configuration, mode, batch size, precision. The first matter most.
rows() {
  local config=ve_cifar10_ncsnpp_continuous mode batch precision
  for batch in 128 8; do
    for precision in bf16 tf32 f32; do
      [ "$batch$precision" != 8tf32 ] || continue
      for mode in train forward; do echo $config $mode $batch $precision; done
    done
  done
  for precision in bf16 f32; do
    for mode in train forward; do echo vp_cifar10_ddpmpp_continuous $mode 128 $precision; done
  done
  echo $config sample 128 bf16
  for mode in train forward; do echo ve_ffhq_256_ncsnpp_continuous $mode 16 bf16; done
}

# Steps in a timing: long enough that waiting for the device at its end does not show.
group_of() { [ "$1" -ge 64 ] && echo 5 || echo 20; }

# time_row CONFIG MODE BATCH PRECISION [OPTION]: one run of bench_steps.
time_row() {
  local name=sgm-$1-$2-b$3-$4${5:-}
  part "$name" 60 env LD_LIBRARY_PATH="$libraries" "$build/bench/bench_steps" "configs/$1.toml" --mode "$2" \
    --batch "$3" --precision "$4" ${5:+"$5"} --device cuda --warmup 5 --steps 20 --seconds 3 \
    --group "$(group_of "$3")" --json "$work/rows/$name.json"
  [ -s "$work/rows/$name.json" ] ||
    printf '{"error": %s}\n' "$(tail -n 1 "$work/log/$name" | json_text)" >"$work/rows/$name.json"
}

time_sgm() {
  export XDG_CACHE_HOME=$work/cache
  local row
  rows >"$work/sgm.rows"
  while read -r row; do
    # shellcheck disable=SC2086
    time_row $row
  done <"$work/sgm.rows"
  # What the device runs at when it is warm.
  nvidia-smi --query-gpu=clocks.sm,clocks.mem,temperature.gpu,power.draw --format=csv,noheader >"$work/clocks" 2>&1
}

time_without_graphs() {
  local row
  while read -r row; do
    # shellcheck disable=SC2086
    case $row in ve_*) time_row $row --no-graph ;; esac
  done <"$work/sgm.rows"
}

# Rows of bench_rows.py. What is tf32 here is an option of f32 there.
pytorch_rows() {
  local variant config mode batch precision options
  for variant in "$@"; do
    rows | while read -r config mode batch precision; do
      # Layouts hardly differ where the launches take the time.
      [ "$variant" != channels_last ] || [ "$batch" -ge 64 ] || continue
      case $precision in
        tf32) options="--precision f32" ;;
        *) options="--precision $precision --no-tf32" ;;
      esac
      echo "torch-$config-$mode-b$batch-$precision-$variant --config configs/$config.toml --mode $mode --batch $batch" \
        "$options --variant $variant --compile-mode reduce-overhead --device cuda --steps 20" \
        "--group $(group_of "$batch")"
    done
  done
}

# PyTorch's networks against the reference, and a first compilation, whose result is kept for the timing.
check_pytorch() {
  if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>"$work/log/pytorch"; then
    echo "no PyTorch with CUDA for $python" >>"$work/log/pytorch"
    return
  fi
  "$python" -c 'import torch; print(torch.__version__)' >"$work/pytorch" 2>/dev/null
  part pytorch-reference 60 "$python" bench/torch/check_golden.py tests/golden --device cuda
  mkdir -p "$work/warm"
  compiler_caches
  pytorch_rows compile | head -n 2 >"$work/warm.rows"
  input=$work/warm.rows part pytorch-compilation 170 "$python" bench/torch/bench_rows.py "$work/warm" --steps 1 \
    --warmup 2
}

compiler_caches() { export TORCHINDUCTOR_CACHE_DIR=$work/inductor TRITON_CACHE_DIR=$work/triton; }

time_pytorch() {
  [ -f "$work/pytorch" ] || return 0
  compiler_caches
  pytorch_rows channels_last eager | sort -s -k 7,7rn >"$work/eager.rows"
  input=$work/warm.rows part pytorch-compiled 100 "$python" bench/torch/bench_rows.py "$work/rows" --seconds 3
  input=$work/eager.rows part pytorch-eager 110 "$python" bench/torch/bench_rows.py "$work/rows" --seconds 2
}

# Compilations take a minute each: as many as there is time for.
time_more_pytorch() {
  [ -f "$work/pytorch" ] || return 0
  pytorch_rows compile | tail -n +3 >"$work/more.rows"
  input=$work/more.rows part pytorch-more 240 "$python" bench/torch/bench_rows.py "$work/rows" --seconds 2
}

profile_options=(configs/ve_cifar10_ncsnpp_continuous.toml --set training.batch_size=128 --set training.precision=bf16)

time_profile() {
  local mode
  for mode in train forward; do
    part "profile-$mode" 40 env LD_LIBRARY_PATH="$libraries" "$build/sgm" profile "${profile_options[@]}" --mode $mode \
      --device cuda
    part "counts-$mode" 40 env LD_LIBRARY_PATH="$libraries" "$build/sgm" profile "${profile_options[@]}" --mode $mode \
      --count
  done
}

# The time of every kernel of a training step, where Nsight Compute may read it. The clocks are left as they are.
time_kernels() {
  command -v ncu >/dev/null || return 0
  part kernels 100 env LD_LIBRARY_PATH="$libraries" ncu --clock-control none --profile-from-start off --csv \
    --print-units base --metrics gpu__time_duration.sum \
    "$build/sgm" profile "${profile_options[@]}" --device cuda --steps 1 --no-graph || return 0
  awk -F '","' '/gpu__time_duration/ {
    gsub(/[",]/, "", $NF)
    if (!($5 in ns)) names[++n] = $5
    ns[$5] += $NF; ++launches[$5]
  } END { for (i = 1; i <= n; ++i) printf "%.3f\t%d\t%s\n", ns[names[i]] / 1e6, launches[names[i]], names[i] }' \
    "$work/log/kernels" | sort -rn | head -n 40 >"$work/kernels.tsv"
  # Of its thousands of lines the log needs those that are no figures.
  sed -i '/gpu__time_duration/d' "$work/log/kernels"
}

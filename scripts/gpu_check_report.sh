# shellcheck shell=bash disable=SC2154 # variables of gpu_check.sh
# What gpu_check.sh, which sources this, writes at its end.

# count_of DEVICE RESULT: of the tests of the GPU or of all.
count_of() {
  awk -F '\t' -v gpu="$1" -v result="$2" '(gpu == "all" || $3 == gpu) && $4 == result' "$work/results.tsv" | wc -l
}

# number FILE KEY: the number under a key of a JSON file with one key a line; nothing where there is none.
number() { [ ! -f "$1" ] || sed -n "s/^ *\"$2\": \\(-\\{0,1\\}[0-9][0-9.e+-]*\\),\\{0,1\\}\$/\\1/p" "$1" | head -n 1; }

# Lines from standard input as the members of a JSON object or list.
joined() { awk 'NR > 1 { printf ",\n" } { printf "  %s", $0 } END { print "" }'; }

environment() {
  local fields
  fields=$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader | head -n 1)
  {
    echo "\"gpu\": $(json_text <<<"$fields")"
    echo "\"after_timings\": $(head -n 1 "$work/clocks" 2>/dev/null | json_text)"
    echo "\"sgm\": $(json_text <<<"$doctor")"
    echo "\"processor\": $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1 | json_text)"
    echo "\"cores\": $(nproc)"
    echo "\"system\": $(uname -sr | json_text)"
    echo "\"pytorch\": $(cat "$work/pytorch" 2>/dev/null | json_text)"
    echo "\"seconds\": $SECONDS"
  } | joined
}

tests_report() {
  local device result
  for device in all gpu; do
    printf '"%s": {' $device
    for result in passed failed unfinished not_run skipped; do
      printf '"%s": %d%s' $result "$(count_of $device $result)" "$([ $result = skipped ] || echo ', ')"
    done
    echo '}'
  done
  awk -F '\t' '
    FILENAME ~ /alone$/ { alone[$1] = $2; next }
    $4 != "passed" && $4 != "skipped" {
      list = list (list == "" ? "" : ", ") "{\"program\": \"" $1 "\", \"test\": \"" $2 "\", \"result\": \"" $4 "\"" \
        (($1 " " $2) in alone ? ", \"alone\": \"" alone[$1 " " $2] "\"" : "") "}"
    }
    END { print "\"not_passed\": [" list "]" }' "$work/tests/alone" "$work/results.tsv"
}

training_report() {
  local metrics=$work/run/metrics.jsonl
  [ -s "$metrics" ] || return 0
  echo "\"first\": $(head -n 1 "$metrics")"
  echo "\"last\": $(tail -n 1 "$metrics")"
  echo "\"sampling\": $(grep 'images in' "$work/log/sampling" | tail -n 1 | json_text)"
}

timings_report() {
  local file name
  for file in "$work"/rows/*.json; do
    name=${file##*/}
    [ ! -f "$file" ] || echo "\"${name%.json}\": $(tr -s '\n ' ' ' <"$file")"
  done
}

# Images per second of this program over those of PyTorch's fastest variant.
ratios_report() {
  local row ours theirs variant
  rows | while read -r row; do
    row=$(awk '{ print $1 "-" $2 "-b" $3 "-" $4 }' <<<"$row")
    ours=$(number "$work/rows/sgm-$row.json" img_per_s)
    read -r theirs variant < <(for variant in eager channels_last compile; do
      echo "$(number "$work/rows/torch-$row-$variant.json" images_per_second) $variant"
    done | grep '^[0-9]' | sort -rg)
    [ -n "$ours" ] && [ -n "$theirs" ] || continue
    printf '"%s": {"sgm": %.2f, "pytorch": %.2f, "variant": "%s", "ratio": %s}\n' "$row" "$ours" "$theirs" "$variant" \
      "$(awk -v a="$ours" -v b="$theirs" 'BEGIN { printf "%.3f", a / b }')"
  done
}

kernels_report() {
  [ ! -f "$work/kernels.tsv" ] || while IFS=$'\t' read -r ms launches kernel; do
    echo "{\"ms\": $ms, \"launches\": $launches, \"kernel\": $(json_text <<<"$kernel")}"
  done <"$work/kernels.tsv"
}

profile_report() {
  local name
  for name in profile-train profile-forward counts-train counts-forward; do
    [ ! -f "$work/log/$name" ] || echo "\"$name\": $(tail -c 6000 "$work/log/$name" | json_text)"
  done
}

parts_report() {
  local file
  for file in "$work"/parts/*; do [ ! -f "$file" ] || echo "\"${file##*/}\": $(cat "$file")"; done
}

write_results() {
  all_results >"$work/results.tsv"
  touch "$work/tests/alone"
  printf '{\n"date": "%s",\n"commit": "%s",\n' "$(date -u +%Y-%m-%d)" "$commit"
  printf '"environment": {\n%s\n},\n' "$(environment)"
  printf '"tests": {\n%s\n},\n' "$(tests_report | joined)"
  printf '"training": {\n%s\n},\n' "$(training_report | joined)"
  printf '"over_pytorch": {\n%s\n},\n' "$(ratios_report | joined)"
  printf '"timings": {\n%s\n},\n' "$(timings_report | joined)"
  printf '"profile": {\n%s\n},\n' "$(profile_report | joined)"
  printf '"kernels": [\n%s\n],\n' "$(kernels_report | joined)"
  printf '"parts": {\n%s\n}\n}\n' "$(parts_report | joined)"
}

# The end of what every part printed; all of what tests that failed printed alone, within limits.
write_log() {
  local file
  echo "$doctor"
  for file in $(ls -1tr "$work"/log/* "$work"/tests/*.log 2>/dev/null); do
    printf '\n=== %s\n' "${file##*/}"
    case $file in
      */tests/alone.*) tail -c 4000 "$file" ;;
      */tests/*) grep -av '^\[ RUN\|^\[       OK\|^\[-----' "$file" | tail -c 6000 ;;
      *) tail -c 6000 "$file" ;;
    esac
  done | head -c 1500000
}

summary() {
  echo "tests: $(count_of all passed) passed ($(count_of gpu passed) on the GPU), $(count_of all failed) failed," \
    "$(count_of all unfinished) unfinished, $(count_of all not_run) not run, $(count_of all skipped) skipped"
  awk -F '\t' '$4 != "passed" && $4 != "skipped" { print "  " $4 ": " $1 " " $2 }' "$work/results.tsv" | head -n 40
  ratios_report | sed 's/^/  /'
  echo "in $SECONDS s; all figures: $out/results.json"
}

all_tests_passed() {
  [ "$(count_of gpu passed)" -gt 0 ] &&
    ! awk -F '\t' '$4 != "passed" && $4 != "skipped"' "$work/results.tsv" | grep -q .
}

# Where the time of a step goes, on the CPU; and what a step launches on a GPU, counted without one.
make_config
for mode in train forward sample; do
  run 0 "$sgm" profile tiny.toml --mode $mode --device cpu --batch 2 --steps 2 --plans --all \
    --json report.json --trace trace.json --plot roofline.png
  [ "$(head -c 4 roofline.png | tail -c 3)" = PNG ] || fail "$mode: no roofline"
  # Recorded is what the program calls its ops.
  for text in 'ms per step of 2 images' 'ceilings, measured here' 'floor, every op at its ceiling' 'oneDNN'; do
    has out "$text"
  done
  grep -qE '^Conv2d +[0-9]+ +[0-9]+ +[0-9.]+' out || fail "$mode: no convolutions: $(cat out)"
  has report.json "\"mode\": \"$mode\""
  has report.json '"images": 2.0'
  has report.json '"plan"'
  has trace.json '"traceEvents"'
  has trace.json '"name":"Conv2d"'
done
bad 'train,forward,sample' "$sgm" profile tiny.toml --mode backward
bad '--count takes none' "$sgm" profile tiny.toml --count --trace trace.json
bad '--count takes none' "$sgm" profile tiny.toml --count --plot roofline.png
bad '.png' "$sgm" profile tiny.toml --device cpu --plot roofline.jpg
bad 'no_such_folder' "$sgm" profile tiny.toml --mode forward --device cpu --batch 1 --steps 1 --json no_such_folder/x.json
no_temporaries
run 0 "$sgm" doctor
if grep -q 'no CUDA backend' out; then
  echo "skipped: $(grep '^cuda: ' out)"
  exit 77
fi
local mode config train=0 launches
for config in tiny.toml "$repository/configs/vp_cifar10_ddpmpp_continuous.toml"; do
  for mode in forward train; do
    run 0 "$sgm" profile "$config" --mode $mode --count --batch 2 --json counts.json
    has counts.json '"by_layer"'
    launches=$(sed -n 's/^launches per step: \([0-9][0-9]*\)$/\1/p' out)
    awk -v total="${launches:-0}" '/^kernel /{ next } /^[^:]*$/ { sum += $(NF - 1); if (!($NF >= 0)) bad = 1 }
      END { exit !(total > 20 && sum == total && !bad) }' out || fail "$config, $mode: counts do not add up: $(cat out)"
    grep -qE '^memory-bound traffic per step: [0-9.]+ MB' out || fail "no bytes: $(cat out)"
    [ "${launches:-0}" -gt $train ] || fail "$config, $mode: $launches launches, not more than $train"
    train=$launches
  done
  train=0
done

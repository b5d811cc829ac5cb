# What a step launches on a GPU is counted without one.
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

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

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
# A job in two parts: the images are those of the whole.
run 0 "$sgm" sample run --out f_folder --n 2 --seed 3 --batch 2
run 0 "$sgm" sample run --out f_folder --first 2 --n 3 --seed 3 --batch 2
has err ' NFE/s'
diff -r d_folder f_folder >/dev/null || fail "two parts of a job give other images than the whole"
bad '000002.png already' "$sgm" sample run --out f_folder --first 2 --n 3
rm f_folder/000000.png
bad '000001.png already' "$sgm" sample run --out f_folder --n 5
absent f_folder/000000.png
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
bad 'frob' "$sgm" sample run --out x.png --solver frob
bad '--seed' "$sgm" sample run --out x.png --seed -1
bad '--guidance' "$sgm" sample run --out x.png --guidance 2
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

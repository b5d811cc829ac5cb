make_colour_run
local out
for out in grid.png samples.npz folder; do
  run 0 "$sgm" inpaint run --data images --resize --n 2 --samples 3 --known left --seed 3 --out "a_$out"
  run 0 "$sgm" inpaint run --data images --resize --n 2 --samples 3 --known left --seed 3 --out "b_$out"
  run 0 "$sgm" inpaint run --data images --resize --n 2 --samples 3 --known left --seed 4 --out "c_$out"
  diff -r "a_$out" "b_$out" >/dev/null || fail "the same seed gives two versions of $out"
  diff -r "a_$out" "c_$out" >/dev/null && fail "two seeds give the same $out"
done
[ "$(ls a_folder)" = "$(printf '%06d.png\n' 0 1 2 3 4 5)" ] || fail "the folder holds $(ls a_folder)"
# Two rows of five images of 8 pixels, each with a border of two.
mkdir grids && cp a_grid.png grids
run 0 "$sgm" data grids --out x.png
has out '1 images [22, 52, 3]'
run 0 "$sgm" colorize run --data images --resize --n 2 --samples 1 --out coloured.png --predictor reverse_diffusion \
  --corrector langevin --steps 30 --reference-compat
has err 'NFE 60'
# A mask of the right size; others.
{ printf 'P5\n8 8\n255\n'; printf '\377%.0s' $(seq 40); printf '\0%.0s' $(seq 24); } >mask.pgm
{ printf 'P5\n8 8\n255\n'; printf '\377%.0s' $(seq 64); } >all.pgm
{ printf 'P5\n8 8\n255\n'; printf '\0%.0s' $(seq 64); } >nothing.pgm
{ printf 'P5\n4 4\n255\n'; printf '\377%.0s' $(seq 16); } >small.pgm
run 0 "$sgm" inpaint run --data images --resize --n 1 --mask mask.pgm --out masked.png
bad '4x4' "$sgm" inpaint run --data images --resize --mask small.pgm --out y.png
bad 'everything' "$sgm" inpaint run --data images --resize --mask all.pgm --out y.png
bad 'nothing' "$sgm" inpaint run --data images --resize --mask nothing.pgm --out y.png
bad '--resize' "$sgm" inpaint run --data images --known left --out y.png
bad 'gone.png' "$sgm" inpaint run --data images --resize --mask gone.png --out y.png
bad '--known' "$sgm" inpaint run --data images --resize --out y.png
bad '--known' "$sgm" inpaint run --data images --resize --mask mask.pgm --known left --out y.png
bad 'middle' "$sgm" inpaint run --data images --resize --known middle --out y.png
bad 'ode' "$sgm" inpaint run --data images --resize --known left --sampler ode --out y.png
bad 'vesde' "$sgm" inpaint run --data images --resize --known left --sampler annealed_langevin --out y.png
bad 'images' "$sgm" inpaint run --data images --resize --known left --first 7 --n 2 --out y.png
make_config
run 0 "$sgm" train tiny.toml --workdir grey --steps 1
bad 'grey images' "$sgm" colorize grey --data images --resize --out y.png
printf 'P6\n8 8\n255\n%s' "$(printf 'abc%.0s' $(seq 64))" >colour.ppm
bad '3 channels' "$sgm" inpaint grey --data images --resize --mask colour.ppm --out y.png
absent y.png
# The original NCSN's sampler.
sed -i -e 's/vpsde/vesde/' tiny.toml
run 0 "$sgm" train tiny.toml --workdir ve --steps 1
run 0 "$sgm" sample ve --sampler annealed_langevin --start uniform --step-lr 1e-5 --n-steps-each 2 --n 1 --out ncsn.png
has err 'NFE 11'
no_temporaries

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

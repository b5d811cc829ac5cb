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

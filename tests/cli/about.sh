run 0 "$sgm" --version
grep -qE '^sgm [0-9]+\.[0-9]+\.[0-9]+$' out || fail "--version printed $(cat out)"
run 0 "$sgm" --help
local commands command
commands=$(sed -n '/^Subcommands:/,$s/^  \([a-z-]*\) .*/\1/p' out)
[ "$(wc -w <<<"$commands")" -ge 18 ] || fail "--help names only $commands"
for command in $commands; do
  run 0 "$sgm" "$command" --help
  [ ! -s err ] || fail "$command --help wrote to stderr"
done
run 0 "$sgm" doctor --threads 1
has out 'cpu: 1 threads'
has out 'bf16: '

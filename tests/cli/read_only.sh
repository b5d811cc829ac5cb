make_config
local as=()
if [ "$(id -u)" -eq 0 ]; then # nothing is read-only for root: become somebody else
  as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
  chmod 755 "$work"
  if ! "${as[@]}" "$sgm" --version >out 2>err; then
    echo "skipped: as root every folder can be written, and setpriv cannot start $sgm as another user"
    exit 77
  fi
fi
run 0 "$sgm" train tiny.toml --workdir run --steps 1
cp "$repository/configs/lab/two_modes.toml" .  # others may not look into the repository's folder
chmod 644 two_modes.toml
mkdir locked
chmod 755 run run/checkpoints
chmod 555 locked
as_other() { "${as[@]}" "$@"; }
bad 'locked' as_other "$sgm" train tiny.toml --workdir locked --steps 1
bad 'locked' as_other "$sgm" train tiny.toml --workdir locked/run --steps 1
bad 'locked' as_other "$sgm" sample run --out locked/x.png --n 1000000
! grep -q '^device' err || fail "the read-only folder was not refused before the work"
bad 'locked' as_other "$sgm" data images --out locked/x.png
bad 'locked' as_other "$sgm" likelihood run --data images --out locked/x.jsonl
bad 'locked' as_other "$sgm" eval run --data images --out locked/x.json
bad 'locked' as_other "$sgm" encode run --data images --out locked/x.npz
bad 'locked' as_other "$sgm" inpaint run --data images --known left --out locked/x.png
bad 'locked' as_other "$sgm" lab two_modes.toml --figure density --out locked/x
[ -z "$(ls -A locked)" ] || fail "left behind: $(ls -A locked)"
chmod 755 locked

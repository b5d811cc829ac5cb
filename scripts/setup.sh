#!/usr/bin/env bash
# Installs what building, running and testing need on Debian 12 and Ubuntu 24.04. Asks apt only when something is
# missing. Sourced or run by demo.sh and test.sh.
set -euo pipefail

packages=(g++ cmake ninja-build zlib1g-dev libdnnl-dev ocl-icd-opencl-dev libtomlplusplus-dev nlohmann-json3-dev
  libcli11-dev libzip-dev libstb-dev libcairo2-dev libgif-dev libgtest-dev)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done

if [ "${#missing[@]}" -gt 0 ]; then
  sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
      echo "setup: as root, run: apt-get install ${missing[*]}" >&2
      exit 2
    }
    sudo=(sudo)
  fi
  echo "setup: installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
    >/dev/null
fi

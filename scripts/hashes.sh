#!/usr/bin/env bash
# Regenerate requirements/cpu.hashes.txt or gpu.hashes.txt from cpu.txt or gpu.txt: bash scripts/hashes.sh cpu|gpu   (needs uv, of requirements/release.txt)
# All files of a version are listed, so that every Python and platform finds its own. Only names, versions and hashes are written.
set -euo pipefail
cd "$(dirname "$0")/.."
kind="${1:-}"
case "$kind" in cpu | gpu) ;; *) echo "error: hashes.sh takes cpu or gpu" >&2; exit 2 ;; esac
python="${KMMLU_VENV:-.venv}/bin/python"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# torch's CPU build comes from pip's configured sources or from PyTorch's own index, where its files are others.
grep -v '^torch==[^;]*+cpu' "requirements/$kind.txt" >"$folder/set.txt"
"$python" -m uv pip compile -q "$folder/set.txt" --no-deps --generate-hashes --no-header --no-annotate --universal --python-version 3.11 -o "$folder/hashes.txt"
{
  echo "# sha256 of every file of the versions in $kind.txt (not of torch's CPU build, which is on no ordinary index). Regenerate with: bash scripts/hashes.sh $kind"
  # uv writes "==" for "===", which means something else to pip: also a +cpu build (lock.sh).
  if grep -q '^torch===' "requirements/$kind.txt"; then sed 's/^torch==/torch===/' "$folder/hashes.txt"; else cat "$folder/hashes.txt"; fi
} >"requirements/$kind.hashes.txt"
echo "requirements/$kind.hashes.txt: $(grep -c '==' "requirements/$kind.hashes.txt") packages"

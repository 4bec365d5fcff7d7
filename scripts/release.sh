#!/usr/bin/env bash
# What is released, into dist/: sdist and wheel of the committed tree, checked as an index checks them, the notes from CHANGELOG.md, and a software bill of materials for each pinned set.
#   bash scripts/release.sh [--notes]     --notes: only print the notes of this version   (needs: bash scripts/setup.sh cpu dev checks release)
set -euo pipefail
cd "$(dirname "$0")/.."
python="${KMMLU_VENV:-.venv}/bin/python"
version=$(sed -n 's/^__version__ = "\([0-9.]*[0-9]\).*"/\1/p' kmmlu_fast/core/version.py)
notes=$(awk -v head="## $version" 'index($0, head) == 1 {on = 1; next} /^## / {on = 0} on' CHANGELOG.md)
if [ -z "${notes//[[:space:]]/}" ]; then
  echo "error: CHANGELOG.md has no section '## $version'; write it" >&2
  exit 2
fi
if [ "${1:-}" = --notes ]; then
  echo "$notes"
  exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
git archive HEAD | tar -x -C "$folder"
mkdir -p dist
rm -f dist/*
"$python" -m build --no-isolation --outdir dist "$folder" >"$folder/log" 2>&1 || { tail -20 "$folder/log" >&2; exit 1; }
"$python" -m twine check --strict dist/*
echo "$notes" >dist/NOTES.md
# What is in the pinned environments, for whoever must know: CycloneDX, one file each, by cyclonedx-py.
for kind in cpu gpu; do
  "$python" -m cyclonedx_py requirements "requirements/$kind.txt" --output-format JSON --output-reproducible --output-file "dist/sbom-$kind.cdx.json"
done
ls -l dist

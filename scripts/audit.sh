#!/usr/bin/env bash
# Known vulnerabilities of the pinned packages (pip-audit, where its data can be reached: else it says so), and their licences.
#   bash scripts/audit.sh [--strict]     --strict: a vulnerability, or data out of reach, is a failure
set -euo pipefail
cd "$(dirname "$0")/.."
strict="${1:-}"
python="${KMMLU_VENV:-.venv}/bin/python"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

# In an environment of its own: an auditor's dependencies are not the project's.
if "$python" -m venv "$folder/venv" >/dev/null 2>&1 && "$folder/venv/bin/python" -m pip install -q --disable-pip-version-check pip-audit >/dev/null 2>&1; then
  for set in requirements/cpu.txt requirements/dev.txt; do
    grep -v '+cpu' "$set" > "$folder/set.txt" || true  # local versions are on no index
    timeout 120 "$folder/venv/bin/pip-audit" -r "$folder/set.txt" --no-deps --disable-pip --timeout 10 --progress-spinner off -f json \
      > "$folder/$(basename "$set").json" 2>/dev/null || true
  done
fi

"$python" - "$folder" "$strict" <<'PY'
import importlib.metadata
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

folder, strict = Path(sys.argv[1]), sys.argv[2] == "--strict"
failed = False
for name in ("cpu.txt", "dev.txt"):
    file = folder / f"{name}.json"
    try:
        found = json.loads(file.read_text())["dependencies"]
    except (OSError, ValueError, KeyError):
        found = []
    audited = [entry for entry in found if "vulns" in entry]
    if not audited:
        print(f"audit: requirements/{name}: not audited: pip-audit, or its vulnerability data, cannot be reached from here")
        failed |= strict
        continue
    bad = [entry for entry in audited if entry["vulns"]]
    print(f"audit: requirements/{name}: {len(audited)} of {len(found)} packages audited, {len(bad)} with known vulnerabilities")
    for entry in bad:
        ids = ", ".join(sorted({vuln["id"] for vuln in entry["vulns"]}))
        print(f"  {entry['name']} {entry['version']}: {ids}")
        failed |= strict

licences = defaultdict(list)
pinned = {line.split("==")[0].strip().lower() for path in Path("requirements").glob("*.txt") for line in path.read_text().splitlines() if "==" in line}
for package in importlib.metadata.distributions():
    about = package.metadata
    if (about["Name"] or "").lower() not in pinned:
        continue
    classifiers = [c.rsplit(" :: ", 1)[-1] for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    stated = about.get("License-Expression") or (classifiers[0] if classifiers else "") or (about.get("License") or "not stated").split("\n")[0][:60]
    licences[stated].append(about["Name"])
print("licences of what is installed (depended on, not copied):")
for stated, names in sorted(licences.items(), key=lambda item: -len(item[1])):
    marked = " [copyleft]" if re.search(r"\b[AL]?GPL|General Public", stated) else ""
    shown = ", ".join(sorted(names)[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if not marked else ", ".join(sorted(names))
    print(f"  {len(names):>3}  {stated}{marked}: {shown}")
sys.exit(1 if failed else 0)
PY

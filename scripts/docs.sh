#!/usr/bin/env bash
# Build the documentation into site/, strictly: bash scripts/docs.sh     (needs requirements/docs.txt)
set -euo pipefail
cd "$(dirname "$0")/.."
python="${KMMLU_VENV:-.venv}/bin/python"
"$python" - <<'PY' >docs/reference.md
from kmmlu_fast.command.help_text import CONFIGS, format_help_markdown

print("# Every flag\n\nMade from the configurations by `scripts/docs.sh`; the same as `kmmlu-fast VERB --help`. Defaults < `--config FILE.yaml` < flags.\n")
print("\n".join(format_help_markdown(verb) for verb in CONFIGS).rstrip())
PY
if [ "${1:-}" = reference ]; then exit 0; fi
"${KMMLU_DOCS_PYTHON:-$python}" -m mkdocs build --strict --site-dir site

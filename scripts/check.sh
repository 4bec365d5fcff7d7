#!/usr/bin/env bash
# Lint and type-check, as CI does; and tables in the documentation against the records that they are made from.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports --no-cache | sed -n "/^Contracts/,\$p"
.venv/bin/python -m bench.table --check

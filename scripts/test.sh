#!/usr/bin/env bash
# Set up and pass the tests: lint, types, unit tests, then real vLLM, Unsloth, Ray and Chromium on the CPU.
#   bash scripts/test.sh [pytest arguments]    with arguments: only those tests, no lint
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh cpu demo dev bench

# What checks the site, the page and the packages, llama.cpp and Optuna; where it cannot be had those tests skip with a reason.
for set in docs checks ship improve; do
  bash scripts/setup.sh cpu "$set" || echo "test: requirements/$set.txt could not be installed; its tests will skip"
done

# The report is tested in a real browser; without one those tests skip with a reason.
if ! command -v chromium >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
  echo "test: installing chromium for the report's tests"
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-noto-cjk; } >/dev/null 2>&1 ||
    echo "test: chromium could not be installed; its tests will skip"
fi

if [ $# -gt 0 ]; then exec .venv/bin/python -m pytest "$@"; fi
bash scripts/check.sh
# Unit tests on all cores; real engines two at a time, since half of such a test is imports on one core; those
# that kill, measure time or start servers one at a time.
.venv/bin/python -m pytest -q -n auto -m "not engine"
.venv/bin/python -m pytest -q -n 2 --dist loadfile -m "engine and not alone" --durations 15
.venv/bin/python -m pytest -q -m "engine and alone" --durations 15

#!/usr/bin/env bash
# The benchmarks of one GPU in one command, within 10 minutes after set-up: random weights in the A.X-4.0-Light shape, JSON last on stdout.
#   bash scripts/bench_gpu.sh [flags of python -m bench.gpu]      such as --dataset DIR, --parts "zero-shot bf16,five-shot bf16"
# KMMLU_PYTHON names an environment that already has vLLM and Unsloth (vLLM 0.26 and 0.32 are meant to work); else .venv is set up.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${KMMLU_PYTHON:-}"
if [ -z "$python" ]; then
  bash scripts/setup.sh gpu >&2
  python=.venv/bin/python
fi
mkdir -p out
"$python" -m bench.gpu --record "$@" | tee out/bench_gpu.txt

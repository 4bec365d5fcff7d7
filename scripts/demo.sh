#!/usr/bin/env bash
# Set up and run the main job whole: the demo model on the packaged sample, on any machine, without a model hub.
#   bash scripts/demo.sh [further flags of python -m kmmlu_fast.eval]
set -euo pipefail
cd "$(dirname "$0")/.."
began=$SECONDS
bash scripts/setup.sh demo
setup_sec=$((SECONDS - began))

began=$SECONDS
.venv/bin/python - <<'PY'
from kmmlu_fast.core.console import show_notes
from kmmlu_fast.models.demo import demo_model_path

with show_notes():
    demo_model_path()
PY
unpack_sec=$((SECONDS - began))

began=$SECONDS
echo "demo: evaluating it on the packaged sample"
.venv/bin/python -m kmmlu_fast.eval --model demo --dataset sample "$@"
eval_sec=$((SECONDS - began))
echo "time: set-up $setup_sec s, demo model $unpack_sec s, evaluation $eval_sec s (engine start included)"

#!/usr/bin/env bash
# Set up and run the main job whole: the demo model on the packaged sample, on any machine, without a model hub.
#   bash scripts/demo.sh [cpu|gpu] [--open] [further flags of python -m kmmlu_fast.eval]     --open: show the report in the browser
set -euo pipefail
cd "$(dirname "$0")/.."
kind=()
case "${1:-}" in cpu | gpu) kind=("$1"); shift ;; esac
flags=() show=() runs=runs before=""
for word in "$@"; do
  if [ "$word" = --open ]; then show=(--open); else flags+=("$word"); fi
  if [ "$before" = --output-dir ]; then runs="$word"; fi
  case "$word" in --output-dir=*) runs="${word#*=}" ;; esac
  before="$word"
done

began=$SECONDS
bash scripts/setup.sh ${kind[@]+"${kind[@]}"} demo
# Beside a card that the CPU set cannot use, engines want to be told that the CPU is meant.
if [ "$(cat .venv/.kind)" = cpu ] && command -v nvidia-smi >/dev/null 2>&1; then
  echo "demo: .venv holds the cpu set, so the CPU computes"
  export CUDA_VISIBLE_DEVICES=-1
fi
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
.venv/bin/python -m kmmlu_fast.eval --model demo --dataset sample ${flags[@]+"${flags[@]}"}
eval_sec=$((SECONDS - began))
echo "time: set-up $setup_sec s, demo model $unpack_sec s, evaluation $eval_sec s (engine start included)"

echo
.venv/bin/python -m kmmlu_fast.report base --runs-dir "$runs" --output "$runs/demo.html" --overwrite ${show[@]+"${show[@]}"}
echo "The demo model is a base model near chance: the letter table shows that it answers mostly one letter."
echo "Next, with an adapter of your own, or the whole loop on this model:"
echo "  source .venv/bin/activate"
echo "  kmmlu-fast doctor                       # what works on this machine"
echo "  kmmlu-fast eval --adapter PATH_OR_HUB_ID"
echo "  bash scripts/reproduce.sh               # sample, train, evaluate again, compare (20 minutes on two cores)"

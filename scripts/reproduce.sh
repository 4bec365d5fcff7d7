#!/usr/bin/env bash
# The whole loop in stage order: baseline, sampling, training, evaluation, comparison. Killed, it continues where it was.
#   bash scripts/reproduce.sh [cpu|gpu] [OUT]   the demo model on the packaged sample (under 20 minutes on two cores)
#   bash scripts/reproduce.sh --full [OUT]      skt/A.X-4.0-Light on KMMLU (a GPU and the hub; KMMLU_DATASET names a local copy)
set -euo pipefail
cd "$(dirname "$0")/.."

full=""
if [ "${1:-}" = --full ]; then full=yes; shift; fi
kind=()
case "${1:-}" in cpu | gpu) kind=("$1"); shift ;; esac
case "${1:-}" in -*) echo "error: reproduce.sh $1: allowed are --full, cpu or gpu, and an output directory" >&2; exit 2 ;; esac
if [ -n "$full" ]; then
  out="${1:-out/reproduce-full}" model=skt/A.X-4.0-Light dataset="${KMMLU_DATASET:-HAERAE-HUB/KMMLU}"
  size=500 train_config=configs/train.yaml weakness_limit=20 setup=()
else
  out="${1:-out/reproduce-demo}" model=demo dataset=sample
  size=120 train_config=configs/train_demo.yaml weakness_limit=2 setup=(demo)
fi
python="${KMMLU_VENV:-.venv}/bin/python"
if [ -z "${KMMLU_VENV:-}" ]; then
  bash scripts/setup.sh ${kind[@]+"${kind[@]}"} ${setup[@]+"${setup[@]}"}
  # Beside a card that the CPU set cannot use, engines want to be told that the CPU is meant.
  if [ "$(cat .venv/.kind)" = cpu ] && command -v nvidia-smi >/dev/null 2>&1; then
    echo "reproduce: .venv holds the cpu set, so the CPU computes"
    export CUDA_VISIBLE_DEVICES=-1
  fi
fi

stage() { echo; echo "== $1 =="; began=$SECONDS; }
took() { echo "-- $((SECONDS - began)) s"; }

stage "1 baseline: $model on $dataset"
"$python" -m kmmlu_fast.eval --model "$model" --dataset "$dataset" --output-dir "$out/runs"
took

stage "2 sampling: weak subjects by a held-out slice of train"
"$python" -m kmmlu_fast.eval --model "$model" --dataset "$dataset" --split train --limit "$weakness_limit" --output-dir "$out/weakness"
[ -e "$out/sft.jsonl" ] || "$python" -m kmmlu_fast.sample --model "$model" --dataset "$dataset" --from "$out"/weakness/*/ --size "$size" --out "$out/sft.jsonl"
took

stage "3 training"
"$python" -m kmmlu_fast.train --config "$train_config" --model "$model" --dataset "$dataset" --data "$out/sft.jsonl" --output-dir "$out/lora" --resume
took

stage "4 evaluation of the adapter"
"$python" -m kmmlu_fast.eval --model "$model" --dataset "$dataset" --adapter "$out/lora" --output-dir "$out/runs"
took

stage "5 comparison"
mapfile -t runs < <("$python" - "$out" <<'PY'
import json, sys
from pathlib import Path

found = {bool(json.loads(path.read_text())["adapter"]): path.parent for path in Path(sys.argv[1], "runs").glob("*/config.json")}
print(found[False], found[True], sep="\n")
PY
)
"$python" -m kmmlu_fast.compare "${runs[@]}" --dataset "$dataset"
took

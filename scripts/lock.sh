#!/usr/bin/env bash
# Regenerate requirements/cpu.txt or gpu.txt from the .in files: bash scripts/lock.sh cpu|gpu
# Resolves without installing; writes names and versions only, no index addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
kind="${1:-}"
case "$kind" in cpu | gpu) ;; *) echo "error: lock.sh takes cpu or gpu" >&2; exit 2 ;; esac
report=$(mktemp)
trap 'rm -f "$report"' EXIT
.venv/bin/python -m pip install --quiet --dry-run --ignore-installed --report "$report" -r "requirements/$kind.in"
.venv/bin/python - "$kind" "$report" <<'PY'
import json, sys
from pathlib import Path

kind, report = sys.argv[1:]
# CUDA builds that come along on a CPU and break every transformers import, and what only they need
leave_out = {"torchvision", "torchaudio", "torchcodec", "triton", "xformers", "torchao", "diffusers", "opencv-python-headless"} if kind == "cpu" else set()
found = {}
for item in json.loads(Path(report).read_text())["install"]:
    name = item["metadata"]["name"].lower().replace("_", "-")
    cuda = kind == "cpu" and name.startswith(("nvidia-", "cuda-"))
    if name not in leave_out and not cuda:
        found[name] = item["metadata"]["version"]
# torch's CUDA build has no local version: "==" would also take a +cpu build where pip knows one, "===" takes this very one.
exact = {"torch"} if kind == "gpu" else set()
if kind == "gpu" and "+" in found.get("torch", ""):
    sys.exit(f"error: pip took torch {found['torch']} for the GPU set; requirements/gpu.in must name torch===, without a build")
pins = [f"{name}{'===' if name in exact else '=='}{version}" for name, version in sorted(found.items())]
target = Path(f"requirements/{kind}.txt")
head = target.read_text().splitlines()[0]
text = "\n".join([head, *pins]) + "\n"
target.write_text(text)
Path(f"kmmlu_fast/pins/{kind}.txt").write_text(text)  # the wheel carries the same set, for: kmmlu-fast install
if kind == "gpu":
    # The same set for a machine that keeps the torch it has: without torch, what torch brings, and what is built against one torch.
    own = set("torch triton torchvision torchaudio torchcodec cuda-toolkit cuda-bindings".split())
    own |= {f"nvidia-{name}" for name in "cublas cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx".split()}
    beside = Path("requirements/gpu-torch211.txt")
    kept = [pin for pin in pins if pin.split("=")[0] not in own]
    beside.write_text("\n".join([beside.read_text().splitlines()[0], *kept]) + "\n")
    print(f"{beside}: {len(kept)} packages")
print(f"{target}: {len(found)} packages; run bash scripts/test.sh before committing it")
PY

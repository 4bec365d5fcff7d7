#!/usr/bin/env bash
# Set up .venv with the pinned packages: by uv where it is on PATH or in .venv (KMMLU_UV=0: not), else by pip. Idempotent: what is installed is not installed again.
#   bash scripts/setup.sh [cpu|gpu] [demo] [dev] [bench] [docs] [checks] [ship] [improve]     without cpu or gpu: gpu where nvidia-smi finds one, else cpu
set -euo pipefail
cd "$(dirname "$0")/.."

kind=""
extras=()
for word in "$@"; do
  case "$word" in
    cpu | gpu) kind="$word" ;;
    demo | dev | bench | docs | checks | ship | improve) extras+=("$word") ;;
    *) echo "error: setup.sh $word: allowed are cpu, gpu, demo, dev, bench, docs, checks, ship, improve" >&2; exit 2 ;;
  esac
done
if [ -z "$kind" ]; then
  echo "setup: looking for an NVIDIA card (name cpu or gpu to decide yourself)"
  if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then kind=gpu; else kind=cpu; fi
fi

python=""
wanted="3.12 3.11"
[ "$kind" = cpu ] && wanted="3.11 3.12 3.13"
for candidate in ${KMMLU_PYTHON:-} $(printf 'python%s ' $wanted) python3; do
  if "$candidate" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then
    python="$candidate"
    break
  fi
done
if [ -z "$python" ]; then
  echo "error: no Python 3.11 to 3.13 with venv found; install one, or name it: KMMLU_PYTHON=/path/to/python3.11 bash scripts/setup.sh" >&2
  exit 2
fi

# Before anything is downloaded: disk, CPU or card, driver, compiler. Stops with the reason.
"$python" -m kmmlu_fast.machine.preflight "$kind" || exit 2
for other in cpu gpu; do
  if [ "$other" != "$kind" ] && [ -e ".venv/.installed-$other" ]; then
    echo "error: .venv holds the $other set, and the two do not mix: rm -rf .venv && bash scripts/setup.sh $*" >&2
    exit 2
  fi
done

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

if [ ! -x .venv/bin/python ]; then
  echo "setup: creating .venv with $("$python" --version)"
  "$python" -m venv .venv
  if ! .venv/bin/python -c 'import pip, sys; sys.exit(int(pip.__version__.split(".")[0]) < 26)'; then
    pip install -qq --no-deps --no-compile --require-hashes -r requirements/pip.txt ||
      echo "setup: the pip of requirements/pip.txt was not installed, for pip's reason above; Python's own takes longer"
  fi
fi

# uv_install FILE: the hashed set by uv, which takes less time than pip. Fails where there is no uv, or uv would not do as pip is
# configured to, or did not manage: pip then installs the same set, and says what is wrong if it is the set.
uv_install() {
  local uv flags cert="${SSL_CERT_FILE:-${PIP_CERT:-}}" IFS=$'\n'
  [ "${KMMLU_UV:-1}" != 0 ] || return 1
  uv=$(command -v .venv/bin/uv || command -v uv) || return 1
  flags=$(.venv/bin/python -m pip --disable-pip-version-check config list | .venv/bin/python -m kmmlu_fast.machine.uv_flags "$1") &&
    # shellcheck disable=SC2086  # a word per line
    env ${cert:+"SSL_CERT_FILE=$cert"} "$uv" pip install -q --python .venv/bin/python --no-config --no-deps --require-hashes $flags -r "$1" || {
    echo "setup: pip goes on, for uv's reason above" >&2
    return 1
  }
}

# meanwhile WHAT COMMAND...: a word every eight seconds while a quiet command runs
meanwhile() {
  local what="$1" began=$SECONDS failed=""
  shift
  (while sleep 8 >/dev/null 2>&1; do echo "setup: $what, $((SECONDS - began)) s"; done) &
  local ticker=$!
  "$@" || failed=yes
  kill "$ticker" 2>/dev/null || true
  [ -z "$failed" ]
}

# install_once NAME FILE: skipped where the very same file was installed before
install_once() {
  local stamp=".venv/.installed-$1" digest
  digest=$(sha256sum "$2" | cut -d' ' -f1)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ]; then return; fi
  echo "setup: installing $2"
  local began=$SECONDS
  if [ "$1" = cpu ]; then install_torch_cpu "$2"; fi
  # --no-deps: the file is the whole set. Resolving again would bring torchvision's CUDA build, which breaks transformers on a CPU.
  # --no-compile: Python compiles what is imported (and see below); pip would compile all of it on one core.
  # Where the files' hashes are recorded, pip refuses any other file; KMMLU_UNHASHED=1 takes what the index serves.
  local hashes="${2%.txt}.hashes.txt"
  if [ -f "$hashes" ] && [ "${KMMLU_UNHASHED:-0}" != 1 ]; then
    meanwhile "installing $2" hashed_install "$hashes" || {
      echo "error: $2: a package could not be installed as recorded in $hashes; KMMLU_UNHASHED=1 installs without the hashes" >&2
      return 1
    }
  else
    meanwhile "installing $2" pip install -q --no-deps --no-compile -r "$2" || return 1
  fi
  echo "$digest" >"$stamp"
  echo "setup: $2 took $((SECONDS - began)) s"
}

hashed_install() { uv_install "$1" || pip install -q --no-deps --no-compile --require-hashes -r "$1"; }

# torch's CPU build is on no ordinary index: pip's own configuration may know it, PyTorch's index does.
install_torch_cpu() {
  local torch
  torch=$(grep '^torch==' "$1")
  if meanwhile "installing $torch" pip install -q --no-deps --no-compile "$torch" 2>/dev/null; then
    echo "setup: $torch from pip's configured sources"
  else
    local index="${KMMLU_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}"
    meanwhile "installing $torch" pip install -q --no-deps --no-compile --index-url "$index" "$torch"
    echo "setup: $torch from $index"
  fi
}

began=$SECONDS
install_once "$kind" "requirements/$kind.txt"
for extra in ${extras[@]+"${extras[@]}"}; do install_once "$extra" "requirements/$extra.txt"; done
if ! .venv/bin/python -c 'import kmmlu_fast, sys; sys.exit(0 if "site-packages" not in kmmlu_fast.__file__ else 1)' 2>/dev/null ||
  [ ! -x .venv/bin/kmmlu-fast ]; then
  pip install -qq --no-deps --no-build-isolation -e .
fi
# A set that looks installed and cannot use the card would train and evaluate on the CPU for days.
if [ "$kind" = gpu ]; then
  .venv/bin/python - <<'PY'
import os, sys, warnings

warnings.simplefilter("ignore")
import torch

if not torch.version.cuda:
    sys.exit(f"error: torch {torch.__version__} has no CUDA; remove .venv, and name the sources pip is to use for requirements/gpu.txt")
if not torch.cuda.is_available() and os.environ.get("KMMLU_SETUP_ANYWAY") != "1":
    sys.exit(f"error: torch {torch.__version__} (CUDA {torch.version.cuda}) sees no card; what is in the way: .venv/bin/kmmlu-fast doctor")
PY
fi
# Python compiles what it imports, once. Where it may not write that down (many containers set this), every start would compile all of
# vLLM and torch again, ten seconds and more. What .venv imports is written down there all the same, as it is imported; to compile all of it
# now, for an image (half a minute on two cores): KMMLU_COMPILE=1.
packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo 'import sys; sys.dont_write_bytecode = False' >"$packages/kmmlu_fast_bytecode.pth"
if [ "${KMMLU_COMPILE:-0}" = 1 ] && [ "$(cat .venv/.compiled 2>/dev/null)" != "$(cat .venv/.installed-*)" ]; then
  compile() { .venv/bin/python -m compileall -q -j 0 "$packages" >/dev/null; }
  meanwhile compiling compile || true
  cat .venv/.installed-* >.venv/.compiled
fi
echo "setup: ready ($kind, $((SECONDS - began)) s); activate with: source .venv/bin/activate"

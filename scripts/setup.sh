#!/usr/bin/env bash
# Set up .venv with the pinned packages: by uv where it is on PATH or in .venv (KMMLU_UV=0: not), else by pip. Idempotent: what is installed is not installed again.
#   bash scripts/setup.sh [cpu|gpu] [demo] [dev] [bench] [docs] [checks] [ship] [improve] [release]     without cpu or gpu: the one that .venv holds, else gpu where nvidia-smi finds a card
set -euo pipefail
cd "$(dirname "$0")/.."

kind=""
extras=()
for word in "$@"; do
  case "$word" in
    cpu | gpu) kind="$word" ;;
    demo | dev | bench | docs | checks | ship | improve | release) extras+=("$word") ;;
    *) echo "error: setup.sh $word: allowed are cpu, gpu, demo, dev, bench, docs, checks, ship, improve, release" >&2; exit 2 ;;
  esac
done
# The set that .venv holds, or was begun with; .installed-* alone are of earlier set-ups.
begun=$(cat .venv/.kind 2>/dev/null || true) held=""
for one in cpu gpu; do if [ -e ".venv/.installed-$one" ] || [ "$begun" = "$one" ]; then held="$one"; fi; done
if [ -z "$kind" ] && [ -n "$held" ]; then kind="$held"; fi
if [ -z "$kind" ]; then
  echo "setup: looking for an NVIDIA card (name cpu or gpu to decide yourself)"
  if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then kind=gpu; else kind=cpu; fi
fi

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
has_pip() { [ -x .venv/bin/python ] && pip --version >/dev/null 2>&1; }
if [ "$kind" = gpu ]; then last=3.12 wanted="3.12 3.11"; else last=3.13 wanted="3.11 3.12 3.13"; fi
need="Python 3.11 to $last with venv and ensurepip (on Debian and Ubuntu the package python3-venv, or python3.11-venv and the like)"

# fits PYTHON MODULES: whether the set is for its version, and it has the modules
fits() {
  "$1" -c "import sys, $2; sys.exit(not (3, 11) <= sys.version_info[:2] <= (${last/./, }))" >/dev/null 2>&1
}

python="${KMMLU_PYTHON:-}"
if [ -n "$python" ] && ! fits "$python" "venv, ensurepip"; then
  echo "error: KMMLU_PYTHON=$python: the $kind set needs $need; name such a one, or leave the variable out" >&2
  exit 2
fi
if [ -z "$python" ] && has_pip; then python=.venv/bin/python; fi # there is none to be made
for candidate in $(printf 'python%s ' $wanted) python3; do
  if [ -z "$python" ] && fits "$candidate" "venv, ensurepip"; then python="$candidate"; fi
done
if [ -z "$python" ]; then
  echo "error: no $need found; install one, or name it: KMMLU_PYTHON=/path/to/python3.11 bash scripts/setup.sh" >&2
  exit 2
fi

# Before anything is downloaded: disk, CPU or card, driver, compiler. Stops with the reason.
"$python" -m kmmlu_fast.machine.preflight "$kind" || exit 2
if [ -n "$held" ] && [ "$held" != "$kind" ]; then
  echo "error: .venv holds the $held set, or a part of it, and the two do not mix: rm -rf .venv && bash scripts/setup.sh $*" >&2
  exit 2
fi

# make_venv [--clear]
make_venv() {
  echo "setup: creating .venv with $("$python" --version)"
  rm -f .venv/.installed-* .venv/.compiled # of one whose Python is gone
  "$python" -m venv "$@" .venv
  if ! .venv/bin/python -c 'import pip, sys; sys.exit(int(pip.__version__.split(".")[0]) < 26)'; then
    pip install -qq --no-deps --no-compile --require-hashes -r requirements/pip.txt ||
      echo "setup: the pip of requirements/pip.txt was not installed, for pip's reason above; Python's own takes longer"
  fi
}

# holds_packages: whether .venv holds more than a fresh environment, whole or not
holds_packages() {
  local place
  for place in .venv/lib/python3.*/site-packages/*; do
    case "${place##*/}" in
      '*' | pip | pip-* | '~'* | setuptools | setuptools-* | _distutils_hack | distutils-precedence.pth | _virtualenv.* | __pycache__) ;;
      *) return 0 ;;
    esac
  done
  return 1
}

if [ ! -x .venv/bin/python ]; then
  make_venv
elif ! has_pip; then # set-up was interrupted, or another program made it without (uv venv)
  if ! holds_packages; then
    echo "setup: .venv has no pip that runs, and no packages"
    make_venv --clear
  elif ! .venv/bin/python -m ensurepip --upgrade >/dev/null 2>&1 || ! has_pip; then
    echo "error: .venv holds packages and no pip that runs: rm -rf .venv && bash scripts/setup.sh $*" >&2
    exit 2
  fi
fi
if ! fits .venv/bin/python os; then
  echo "error: .venv is $(.venv/bin/python --version), and the $kind set needs 3.11 to $last: rm -rf .venv && bash scripts/setup.sh $*" >&2
  exit 2
fi
if [ "$("$python" --version)" != "$(.venv/bin/python --version)" ]; then
  echo "setup: .venv is kept, $(.venv/bin/python --version); for another: rm -rf .venv"
fi
echo "$kind" >.venv/.kind # before the first package: an interrupted set is one, too

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

# meanwhile WHAT COMMAND...: a word every eight seconds while a quiet command runs. Only this shell holds the other end of the pipe,
# so that the words end with it, however it ends.
meanwhile() {
  local what="$1" began=$SECONDS failed="" held_open
  shift
  exec {held_open}> >(while read -r -t 8; [ $? -gt 128 ]; do echo "setup: $what, $((SECONDS - began)) s"; done)
  "$@" {held_open}>&- || failed=yes
  exec {held_open}>&-
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

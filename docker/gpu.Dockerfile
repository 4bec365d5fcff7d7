# The GPU set, for a driver of 580 or newer (CUDA 13 comes with the packages; nvcc is for kernels compiled at the first start).
#   docker build -f docker/gpu.Dockerfile -t kmmlu-fast:gpu .
#   docker run --rm --gpus all --ipc host -v "$HOME/.cache/huggingface:/root/.cache/huggingface" -v "$PWD:/app" kmmlu-fast:gpu doctor
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential git python3.12 python3.12-dev python3.12-venv fonts-noto-cjk \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/kmmlu_fast
COPY . .
# No card is there while an image is built: set-up checks for one when the container starts, through doctor.
RUN KMMLU_PYTHON=python3.12 KMMLU_SETUP_ANYWAY=1 bash scripts/setup.sh gpu

ENV PATH=/opt/kmmlu_fast/.venv/bin:$PATH
WORKDIR /app
ENTRYPOINT ["kmmlu-fast"]
CMD ["doctor"]

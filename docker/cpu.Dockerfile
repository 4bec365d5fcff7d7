# The CPU set: the demo, the tests, and everything but speed.
#   docker build -f docker/cpu.Dockerfile -t kmmlu-fast:cpu .
#   docker run --rm -v "$PWD/runs:/app/runs" kmmlu-fast:cpu eval --model demo --dataset sample
FROM python:3.12-slim-bookworm

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential git libnuma1 fonts-noto-cjk \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/kmmlu_fast
COPY . .
RUN bash scripts/setup.sh cpu demo

ENV PATH=/opt/kmmlu_fast/.venv/bin:$PATH
WORKDIR /app
ENTRYPOINT ["kmmlu-fast"]
CMD ["--help"]

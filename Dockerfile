# syntax=docker/dockerfile:1
# heronry in a container: CPU by default, CUDA by build argument (docs/clusters.md).
#   docker build -t heronry .
#   docker build -t heronry:cuda --build-arg BASE=nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04 .
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Debian and Ubuntu bases alike: a Python of their own where there is none, and what builds pyworld.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends git make build-essential \
    && if ! command -v python3.11 && ! command -v python3.12 && ! command -v python3.13; then \
        apt-get install -y --no-install-recommends python3.12 python3.12-venv python3.12-dev; \
    fi \
    && rm -rf /var/lib/apt/lists/*

# Whoever runs it under another number (--user) must be able to enter, and DVC asks for a user's name.
RUN useradd --create-home --uid 10001 heron && chmod 755 /home/heron
ENV USER=heron
USER 10001
WORKDIR /home/heron/heronry

# What changes least comes first, so that an edit of the code does not install torch again.
COPY --chown=heron requirements requirements
COPY --chown=heron Makefile pyproject.toml README.md ./
COPY --chown=heron features features
COPY --chown=heron pipeline pipeline
COPY --chown=heron stages stages
RUN make install

COPY --chown=heron . .
ENV PATH="/home/heron/heronry/.venv/bin:${PATH}"
CMD ["make", "run"]

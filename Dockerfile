# o3-lightning in a container; the steps are those of the Makefile. No test builds it.
#   CPU:   docker build -t o3-lightning .
#   CUDA:  docker build -t o3-lightning --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 --build-arg CONSTRAINTS= .
#   docker run --rm -v "$PWD/runs:/data/runs" o3-lightning run --config demo
ARG BASE=python:3.12-slim
FROM ${BASE}
# The tested versions; empty on CUDA, so that pip takes the torch and triton that fit the driver.
ARG CONSTRAINTS="--constraint constraints.txt"
ARG EXTRAS="serve,gguf"
RUN command -v python3 >/dev/null && python3 -m venv --help >/dev/null 2>&1 \
    || (apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*)
# Triton compiles its launchers with a C compiler when a kernel is first called.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY o3_lightning o3_lightning
COPY kernels/o3_kernels kernels/o3_kernels
COPY configs configs
RUN python3 -m venv /opt/o3 && /opt/o3/bin/python -m pip install --no-cache-dir ${CONSTRAINTS} ".[${EXTRAS}]"
RUN useradd --create-home o3 && mkdir -p /data/runs && chown -R o3 /data
USER o3
WORKDIR /data
ENV PATH=/opt/o3/bin:$PATH
ENTRYPOINT ["o3-lightning"]
CMD ["--help"]

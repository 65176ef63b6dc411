# The image of every step, of `ndr` and of the embedded server:
#     docker build --build-arg REVISION=$(git rev-parse HEAD) --tag ndr .
# On GPUs: --build-arg DEVICE=gpu. `docker run ndr ndr doctor` says whether all is in order.

# Debian 13: its C library is 2.41; ml-metadata and TFDV ask for 2.39 or later.
FROM debian:trixie-20260803-slim@sha256:3a39a0592364683e6bab97937b72cad5a8fa6dcbbee90edb3bb48c7f8e94f258 AS base
# hadolint ignore=DL3008 # the archive keeps no older version of a package, so that a pinned one would soon not be had
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libstdc++6 python3 \
    && rm -rf /var/lib/apt/lists/*

FROM base AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /build
WORKDIR /opt/ndr
COPY tools/installers.lock tools/
RUN /build/bin/pip install --no-cache-dir --require-hashes --requirement tools/installers.lock \
    && /build/bin/uv venv /opt/venv
COPY pyproject.toml requirements.lock requirements-gpu.lock ./
ARG DEVICE=cpu
# What the project needs, by the hashes of the lock; what only its developers need is left out.
RUN case "$DEVICE" in cpu) gpu= ;; gpu) gpu=--requirements=requirements-gpu.lock ;; *) echo "DEVICE: expected cpu or gpu, received $DEVICE" >&2; exit 1 ;; esac \
    && /build/bin/uv pip install --python /opt/venv/bin/python --no-cache --compile-bytecode \
        --require-hashes --no-deps --requirements requirements.lock $gpu
# The code lies as in a checkout: configurations are found by the same relative paths, and Beam's --setup_file is there.
COPY setup.py README.md LICENSE ./
COPY schemas schemas
COPY components components
COPY ndr_client ndr_client
COPY serving serving
COPY pipeline pipeline
RUN /build/bin/uv pip install --python /opt/venv/bin/python --offline --no-deps --no-build-isolation --editable . \
    && /opt/venv/bin/python -m compileall -q schemas components ndr_client serving pipeline

FROM base
# A number, so that Kubernetes can see that it is not root; /ndr is where a volume for the root goes.
RUN groupadd --gid 10001 ndr \
    && useradd --uid 10001 --gid 10001 --create-home ndr \
    && install --directory --owner=ndr --group=ndr /ndr
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/ndr /opt/ndr
ARG VERSION=0.1.0
ARG REVISION=unknown
# The commit is recorded with every run: here is no checkout that it could be read from.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NDR_COMMIT=$REVISION
LABEL org.opencontainers.image.title="ndr" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
USER 10001:10001
WORKDIR /opt/ndr
# No entry point: a step brings its own command, `python -m pipeline.run_node ...`, and a person `ndr ...`.
CMD ["ndr", "--help"]

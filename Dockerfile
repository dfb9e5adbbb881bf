# Three images from one file: --target operator | searcher | searcher-gpu
#
# Every dependency comes from uv.lock with its hash. What is installed depends on the exported requirements, not on
# pyproject.toml itself, and our own code is a layer of its own: an edit of either reuses the layers of dependencies.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# ---------------------------------------------------------------- tools and lists
FROM ${PYTHON_IMAGE} AS tools
RUN python3 -m venv /opt/tools
RUN --mount=type=cache,target=/root/.cache/pip /opt/tools/bin/pip install uv==0.13.8

FROM tools AS requirements
WORKDIR /lock
COPY pyproject.toml uv.lock ./
RUN set -eu; \
    for extra in operator searcher gpu; do \
      if [ "$extra" = operator ]; then text=; else text="--extra text"; fi; \
      /opt/tools/bin/uv export --quiet --frozen --no-dev --no-emit-project --no-header --extra "$extra" $text > "$extra.txt"; \
    done; \
    /opt/tools/bin/uv export --quiet --frozen --only-group build --no-header > build.txt

# ---------------------------------------------------------------- our own code, as /opt/app
FROM tools AS app
COPY --from=requirements /lock/build.txt /lock/
RUN --mount=type=cache,target=/root/.cache/pip /opt/tools/bin/pip install --require-hashes -r /lock/build.txt
WORKDIR /src
COPY pyproject.toml README.md ./
COPY client client
COPY operator operator
COPY plugin plugin
COPY searcher searcher
# The interpreter of the final images, so that the commands in /opt/app/bin name it.
RUN python3 -m venv --without-pip /opt/venv
RUN /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/tools/bin/pip --python /opt/venv/bin/python install --no-deps --no-index --target /opt/app /dist/*.whl

# ---------------------------------------------------------------- dependencies, as /opt/venv
FROM tools AS operator-deps
RUN python3 -m venv --without-pip /opt/venv
COPY --from=requirements /lock/operator.txt /lock/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/tools/bin/pip --python /opt/venv/bin/python install --require-hashes -r /lock/operator.txt

# Headers and other packages' tests are of no use in a pod.
FROM tools AS searcher-deps
RUN python3 -m venv --without-pip /opt/venv
COPY --from=requirements /lock/searcher.txt /lock/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/tools/bin/pip --python /opt/venv/bin/python install --require-hashes -r /lock/searcher.txt \
    && find /opt/venv/lib -type d \( -name tests -o -path '*/pyarrow/include' \) -prune -exec rm -rf {} +

FROM tools AS searcher-gpu-deps
RUN python3 -m venv --without-pip /opt/venv
COPY --from=requirements /lock/gpu.txt /lock/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/tools/bin/pip --python /opt/venv/bin/python install --require-hashes -r /lock/gpu.txt \
    && find /opt/venv/lib -type d \( -name tests -o -path '*/pyarrow/include' \) -prune -exec rm -rf {} +

# ---------------------------------------------------------------- what runs
FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/app/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
RUN echo 'vectorindex:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd && echo 'vectorindex:x:10001:' >> /etc/group
WORKDIR /tmp
USER 10001:10001

FROM runtime AS operator
COPY --from=operator-deps /opt/venv /opt/venv
COPY --from=app /opt/app /opt/app
LABEL org.opencontainers.image.title="vectorindex-operator" \
      org.opencontainers.image.description="Control plane: FAISS indexes as declared, versioned, verified deployments" \
      org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["vectorindex-operator"]
CMD ["run"]

# The first process of a container never gets a signal that it does not handle yet: one that comes while the interpreter
# starts waits, until cli/main.py lets it in.
FROM runtime AS searcher
COPY --from=searcher-deps /opt/venv /opt/venv
COPY --from=app /opt/app /opt/app
LABEL org.opencontainers.image.title="vectorindex-searcher" \
      org.opencontainers.image.description="Data plane: builds, proves and serves FAISS indexes" \
      org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["env", "--block-signal=TERM", "vectorindex-searcher"]

FROM runtime AS searcher-gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=searcher-gpu-deps /opt/venv /opt/venv
COPY --from=app /opt/app /opt/app
LABEL org.opencontainers.image.title="vectorindex-searcher-gpu" \
      org.opencontainers.image.description="Data plane with CUDA: builds FAISS indexes on a GPU" \
      org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["env", "--block-signal=TERM", "vectorindex-searcher"]

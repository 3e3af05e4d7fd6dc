# One image for every part; the command says which: scanherald listen, worker, beat, flower, metrics.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# Dependencies first: they change less often than our code.  Wheels only, each by its hash.
COPY deploy/image/ deploy/image/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary :all: \
        -r deploy/image/build.lock \
    && python -m venv --without-pip /opt/scanherald \
    && pip --python /opt/scanherald/bin/python install --require-hashes --only-binary :all: \
        -r deploy/image/requirements.lock
COPY . .
RUN /opt/build/bin/hatchling build -t wheel -d /wheel \
    && pip --python /opt/scanherald/bin/python install --no-deps --no-index /wheel/*.whl

FROM python:${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="scanherald" \
      org.opencontainers.image.description="Cookie scan events in, compliance reports and notifications out" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"
RUN groupadd --gid 10001 scanherald \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin scanherald \
    && install -d -m 0750 -o 10001 -g 10001 /var/lib/scanherald /run/scanherald
COPY --from=build /opt/scanherald /opt/scanherald
# The lock file beside what was installed from it, for whoever makes a bill of materials.
COPY deploy/image/requirements.lock /usr/share/scanherald/
# REMAP_SIGTERM: on SIGTERM a worker finishes what it can in 30 s and hands the rest back.
ENV PATH=/opt/scanherald/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REMAP_SIGTERM=SIGQUIT \
    SCANHERALD_DATA_DIR=/var/lib/scanherald \
    SCANHERALD_HEARTBEATS_DIR=/run/scanherald \
    SCANHERALD_LOG_FORMAT=json
USER 10001:10001
WORKDIR /var/lib/scanherald
STOPSIGNAL SIGTERM
ENTRYPOINT ["scanherald"]
CMD ["--help"]

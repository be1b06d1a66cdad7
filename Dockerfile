# HaRP in a container. `docker build -t harp .` needs nothing but the base image and PyPI.
#
# BASE may be any image with Python 3.11 or newer and its venv module, such as python:3.14-slim or a Debian of your own.
# Without PyPI: put wheels of everything in requirements.lock, and of hatchling, into ./wheels, and build with
# --build-arg PIP_ARGS="--no-index --find-links=/build/wheels".
# Traces: --build-arg EXTRAS=[otel].
# The compiled parts, for half the work per request: `make core` on a machine like BASE (the same Python, processor and C
# library), then `mkdir -p wheels && cp .cache/wheels/* wheels/`.

ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
ARG PIP_ARGS=""
ARG EXTRAS=""
WORKDIR /build
COPY . .
RUN set -e; \
    python3 -m venv /opt/harp; \
    for project in ./wheels/appapi_harp-*.whl .; do if [ -e "$project" ]; then break; fi; done; \
    PIP_CONSTRAINT=requirements.lock /opt/harp/bin/pip install --no-cache-dir --no-compile ${PIP_ARGS} "$project${EXTRAS}"; \
    for wheel in wheels/appapi_harp_core-*.whl; do \
        if [ -e "$wheel" ]; then /opt/harp/bin/pip install --no-cache-dir --no-compile --no-index --no-deps "$wheel"; fi; \
    done; \
    /opt/harp/bin/pip uninstall --yes --quiet setuptools pip; \
    find /opt/harp -type d -name tests -prune -exec rm -r {} +; \
    python3 -m compileall -q /opt/harp/lib; \
    /opt/harp/bin/harp version

FROM ${BASE}
LABEL org.opencontainers.image.title="HaRP" \
      org.opencontainers.image.description="The gateway that lets a Nextcloud run ExApps" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.5.0"
ENV PATH=/opt/harp/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/harp /opt/harp
COPY healthcheck.sh /healthcheck.sh
# The user for `docker run --user harp --group-add <group of docker.sock>`; a new volume on /certs is this user's.
# The default stays root: sockets and /certs directories of existing installations belong to it.
RUN echo "harp:x:65532:65532:harp:/run/harp:/bin/false" >>/etc/passwd \
    && echo "harp:x:65532:" >>/etc/group \
    && mkdir -p /certs /run/harp \
    && chown 65532:65532 /certs /run/harp \
    && chmod 755 /healthcheck.sh
VOLUME /certs
# HTTP, HTTPS (when /certs/cert.pem exists), tunnels
EXPOSE 8780 8781 8782
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --retries=9 CMD ["/healthcheck.sh"]
ENTRYPOINT ["harp"]
CMD ["run"]

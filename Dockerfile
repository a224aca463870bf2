# docker build -t nexoraldns .
# docker run -p 53:53/udp -p 53:53/tcp -p 127.0.0.1:8053:8053 -v ./rules.d:/etc/nexoraldns/rules.d:ro -v nexoraldns:/var/lib/nexoraldns nexoraldns
#
# `ci/docker-steps` runs these very lines in an empty Debian, where there is no container engine.

FROM debian:bookworm-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/nexoraldns
WORKDIR /src
COPY requirements-run.lock ./
RUN /opt/nexoraldns/bin/pip install --no-cache-dir --quiet --require-hashes -r requirements-run.lock
COPY . ./
ENV NEXORALDNS_REQUIRE_COMPILED=1
RUN /opt/nexoraldns/bin/pip install --no-cache-dir --quiet --no-deps --no-build-isolation . \
    && /opt/nexoraldns/bin/pip uninstall --quiet --yes pip setuptools wheel \
    && find /opt/nexoraldns -name __pycache__ -type d -prune -exec rm -rf {} + \
    && /opt/nexoraldns/bin/python -m compileall -q /opt/nexoraldns/lib

FROM debian:bookworm-slim
# git and openssh-client: rules from a repository.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git openssh-client python3 tzdata \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 5353 --home-dir /var/lib/nexoraldns --create-home nexoraldns \
    && mkdir -p /etc/nexoraldns
COPY --from=build /opt/nexoraldns /opt/nexoraldns
COPY ci/docker/node.yaml /etc/nexoraldns/node.yaml
COPY rules.d /etc/nexoraldns/rules.d
COPY schemas /etc/nexoraldns/schemas
ENV PATH=/opt/nexoraldns/bin:/usr/bin:/bin \
    NEXORALDNS_CONFIG=/etc/nexoraldns/node.yaml \
    PYTHONUNBUFFERED=1
# Never root. Docker and Podman let any user of a container bind port 53 (net.ipv4.ip_unprivileged_port_start=0);
# elsewhere give the container that sysctl, or listen on a port from 1024 up.
USER nexoraldns
WORKDIR /var/lib/nexoraldns
VOLUME /var/lib/nexoraldns
EXPOSE 53/udp 53/tcp 8053/tcp
STOPSIGNAL SIGTERM
# Ready means: a table is active on at least one node.
HEALTHCHECK --interval=15s --timeout=3s --start-period=20s \
    CMD ["/opt/nexoraldns/bin/python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8053/readyz', timeout=2)"]
ENTRYPOINT ["nexoraldns"]
CMD ["run"]

# kubenurse in an image: Python, kubenurse.py, checks/ and two pure-Python packages.
#
#   make image                                  # by docker or podman, whichever works
#   make image IMAGE_ARGS='--build-arg BASE=docker.io/library/python:3.13.7-alpine3.22'
#   docker buildx build --platform linux/amd64,linux/arm64,linux/arm/v7 .
#
# A base needs Python 3.11 or newer, with pip. The default base has glibc: most workloads have it, and the checks should
# resolve names as the workloads do. Only the build stage runs commands, on the builder's own platform. Its result is the
# same for every platform, so no emulation is needed.
ARG BASE=docker.io/library/python:3.13.7-slim-bookworm

FROM --platform=$BUILDPLATFORM ${BASE} AS build
COPY requirements.txt /
RUN python3 -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
      --require-hashes --no-deps --only-binary=:all: --no-compile --target /app -r /requirements.txt
COPY LICENSE kubenurse.py /app/
COPY checks /app/checks/
# Python uses this byte-code whatever the times of the files, so it compiles and writes nothing at run time.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app
# The command ignores Python settings in the environment, and skips the module site, which costs time and memory.
RUN mkdir /command && printf '#!%s -IBS\nimport sys\n\nsys.path.insert(0, "/app")\nfrom checks.early import heed_signals\n\nheed_signals()\nfrom kubenurse import main\n\nsys.exit(main())\n' \
      "$(command -v python3)" > /command/kubenurse && chmod 755 /command/kubenurse

# The platform is given although it is the default, because podman 4 would use the platform of the stage above.
FROM --platform=$TARGETPLATFORM ${BASE}
ARG BASE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kubenurse" \
      org.opencontainers.image.description="Checks the network paths of a Kubernetes cluster from every node" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
COPY --from=build /app /app
COPY --from=build /command /usr/local/bin
# The user is a number, so that Kubernetes can see that it is not root (runAsNonRoot). It owns no file.
USER 65532:65532
# One heap for all threads saves half a megabyte.
ENV MALLOC_ARENA_MAX=1
EXPOSE 8080 8443
STOPSIGNAL SIGTERM
# For docker and podman; Kubernetes uses probes instead. KUBENURSE_PORT can be tcp://..., from a Service named kubenurse.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s CMD ["python3", "-IBSc", "import http.client, os, sys\nport = os.environ.get('KUBENURSE_PORT', '')\nasked = http.client.HTTPConnection(os.environ.get('KUBENURSE_LISTEN_ADDRESS') or '127.0.0.1', int(port) if port.isdecimal() else 8080, timeout=4)\nasked.request('GET', '/alwayshappy')\nsys.exit(asked.getresponse().status != 200)"]
ENTRYPOINT ["/usr/local/bin/kubenurse"]

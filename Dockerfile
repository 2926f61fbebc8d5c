# kubenurse in an image: Python, kubenurse.py, checks/ and two pure-Python packages.
#
#   make image                                  # docker or podman, whichever works
#   make image IMAGE_ARGS='--build-arg BASE=docker.io/library/python:3.13.7-alpine3.22'
#   docker buildx build --platform linux/amd64,linux/arm64,linux/arm/v7 .
#
# Any base does that has Python 3.11 or newer, with pip. The default one has glibc, as most workloads have whose view of
# DNS the checks stand for. Only the build stage runs anything, on the builder's own platform, and what it makes is the
# same for every platform: no emulation is needed.
ARG BASE=docker.io/library/python:3.13.7-slim-bookworm

FROM --platform=$BUILDPLATFORM ${BASE} AS build
COPY requirements.txt /
RUN python3 -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
      --require-hashes --no-deps --only-binary=:all: --no-compile --target /app -r /requirements.txt
COPY LICENSE kubenurse.py /app/
COPY checks /app/checks/
# The byte-code is taken as it is, whatever the times of the files: nothing is compiled or written at run time.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app
# The command. Isolated from the environment's Python settings; without site, which costs time and memory at each start.
RUN mkdir /command && printf '#!%s -IBS\nimport sys\n\nsys.path.insert(0, "/app")\nfrom checks.early import heed_signals\n\nheed_signals()\nfrom kubenurse import main\n\nsys.exit(main())\n' \
      "$(command -v python3)" > /command/kubenurse && chmod 755 /command/kubenurse

# Said though it is the default: podman 4, for one, would go on with the platform of the stage above.
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
# A number, so that Kubernetes can see that it is not root (runAsNonRoot). It owns nothing: the root may be read-only.
USER 65532:65532
# One heap for all threads instead of one each: half a megabyte less.
ENV MALLOC_ARENA_MAX=1
EXPOSE 8080 8443
STOPSIGNAL SIGTERM
# For docker and podman; Kubernetes has probes instead. A value like tcp://... comes from a Service named kubenurse.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s CMD ["python3", "-IBSc", "import http.client, os, sys\nport = os.environ.get('KUBENURSE_PORT', '')\nasked = http.client.HTTPConnection(os.environ.get('KUBENURSE_LISTEN_ADDRESS') or '127.0.0.1', int(port) if port.isdecimal() else 8080, timeout=4)\nasked.request('GET', '/alwayshappy')\nsys.exit(asked.getresponse().status != 200)"]
ENTRYPOINT ["/usr/local/bin/kubenurse"]

# The wheel in dist/, made by `.ci/wheel x86_64-unknown-linux-gnu` or had from a release, on Debian 13:
#   docker build -t mergeplan .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" mergeplan merge config.yml out/
# `--build-arg EXTRAS='[eval,plot]'` adds extras (docs/install.md).
ARG BASE=debian:trixie-slim
FROM ${BASE}
ARG EXTRAS=
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY dist/*.whl /tmp/
RUN python3 -m venv /opt/mergeplan \
    && /opt/mergeplan/bin/pip install --no-cache-dir --only-binary :all: "$(echo /tmp/*.whl)${EXTRAS}" \
    && rm /tmp/*.whl
ENV PATH=/opt/mergeplan/bin:$PATH HOME=/tmp
WORKDIR /work
ENTRYPOINT ["mergeplan"]
CMD ["--help"]

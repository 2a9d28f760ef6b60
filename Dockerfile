# docker build -t flowcast . && docker run --rm -p 8080:8080 flowcast
#
# Own data: -v /path/to/data:/srv/flowcast/data:ro (or DATA_DIR). More than about 1,000 connections:
# --ulimit nofile=65536:65536. TLS and SCRAM towards Kafka: --build-arg FEATURES=kafka-ssl.

FROM rust:1.95-slim-trixie AS build
# librdkafka is C and is built here; OpenSSL, with the feature `kafka-ssl`, wants Perl.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ make perl \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# Only what the binary is made of, so that tests and docs do not rebuild it. The workspace's manifests
# want the sources of `loadtest` and the benches to be there, too.
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
COPY proto proto
COPY benches benches
COPY loadtest/Cargo.toml loadtest/build.rs loadtest/
COPY loadtest/src loadtest/src
COPY src src
ARG FEATURES=""
# Registry and build directory stay on the build host: after a change only our own code is compiled.
# The binary is copied out, since a cache mount is not part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --profile dist --locked --bin flowcast --features "$FEATURES" \
 && install -D target/dist/flowcast /out/flowcast

FROM debian:trixie-slim
RUN useradd --system --uid 10001 --home-dir /srv/flowcast --shell /usr/sbin/nologin flowcast
WORKDIR /srv/flowcast
COPY data data
COPY --from=build /out/flowcast /usr/local/bin/flowcast
USER 10001

# The default is the loopback interface, which no other container reaches.
ENV WS_BIND_ADDRESS=:8080
EXPOSE 8080
# Clients are told and the connections drained; `docker stop -t` should exceed
# WS_SHUTDOWN_TIMEOUT_SECONDS (10, which is also docker's own patience).
STOPSIGNAL SIGTERM
# bash speaks TCP by itself, so the image needs no HTTP client. 503 while loading or draining.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${WS_BIND_ADDRESS##*:} && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["flowcast"]
CMD ["serve"]

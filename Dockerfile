# Builds gradus from this folder with Debian's packages and cargo, and keeps the program alone.
#   docker build -t gradus .
#   docker run --rm gradus quickstart --out /tmp/run
#   docker run --rm -p 8080:8080 -v "$PWD:/data" gradus serve --index /data/photos.index --host 0.0.0.0
FROM debian:trixie-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev nasm rustup \
    && rm -rf /var/lib/apt/lists/*
# Debian's own cargo is older than Rust 1.95; its rustup fetches the one that is named here.
RUN rustup toolchain install 1.95.0 --profile minimal && rustup default 1.95.0
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package gradus-cli

FROM debian:trixie-slim
# Certificates for a Qdrant server over HTTPS and for `gradus data get`.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /source/target/release/gradus /usr/local/bin/gradus
RUN useradd --create-home gradus
USER gradus
WORKDIR /home/gradus
ENTRYPOINT ["gradus"]
CMD ["--help"]

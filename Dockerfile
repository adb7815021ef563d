# The images for people with Docker; `make images` writes the same ones without it. Tried by hand with buildah, by no test.
#
#   docker build --target controller -t docker.io/arpeggio/controller:0.2.0 .
#   docker build --target speaker -t docker.io/arpeggio/speaker:0.2.0 .
#   docker build --target forwarder -t docker.io/arpeggio/forwarder:0.2.0 .
#
# For other processors: docker buildx build --platform linux/arm64 ...; it then builds in an emulator.

FROM rust:1.95-bookworm AS build
ARG REVISION
WORKDIR /arpeggio
COPY . .
RUN make images REVISION="$REVISION" && mkdir /out \
    && cp target/*/release/arpeggio target/*/release/arpeggio-controller target/*/release/arpeggio-speaker \
       target/*/release/arpeggio-forwarder /out/ \
    && cp -r target/licences/* /out/licenses \
    && for image in controller speaker forwarder; do cp target/images/*/arpeggio-$image-*.cdx.json /out/$image.json; done

FROM scratch AS base
ARG REVISION=unknown
LABEL org.opencontainers.image.version=0.2.0 \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /out/licenses /licenses

FROM base AS controller
LABEL org.opencontainers.image.title="Arpeggio controller"
COPY --from=build /out/arpeggio-controller /
COPY --from=build /out/controller.json /sbom.json
USER 65532:65532
ENTRYPOINT ["/arpeggio-controller"]

FROM base AS speaker
LABEL org.opencontainers.image.title="Arpeggio speaker"
COPY --from=build /out/arpeggio-speaker /out/arpeggio /
COPY --from=build /out/speaker.json /sbom.json
# Kubernetes gives capabilities to uid 0 only, and the speaker needs one.
USER 0:0
ENTRYPOINT ["/arpeggio-speaker"]

FROM base AS forwarder
LABEL org.opencontainers.image.title="Arpeggio forwarder"
COPY --from=build /out/arpeggio-forwarder /
COPY --from=build /out/forwarder.json /sbom.json
# As above.
USER 0:0
ENTRYPOINT ["/arpeggio-forwarder"]

# A static server whose pages contain the build arguments of its image. .dockerignore excludes the folder of this file.
FROM busybox:1.37.0-musl AS pages
ARG COLOUR=none
ARG BASE=none
RUN mkdir -p /pages/api && touch /pages/health \
    && printf '%s\n' "$COLOUR, $BASE" > /pages/index.html && cp /pages/index.html /pages/api/index.html
COPY . /pages/context

FROM pages AS plain
USER 10001
ENTRYPOINT ["busybox", "httpd", "-f", "-h", "/pages"]
CMD ["-p", "8080"]

FROM pages
RUN echo marked > /pages/stage
USER 10001
ENTRYPOINT ["busybox", "httpd", "-f", "-h", "/pages"]
CMD ["-p", "8080"]

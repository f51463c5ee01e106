FROM python:3.13-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY provider provider
COPY migrations migrations
RUN pip wheel --no-cache-dir --wheel-dir /wheels -c constraints.txt .

FROM python:3.13-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-index --find-links /wheels durabletask-sql \
    && rm -r /wheels \
    && useradd --system --create-home --home-dir /data durabletask
USER durabletask
WORKDIR /data
EXPOSE 4001
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 4001), 2).close()"]
ENTRYPOINT ["durabletask-sql"]
CMD ["serve", "--listen", "0.0.0.0:4001"]

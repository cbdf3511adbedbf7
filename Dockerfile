# syntax=docker/dockerfile:1
# Built with the lock file; the second stage holds neither uv nor a compiler, and runs as a user without rights.
FROM python:3.11-slim AS build
RUN pip install --no-cache-dir "uv>=0.9,<1"
WORKDIR /app
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY src ./src
RUN uv sync --frozen --no-dev --no-editable --extra all

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /data casekeeper && install -d -o casekeeper -m 0700 /data
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH CASEKEEPER_DATA=/data CASEKEEPER_HOST=0.0.0.0
USER casekeeper
WORKDIR /data
VOLUME /data
EXPOSE 8377
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8377/readyz', timeout=2)"]
ENTRYPOINT ["casekeeper"]
CMD ["serve"]

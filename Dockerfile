# One image, many commands: web (the default), gateway, worker, beat, `django-admin bootstrap`. See docker-compose.yml.
FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python -m venv /opt/anumate
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY anumate anumate
COPY anumate_integration_service anumate_integration_service
COPY registry registry
COPY health health
COPY gateway gateway
COPY templates templates
RUN /opt/anumate/bin/pip install -c constraints.txt .

FROM python:3.11-slim
LABEL org.opencontainers.image.title="Anumate Integration Service" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --uid 10001 --create-home --home-dir /var/lib/anumate anumate
COPY --from=build /opt/anumate /opt/anumate
ENV PATH=/opt/anumate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=anumate.settings \
    ANUMATE_HOME=/var/lib/anumate/state
RUN mkdir /var/lib/anumate/state && chown anumate /var/lib/anumate/state
USER 10001
WORKDIR /var/lib/anumate
VOLUME /var/lib/anumate/state
EXPOSE 8090 8080
STOPSIGNAL SIGTERM

# The slim image has no curl; this is `curl -f http://localhost:8090/health`.
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://localhost:8090/health', timeout=8)"]

CMD ["gunicorn", "anumate_integration_service.app:app", \
     "--workers", "4", "--worker-class", "anumate.worker.WebWorker", \
     "--bind", "0.0.0.0:8090", "--no-control-socket"]

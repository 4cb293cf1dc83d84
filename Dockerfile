# Two images: `fleet` for workers, beat, Flower and the command line, and `local`, which has an S3 server and an
# endpoint as well. Versions of all packages are in compose/requirements*.txt.
ARG PYTHON_IMAGE=python:3.13.15-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_PYTHON=/opt/osml-tasks/bin/python
RUN python -m venv --without-pip /opt/osml-tasks
COPY compose/requirements.txt /source/compose/
RUN pip install --requirement /source/compose/requirements.txt
COPY pyproject.toml README.md LICENSE /source/
COPY osml_tasks /source/osml_tasks
RUN pip install --no-deps /source && pip check

FROM build AS build-local
COPY compose/requirements-local.txt /source/compose/
RUN pip install --requirement /source/compose/requirements-local.txt && pip check

FROM ${PYTHON_IMAGE} AS run
ENV PATH=/opt/osml-tasks/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=2 HOME=/tmp
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin osml \
    && install --directory --owner osml --group osml /data
COPY --chmod=0755 compose/entrypoint.sh /app/
COPY --chmod=0644 celeryconfig.py /app/
WORKDIR /app
USER osml
ENTRYPOINT ["/app/entrypoint.sh"]

FROM run AS local
COPY --from=build-local /opt/osml-tasks /opt/osml-tasks

FROM run AS fleet
COPY --from=build /opt/osml-tasks /opt/osml-tasks
CMD ["osml-tasks", "--help"]

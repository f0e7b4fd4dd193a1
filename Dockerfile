# The handlers and the migrations; PostgreSQL and NATS are servers of their own (compose.yaml).

FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements/build.txt requirements/run.txt requirements/
# The environment gets no pip of its own; the image's pip fills it from outside. Requirements
# come before the sources, so that a change to these leaves the layer alone.
RUN python -m venv --without-pip /opt/fleetbus \
    && pip install --no-cache-dir --only-binary=:all: --require-hashes -r requirements/build.txt \
    && pip --python /opt/fleetbus/bin/python install --no-cache-dir --only-binary=:all: \
        --require-hashes -r requirements/run.txt
COPY . .
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/fleetbus/bin/python install --no-cache-dir --no-deps dist/*.whl

FROM python:3.13-slim
RUN useradd --system --no-create-home --shell /usr/sbin/nologin fleetbus
COPY --from=build /opt/fleetbus /opt/fleetbus
ENV PATH=/opt/fleetbus/bin:$PATH PYTHONUNBUFFERED=1
USER fleetbus
ENTRYPOINT ["fleetbus"]
CMD ["serve"]

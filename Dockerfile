# The training container of the improvement loop (the last stage, `docker run IMAGE train`) and bidsim as a tool
# (`--target tool`). Debian's slim image: wheels for the C libraries need glibc. To pin the bytes too, append @sha256:...;
# none is given, because no registry was at hand to read it from.
FROM python:3.12.12-slim-bookworm AS build
ARG EXTRAS=lightgbm
# Compiles the loops over rows (bidsim/kernels); stays behind in this stage.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY .ci/image.txt .ci/image-build.txt ./.ci/
COPY bidsim ./bidsim
# All of it is checked by hash (x86-64), apart from what other EXTRAS than lightgbm add.
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement .ci/image-build.txt \
 && /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
 && python -m venv /opt/bidsim \
 && /opt/bidsim/bin/pip install --no-cache-dir --no-compile --require-hashes --requirement .ci/image.txt \
 && /opt/bidsim/bin/pip install --no-cache-dir --no-compile "$(echo /wheel/*.whl)[${EXTRAS}]" \
 && /opt/bidsim/bin/pip uninstall --yes pip

FROM python:3.12.12-slim-bookworm AS base
# LightGBM needs OpenMP; nothing else comes from Debian.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/bidsim /opt/bidsim
ENV PATH=/opt/bidsim/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TERM=dumb

FROM base AS tool
RUN useradd --create-home --uid 1000 bidsim
USER bidsim
WORKDIR /work
ENTRYPOINT ["bidsim"]

FROM base AS train
# Root, because SageMaker makes /opt/ml/model, /opt/ml/output and /opt/ml/checkpoints as root's: another user can't
# write the model or the reason of a failure there. Outside of it: docker run --user "$(id -u)" works where they are yours.
USER root
# Exec form without an init: the service's SIGTERM reaches bidsim itself, which saves the model on it.
ENTRYPOINT ["bidsim", "sagemaker"]
CMD ["train"]

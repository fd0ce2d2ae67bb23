# The pipeline's environment for a GPU box: docker build --tag skin-lesion .   docs/gpu-runner.md says how it is run.
#
# A plain Python image and not nvidia/cuda: torch's wheels in requirements.lock bring CUDA 13.0, cuDNN and NCCL themselves, and
# nothing here compiles CUDA, so that a CUDA image would only add a second copy that nothing loads. The driver comes from the host,
# by the NVIDIA container toolkit. The digest is that of the multi-platform index of the tag before it.
FROM python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# git and make for DVC and the Makefile; a C++ compiler for train.compile, on a GPU too; tini reaps what a killed DVC leaves behind.
# Unpinned on purpose: Debian keeps only the newest security fix of a release, so a pinned version cannot be built a month later.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git make openssh-client tini \
    && rm -rf /var/lib/apt/lists/*

# The user's number can be that of the workspace's owner: docker build --build-arg UID=$(id -u) --build-arg GID=$(id -g) ...
ARG UID=1000
ARG GID=1000
RUN groupadd --gid "$GID" pipeline \
    && useradd --uid "$UID" --gid "$GID" --create-home --shell /bin/bash pipeline \
    && install --directory --owner pipeline --group pipeline /opt/pipeline /workspace

USER ${UID}:${GID}
ENV PATH=/opt/pipeline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# Before any source, so that a changed line of code does not install torch anew. Nothing but what the hashes name gets in.
COPY --chown=pipeline:pipeline requirements.lock /opt/pipeline/requirements.lock
RUN python -m venv /opt/pipeline \
    && python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /opt/pipeline/requirements.lock

# The workspace is mounted, not copied: DVC needs its git repository, and its cache must outlive the container. A mounted folder of
# another owner would be refused by git, and rightly so: build with that owner's UID, or run with --user.
WORKDIR /workspace
ENTRYPOINT ["tini", "-g", "--"]
CMD ["dvc", "repro"]

# The learner, for a computer with an NVIDIA GPU and NVIDIA's container toolkit: docs/install.md, "In a container".
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/calql
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY configs configs
COPY agent agent
COPY envs envs
COPY robot_server robot_server
COPY tools tools
RUN pip install --no-cache-dir "$(sed -n 's/^\(uv==[0-9.]*\).*/\1/p' requirements.lock)" \
    && uv pip install --system --no-cache --constraint requirements.lock '.[learner]'

ENV HOME=/tmp CALQL_LINK=""
WORKDIR /work
EXPOSE 5555
HEALTHCHECK --interval=60s --timeout=45s --start-period=5m --retries=3 \
    CMD calql link --learner tcp://127.0.0.1:5555 $CALQL_LINK
ENTRYPOINT ["calql"]
CMD ["--help"]

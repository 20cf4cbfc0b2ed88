ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
# An extra index of wheels, such as PyTorch's CPU one; without it Linux gets torch with all of CUDA.
ARG TORCH_INDEX=
# What is installed beside the service itself, of the optional dependencies of pyproject.toml: a cluster needs ray too.
ARG EXTRAS=postgresql
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The dependencies come before the code, which changes more often.
COPY constraints.txt pyproject.toml ./
RUN pip install -q -c constraints.txt -U pip \
    && python -c "import tomllib as t; p = t.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *(r for e in '$EXTRAS'.split() for r in p['optional-dependencies'][e]), sep='\n')" \
        > requirements.txt \
    && pip install -q -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r requirements.txt
# Headers and tests stay behind. What is left is compiled here, since nothing can be written when it runs; torch has
# files that only later Pythons can read.
RUN cd /opt/venv/lib/python3*/site-packages \
    && rm -rf torch/include torch/share torch/test \
    && find torch -path 'torch/bin/*' -type f ! -name torch_shm_manager -delete \
    && find sympy networkx -type d -name tests -prune -exec rm -rf {} + \
    && (python -m compileall -qq -j 0 --invalidation-mode unchecked-hash . || true)
COPY README.md LICENSE ./
COPY service service
RUN pip install -q --no-deps --build-constraint constraints.txt . \
    && pip uninstall -q -y pip \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib/python3*/site-packages/service

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="lora-service" \
      org.opencontainers.image.description="LoRA as a service over HTTP" \
      org.opencontainers.image.licenses="MIT"
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN groupadd --gid 10001 lora \
    && useradd --uid 10001 --gid lora --no-create-home --shell /usr/sbin/nologin lora \
    && install -d -o lora -g lora /data
COPY --from=build /opt/venv /opt/venv
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Without ProxyHandler({}) a proxy from the environment would be asked.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", \
    "import os; from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open(f'http://127.0.0.1:{os.getenv(\"LORA_PORT\", 8000)}/readyz', timeout=4)"]
CMD ["lora", "serve", "--host", "0.0.0.0"]

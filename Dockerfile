# docker build -t dvsn . ; docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" dvsn train experiment=demo
# For a GPU: build with --build-arg TORCH=cu126 and run with --gpus all.
FROM python:3.12-slim

ARG TORCH=cpu
# Any user may be given: caches go to /tmp, and PyTorch asks for a name.
ENV PIP_NO_CACHE_DIR=1 NO_ALBUMENTATIONS_UPDATE=1 HOME=/tmp USER=user
RUN pip install torch torchvision --index-url "https://download.pytorch.org/whl/${TORCH}"

WORKDIR /opt/dvsn
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY dvsn dvsn
RUN pip install --compile '.[hub]'

RUN useradd user && mkdir --mode=777 /work
USER user
WORKDIR /work
ENTRYPOINT ["dvsn"]
CMD ["--help"]

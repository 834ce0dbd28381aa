# docker build -f docker/serve.Dockerfile -t dvsn-serve .
# docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD:/models:ro" dvsn-serve street=/models/pidnet.onnx
FROM python:3.12-slim

ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 NO_ALBUMENTATIONS_UPDATE=1
RUN pip install torch torchvision --index-url "https://download.pytorch.org/whl/${TORCH}"

WORKDIR /opt/dvsn
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY dvsn dvsn
RUN pip install --compile '.[serve,onnx,hub]' && useradd --create-home user

USER user
WORKDIR /models
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["dvsn", "serve", "host=0.0.0.0", "port=8000"]

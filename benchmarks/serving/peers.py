"""Other servers that answer the same numbers, each on a free port in an environment of its own."""

import json
import socket
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load import Request
from benchmarks.servers import answering, started

ENVIRONMENTS = Path(".venv/peers")

LAYER = """
import numpy as np
draw = np.random.default_rng(0)
W, b, A, B = (draw.standard_normal(shape, np.float32) for shape in ((10, 64), (10,), (4, 64), (10, 4)))

def forward(x):
    return x @ W.T + b + (x @ A.T) @ B.T
"""

UVICORN = """
import uvicorn

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("READY", "http://127.0.0.1:%d" % self.servers[0].sockets[0].getsockname()[1], flush=True)

Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False, lifespan="off")).run()
"""

# Nothing but the server: what is read is not looked at.
BARE = """
async def app(scope, receive, send):
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"20")]})
    await send({"type": "http.response.body", "body": b"x" * 20})
"""

STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def read(request):
    await request.body()
    return Response(b"x" * 20)

app = Starlette(routes=[Route("/models/{id}/forward", read, methods=["POST"])])
"""

# What one would write in ten lines.
FASTAPI = """
import torch
from fastapi import FastAPI
from pydantic import BaseModel

W, b, A, B = torch.randn(10, 64), torch.randn(10), torch.randn(4, 64), torch.randn(10, 4)
torch.set_num_threads(1)
app = FastAPI()

class Inputs(BaseModel):
    inputs: list[list[float]]

@app.post("/models/{id}/forward")
async def forward(id: str, body: Inputs):
    x = torch.tensor(body.inputs)
    with torch.inference_mode():
        y = x @ W.T + b + (x @ A.T) @ B.T
    return {"outputs": y.tolist()}
"""

LITSERVE = (
    """
import sys
import litserve
"""
    + LAYER
    + """
class Linear(litserve.LitAPI):
    def setup(self, device): pass
    def decode_request(self, request): return np.array(request["inputs"], dtype=np.float32)
    def predict(self, x): return forward(x)
    def encode_response(self, y): return {"outputs": y.tolist()}

if __name__ == "__main__":
    server = litserve.LitServer(Linear(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="error", generate_client_file=False)
"""
)

MLSERVER = (
    LAYER
    + """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Linear(MLModel):
    async def predict(self, payload):
        y = forward(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("outputs", y)])
"""
)


@contextmanager
def on_uvicorn(app: str) -> Iterator[Callable[[list[list[float]]], tuple[str, Request]]]:
    """A server of our own environment; given rows, its address and the request for them."""
    with started([sys.executable, "-c", app + UVICORN], "READY") as url:
        yield lambda rows: (url, Request("/models/x/forward", json.dumps({"inputs": rows}).encode()))


@contextmanager
def litserve() -> Iterator[Callable[[list[list[float]]], tuple[str, Request]]]:
    """LitServe with one worker."""
    python = environment("litserve", "litserve==0.2.19", "numpy")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "linear.py"
        script.write_text(LITSERVE)
        port = free_port()
        with answering([python, str(script), str(port)], f"http://127.0.0.1:{port}", "/health") as url:
            yield lambda rows: (url, Request("/predict", json.dumps({"inputs": rows}).encode()))


@contextmanager
def mlserver() -> Iterator[Callable[[list[list[float]]], tuple[str, Request]]]:
    """MLServer without workers of its own, which is how it is fastest here."""
    python = environment("mlserver", "mlserver==1.7.1", "numpy")
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
        Path(folder, "settings.json").write_text(
            json.dumps({**ports, "host": "127.0.0.1", "parallel_workers": 0, "debug": False})
        )
        Path(folder, "model-settings.json").write_text(json.dumps({"name": "m", "implementation": "linear.Linear"}))
        Path(folder, "linear.py").write_text(MLSERVER)
        command = [str(Path(python).with_name("mlserver")), "start", folder]

        def ask(rows: list[list[float]]) -> tuple[str, Request]:
            flat = [number for row in rows for number in row]
            tensor = {"name": "inputs", "shape": [len(rows), 64], "datatype": "FP32", "data": flat}
            return url, Request("/v2/models/m/infer", json.dumps({"inputs": [tensor]}).encode())

        with answering(command, f"http://127.0.0.1:{port}", "/v2/models/m/ready") as url:
            yield ask


def environment(name: str, *requirements: str) -> str:
    """The Python of an environment that holds a peer, made when it is not there yet."""
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements], check=True)
        (folder / "made").touch()
    return str(python.absolute())


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return int(some.getsockname()[1])


# By name, in the order of the table.
PEERS = {
    "bare ASGI": lambda: on_uvicorn(BARE),
    "a Starlette route that reads the body": lambda: on_uvicorn(STARLETTE),
    "plain FastAPI + pydantic": lambda: on_uvicorn(FASTAPI),
    "LitServe": litserve,
    "MLServer": mlserver,
}

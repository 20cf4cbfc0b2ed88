"""How much an engine may hold and do at a time."""

from dataclasses import dataclass, field

from service.serving.window import Window
from service.training.cost import MOMENTS_BYTES

MIB = 2**20


@dataclass(frozen=True)
class Capacity:
    """How much the engine may hold and do at a time; sizes in bytes."""

    memory_bytes: int = 4_096 * MIB
    layer_bytes: int = 1_024 * MIB
    train_bytes: int = 1_024 * MIB
    moments_bytes: int = MOMENTS_BYTES
    forward_bytes: int = 64 * MIB
    max_models: int = 10_000
    max_datasets: int = 1_000
    queue_max: int = 1_024
    key_queue_max: int | None = None
    keep_jobs: int = 10_000
    keep_versions: int = 5
    workers: int = 1
    worker_threads: int = 1
    together_max: int = 256
    states_bytes: int = 64 * MIB
    weights_bytes: int = 1_024 * MIB
    merged_bytes: int = 64 * MIB
    checkpoint_seconds: float = 5.0
    retries: int = 0
    window: Window = field(default_factory=Window)

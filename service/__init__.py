"""LoRA as a service: create low-rank adapters on frozen linear layers, train them and run them over HTTP."""

__version__ = "0.1.0"

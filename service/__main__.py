"""`python -m service` is the `lora` command."""

from service.cli import app

if __name__ == "__main__":
    app(prog_name="lora")

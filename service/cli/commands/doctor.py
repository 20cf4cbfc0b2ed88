"""`lora doctor`."""

from service.cli.calling import Place, calling


@calling
def doctor(at: Place) -> int:
    """Check what a service needs here, and the one at --url: each line is ok, warn or fail, with what to do.

    It ends with status 5 where a line says fail.

    Example:

    LORA_DATABASE_URL=sqlite:////data/lora.db lora doctor
    """
    from service.cli.doctor import examine

    return examine(at)

"""A training as the options of a command describe it."""

from collections.abc import Sequence
from typing import Any

from service.cli import rows
from service.cli.settings_given import gathered, value_of
from service.client import Client


def planned(
    client: Client,
    file: str | None,
    sets: Sequence[str],
    *,
    data: str | None,
    validation: str | None,
    patience: int | None = None,
    form: str | None = None,
    targets: list[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The plan of a training; rows that it learns from are sent before it where they are many.

    Raises:
        Refused: for a file that cannot be read, or settings that are none.
    """
    if data == "digits" and options.get("loss") is None and file is None:
        options["loss"] = "cross_entropy"  # the only loss that learns classes
    plan = gathered(file, options, ())
    loss = plan.get("loss", "mse")
    if data is not None:
        plan["data"] = rows.described(client, data, loss, form, targets)
    if validation is not None:
        share = value_of(validation)
        plan["validation"] = (
            share if isinstance(share, float) else rows.described(client, validation, loss, form, targets)
        )
    if patience is not None:
        plan["early_stopping"] = {"patience": patience}
    return gathered(None, plan, sets)

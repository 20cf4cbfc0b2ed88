"""A training as the options of a command describe it."""

from collections.abc import Sequence
from typing import Any

from service.cli import rows
from service.cli.settings_given import gathered, value_of
from service.cli.statuses import Refused
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
    plan = gathered(file, options, ())
    if data == "digits":
        plan.setdefault("loss", "cross_entropy")  # the only loss that learns classes
    loss = gathered(None, plan, sets).get("loss", "mse")
    if data is not None:
        plan["data"] = rows.described(client, data, loss, form, targets)
    if validation is not None:
        share = value_of(validation)
        plan["validation"] = (
            share if isinstance(share, float) else rows.described(client, validation, loss, form, targets)
        )
    if patience is not None:
        plan["early_stopping"] = {"patience": patience}
    plan = gathered(None, plan, sets)
    if odd := sorted(plan.keys() & {"model", "wait"}):  # of the client, and nothing that a training has
        raise Refused(f"--set {odd[0]} is nothing that a training has")
    return plan

"""What may go beside `combine`, and why all else may not."""

from collections.abc import Iterable

from service.errors import Fault, Validation

SCALING = "the scalings of the members are folded into A, and its own is 1"
REASONS = {
    "alpha": SCALING,
    "use_rslora": SCALING,
    "use_dora": "a sum is held by A and B alone",
    "init": "it begins as the sum of its members",
    "bias": "their base has one or has none",
    "train_bias": "it has a bias of its own where one of the members has",
    "layers": "only models of one layer add up",
    "seed": "nothing of a sum is drawn",
}


def must_go_beside_combine(settings: Iterable[str]) -> None:
    """Raise Validation for settings that a sum of models has from them."""
    wrong = [
        Fault(f"/{name}", f"{name} may not go beside combine: {REASONS[name]}") for name in settings if name in REASONS
    ]
    if wrong:
        raise Validation(wrong[0].detail, *wrong)

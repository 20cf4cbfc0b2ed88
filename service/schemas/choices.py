"""What is chosen by a word, each choice under the name that the OpenAPI page and what is made of it know it by."""

from typing import Literal

from typing_extensions import TypeAliasType

from service import bounds
from service.lora import spec
from service.training import digits, plan, sources

Init = TypeAliasType("Init", spec.Init)
Activation = TypeAliasType("Activation", spec.Activation)
Optimizer = TypeAliasType("Optimizer", plan.OptimizerName)
Loss = TypeAliasType("Loss", plan.LossName)
Schedule = TypeAliasType("Schedule", plan.ScheduleName)
Path = TypeAliasType("Path", plan.Path)
Split = TypeAliasType("Split", digits.Split)
Targets = TypeAliasType("Targets", sources.Targets)
Datatype = TypeAliasType(
    "Datatype",
    Literal["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"],
)
EventKind = TypeAliasType("EventKind", Literal["state", "epoch", "done"])
Origin = TypeAliasType("Origin", Literal["created", "training", "import", "rollback"])
NotFinite = TypeAliasType("NotFinite", bounds.NotFinite)
Order = TypeAliasType("Order", Literal["asc", "desc"])

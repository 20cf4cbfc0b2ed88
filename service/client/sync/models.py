"""Models: create, read, change and delete them; their versions, and what they change."""

from collections.abc import Iterator
from typing import Any

from service.client.calls import at, delete, get, ident, patch, post
from service.client.sync.connection import Connection
from service.schemas.analysis import Analysis
from service.schemas.answers import Base, Model, ModelPage
from service.schemas.training import RankProfile
from service.schemas.versions import Version, VersionPage


class Models:
    """What can be done with models."""

    _connection: Connection

    def create(self, **settings: Any) -> Model:
        """A new model; `settings` are the fields of `POST /models`, where bases and models may stand for their ids."""
        return self._connection.read(Model, post("/models", settings).once())

    def model(self, model: str | Model) -> Model:
        """The model as it is now."""
        return self._connection.read(Model, get(at("models", model)))

    def models(
        self, name: str | None = None, *, search: str | None = None, base_id: str | Base | None = None
    ) -> Iterator[Model]:
        """Every model, or those of this name, on this base, or whose name or id has a text in it, oldest first."""
        on = None if base_id is None else ident(base_id)
        return self._connection.pages(ModelPage, "/models", name=name, search=search, base_id=on)

    def update(self, model: str | Model, **notes: Any) -> Model:
        """The model with another `name` or `metadata`; None removes what there was."""
        return self._connection.read(Model, patch(at("models", model), notes))

    def delete(self, model: str | Model, *, force: bool = False) -> None:
        """Delete a model, with `force` also while it trains."""
        self._connection.send(delete(at("models", model), force=force))

    def versions(self, model: str | Model) -> list[Version]:
        """The versions of a model that are kept, newest first."""
        return (self._connection.read(VersionPage, get(at("models", model, "versions")))).items

    def roll_back(self, model: str | Model, version: int | None = None) -> Model:
        """The model with the weights of an earlier version, by default of the one before, as its next version."""
        return self._connection.read(Model, post(at("models", model, "rollback"), {"version": version}).once())

    def analysis(self, model: str | Model, beside: str | Model | None = None, layer: int = 0) -> Analysis:
        """What a model's change of the weight is like, also beside that of another model on its base."""
        other = None if beside is None else ident(beside)
        return self._connection.read(Analysis, get(at("models", model, "analysis"), layer=layer, **{"with": other}))

    def rank_profile(self, model: str | Model, data: Any) -> RankProfile:
        """The lowest loss that an adapter of each rank can have on the data, which is described as in a training."""
        return self._connection.read(RankProfile, post(at("models", model, "rank-profile"), {"data": data}))

"""Early stopping: keep the best parameters of every run, and know which run has waited long enough for better ones."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from service.training.arrays import Array, Backend
from service.training.plan import EarlyStopping

FACTS = ("best_loss", "best_epoch", "waited")


class Watch:
    """The best so far of each run: `best` (runs, numbers), and (runs,) its loss, its epoch, and the epochs since."""

    def __init__(self, backend: Backend, parameters: Array, early_stopping: EarlyStopping) -> None:
        self._backend, self._settings = backend, early_stopping
        self.best = backend.copied(parameters)
        self.best_loss = np.full(len(parameters), np.inf)
        self.best_epoch = np.zeros(len(parameters))
        self.waited = np.zeros(len(parameters))

    @property
    def patient_no_more(self) -> NDArray[np.bool_]:
        """Which runs have waited too long."""
        waited: NDArray[np.bool_] = self.waited >= self._settings.patience
        return waited

    def see(self, epoch: int, losses: NDArray[np.float64], parameters: Array) -> NDArray[np.bool_]:
        """Take in the losses (runs,) of parameters that `epoch` epochs have made; which runs have waited too long."""
        better = self.better(losses)
        self.keep(better, epoch, losses, parameters)
        self.waited = np.where(better, 0, self.waited + 1)
        return self.patient_no_more

    def better(self, losses: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which losses (runs,) are better than the best by `min_delta`."""
        better: NDArray[np.bool_] = losses < self.best_loss - self._settings.min_delta
        return better

    def keep(self, better: NDArray[np.bool_], epoch: int, losses: NDArray[np.float64], parameters: Array) -> None:
        """Take these parameters for the best of some runs."""
        which = self._backend.of(better, "bool")
        self.best[which] = parameters[which]
        self.best_loss = np.where(better, losses, self.best_loss)
        self.best_epoch = np.where(better, epoch, self.best_epoch)

    def facts(self, run: int) -> dict[str, float]:
        """What is known of a run, as numbers."""
        return {name: float(getattr(self, name)[run]) for name in FACTS}

    def resume(self, run: int, facts: Mapping[str, float]) -> None:
        """Go on from what `facts` told."""
        for name in FACTS:
            getattr(self, name)[run] = facts[name]

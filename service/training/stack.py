"""Runs of equal shape side by side: one step moves the adapters of all of them."""

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.lora import optimum
from service.lora.init import stream
from service.training.adapters import Adapters
from service.training.arrays import FLOAT32_MAX, Array, Backend, backend_of
from service.training.cost import step_cost
from service.training.datasets import drawn
from service.training.lesson import Fitted, Lesson
from service.training.moments import ByMoments, problem
from service.training.objectives import objectives
from service.training.optimizers import OPTIMIZERS, Optimizer
from service.training.plan import Path
from service.training.rows import Draws
from service.training.schedules import factor
from service.training.state import State
from service.training.watch import Watch

CLIP_EPS = 1e-6  # as in torch.nn.utils.clip_grad_norm_
BURST_EPOCHS = 64
BURST_MULTIPLICATIONS = 2**24  # some milliseconds
SAFE_SQUARES = 1e37  # squares that add up to less are those of numbers that float32 holds

Flags = NDArray[np.bool_]
Numbers = NDArray[np.float64]


class Stack:
    """The runs of lessons that are alike, by one path.

    `late` are those that this path cannot bring to their end, from where they stand. Of the last epoch, `diverged` and
    `stopped` are the runs that it ended; `latest` has what has just entered the curves, (epochs, runs).
    """

    def __init__(self, lessons: Sequence[Lesson], path: Path, burst: int = 1) -> None:
        self.lessons, self.path, self.plan = lessons, path, lessons[0].plan
        self.backend: Backend = backend_of(lessons[0].layer.layers[0].weight)
        self.adapters = Adapters(
            self.backend, [lesson.layer for lesson in lessons], "float64" if path == "moments" else "float32"
        )
        seeds = [drawn(lesson.plan.seed) for lesson in lessons]
        self._draws = [Draws(stream(seed, "order"), stream(seed, "dropout")) for seed in seeds]
        self.alive = np.ones(len(lessons), dtype=bool)
        self.diverged = self.stopped = ~self.alive
        self._leaving = ~self.alive
        self.late: list[tuple[int, State]] = []
        self.epochs_done, self._over = 0, False
        self._careful_until = 0
        cost = len(lessons) * step_cost(self.plan, lessons[0].layer)
        self._burst_epochs = min(burst, BURST_MULTIPLICATIONS // cost)
        self.curves: dict[str, Numbers] = {}
        self.latest: dict[str, Numbers] = {}
        self._has_rows = np.array([lesson.has_rows for lesson in lessons])
        self._objective, self._validation, self.residuals = objectives(self.adapters, lessons, path, self._draws)
        self._optimizer: Optimizer | None = None
        if self.plan.optimizer in OPTIMIZERS:
            self._optimizer = OPTIMIZERS[self.plan.optimizer](self.backend, self.adapters.parameters, self.plan)
            self._rates = self._learning_rates()
        early = self.plan.early_stopping
        self._watch = None if early is None else Watch(self.backend, self.adapters.parameters, early)
        # Of one full batch, an epoch's loss belongs to the weights before its update.
        self._looks_back = self._validation is None and self.plan.batch_size is None
        # With dropout that loss is of other layers than the trained one, so their last look has nothing to say here.
        self._compares = self._looks_back and not any(lesson.dropout for lesson in lessons)
        for run, lesson in enumerate(lessons):
            if lesson.state is not None:
                self._resume(run, lesson.state)
        if self._watch is not None:
            self.stopped = self._watch.patient_no_more

    @property
    def alive(self) -> Flags:
        """Which runs still train; `places` are their numbers."""
        return self._alive

    @alive.setter
    def alive(self, alive: Flags) -> None:
        self._alive = alive
        self.places: list[int] = np.flatnonzero(alive).tolist()

    @property
    def goes_on(self) -> bool:
        """Whether there is another epoch to train."""
        return bool(self.places) and self.epochs_done < (self.plan.epochs or 1) and not self._over

    def epochs(self) -> Generator[None, None, bool]:
        """Train one epoch or a burst of them, and return whether that was the last of any run.

        Yields after each step or burst, and after each piece of a look at the validation data.
        """
        count = self._burst()
        if count > 1:
            went_well = self._trained_in_a_burst(count)
            yield None
            if went_well:
                return False
        return (yield from self._epoch())

    def _burst(self) -> int:
        """How many epochs may be trained before anyone looks: short ones, of which only the losses are to be told."""
        if self._watch is not None or self._validation is not None or self._optimizer is None:
            return 1
        if not isinstance(self._objective, ByMoments) or self.epochs_done < self._careful_until:
            return 1
        return max(1, min(self._burst_epochs, (self.plan.epochs or 1) - self.epochs_done))

    def _trained_in_a_burst(self, count: int) -> bool:
        """Train some epochs, and take all of them back where one of them would have ended a run."""
        assert self._optimizer is not None, "closed_form takes one epoch"
        assert isinstance(self._objective, ByMoments), "rows are trained an epoch at a time"
        before = [self.backend.copied(array) for array in self._moving()]
        block = self.backend.zeros(count, len(self.lessons), dtype="float64")
        for number in range(count):
            block[number] = self._objective.losses()
            self._step(self._optimizer, self.epochs_done + number)
        all_losses = np.maximum(self.backend.cpu(block), 0)
        if self._lost(self._objective.lost(block).any(0)) is None and self._finite(all_losses) is None:
            self._curve("losses")[:, self.epochs_done : self.epochs_done + count] = all_losses.T
            self.latest = {"losses": all_losses}
            self.epochs_done += count
            return True
        for array, earlier in zip(self._moving(), before, strict=True):
            array[...] = earlier
        self._optimizer.steps -= count
        self._careful_until = self.epochs_done + count
        return False

    def _moving(self) -> list[Array]:
        """What a step changes."""
        memory = {} if self._optimizer is None else self._optimizer.memory
        return [self.adapters.parameters, *memory.values()]

    def _epoch(self) -> Generator[None, None, bool]:
        self._part(self._leaving)
        looks_back = self._watch is not None and self._looks_back
        before = self.backend.copied(self.adapters.parameters) if looks_back else self.adapters.parameters
        total: Array = 0.0
        for number, losses in enumerate(self._objective.epoch()):
            total = total + losses
            if self._optimizer is None:
                self._solve()
            else:
                self._part(self._lost(self._objective.lost(losses)))
                self._step(self._optimizer, self.epochs_done * self._objective.steps + number)
            yield None
        self.epochs_done += 1
        self.diverged = np.zeros_like(self.alive)
        losses = self._recorded("losses", total)
        ended = self._lose(self._finite(losses))
        self._recorded("accuracies", self._objective.accuracy)
        if self._validation is not None:
            measured = yield from self._validation.measure()
            losses = self._recorded("validation_losses", measured)
            ended |= self._lose(self._finite(losses))
            leaving = self._lost(self._validation.lost(measured))
            self._leaving = np.zeros_like(self.alive) if leaving is None else leaving
            self._recorded("validation_accuracies", self._validation.accuracy)
        if self._watch is not None:
            self.stopped = self.alive & self._watch.see(self.epochs_done - looks_back, losses, before)
            self._leaving &= ~self.stopped
        return ended or self._watch is not None

    def finish(self, which: Flags) -> Generator[None, None, list[Fitted]]:
        """What becomes of some runs, whose last epoch this was; they are alive no longer."""
        parameters = self.adapters.parameters
        if self._watch is not None and not self._over:
            if self._compares:
                last = self.backend.cpu((yield from self._objective.measure()))
                self._watch.keep(which & self._watch.better(last), self.epochs_done, last, parameters)
            chosen = self.backend.of(which, "bool")
            parameters[chosen] = self._watch.best[chosen]
        exact = self.backend.copied(parameters)
        parameters[...] = self.backend.of(self.backend.cpu(parameters).astype("float32"), self.adapters.dtype)
        metrics = yield from self._looked(which)
        which = which & self.alive
        self.alive = self.alive & ~which
        looks = [metrics[name] for name in ("final_loss", "validation_loss") if name in metrics]
        self.diverged = which & ~np.all([look <= FLOAT32_MAX for look in looks], axis=0)
        layers = {run: self.adapters.learned(run) for run in np.flatnonzero(which & ~self.diverged).tolist()}
        parameters[...] = exact
        return [
            Fitted(run, layer, self.state(run), {name: numbers[run].item() for name, numbers in metrics.items()})
            for run, layer in layers.items()
        ]

    def _looked(self, which: Flags) -> Generator[None, None, dict[str, NDArray[Any]]]:
        """The last look at the data: figures of every run (runs,)."""
        measured = yield from self._objective.measure()
        self._part(self._lost(self._objective.lost(measured)), which, over=True)
        metrics: dict[str, NDArray[Any]] = {"final_loss": np.maximum(self.backend.cpu(measured), 0)}
        if self._objective.accuracy is not None:
            metrics["accuracy"] = self.backend.cpu(self._objective.accuracy)
        if self._validation is not None:
            measured = yield from self._validation.measure()
            self._part(self._lost(self._validation.lost(measured)), which, over=True)
            metrics["validation_loss"] = np.maximum(self.backend.cpu(measured), 0)
            if self._validation.accuracy is not None:
                metrics["validation_accuracy"] = self.backend.cpu(self._validation.accuracy)
        if self._watch is not None:
            metrics["best_epoch"] = self._watch.best_epoch.astype(np.int64)
        return metrics

    def state(self, run: int, over: bool = False) -> State:
        """A run as it stands between two epochs."""
        arrays = {"parameters": self.backend.cpu(self.adapters.parameters[run])}
        memory = {} if self._optimizer is None else self._optimizer.memory
        arrays |= {f"memory.{name}": self.backend.cpu(numbers[run]) for name, numbers in memory.items()}
        if self.plan.batch_size is not None:
            arrays["order"] = self._draws[run].order.get_state().numpy()
        if self.lessons[run].dropout:
            arrays["masks"] = self._draws[run].masks.get_state().numpy()
        arrays |= {f"curves.{name}": curve[run, : self.epochs_done].copy() for name, curve in self.curves.items()}
        if self._watch is not None:
            arrays["best"] = self.backend.cpu(self._watch.best[run])
        return State(
            path="batch" if self._leaving[run] else self.path,
            epoch=self.epochs_done,
            steps=0 if self._optimizer is None else self._optimizer.steps,
            arrays=arrays,
            watched={} if self._watch is None else self._watch.facts(run),
            over=over,
        )

    def _resume(self, run: int, state: State) -> None:
        of = self.backend.of
        self.adapters.parameters[run] = of(state.arrays["parameters"], self.adapters.dtype)
        if self._optimizer is not None:
            self._optimizer.steps = state.steps
            for name, numbers in self._optimizer.memory.items():
                numbers[run] = of(state.arrays[f"memory.{name}"], self.adapters.dtype)
        for name, draw in (("order", self._draws[run].order), ("masks", self._draws[run].masks)):
            if name in state.arrays:
                draw.set_state(torch.from_numpy(np.array(state.arrays[name])))
        for name, numbers in state.arrays.items():
            kind, _, curve = name.partition(".")
            if kind == "curves":
                self._curve(curve)[run, : state.epoch] = numbers
        if self._watch is not None and "best" in state.arrays:
            self._watch.best[run] = of(state.arrays["best"], self.adapters.dtype)
            self._watch.resume(run, state.watched)
        self.epochs_done, self._over = state.epoch, state.over

    def _learning_rates(self) -> Array:
        """(runs, 1), or (runs, numbers) where all but A have a rate of their own (LoRA+, arXiv:2402.12354)."""
        rates = self.backend.of([[lesson.plan.lr] for lesson in self.lessons], self.adapters.dtype)
        ratio = self.plan.lr_b_ratio or 1.0
        return (
            rates
            if ratio == 1
            else rates * self.adapters.spread({"A": 1.0, "B": ratio, "own_bias": ratio, "magnitude": ratio})
        )

    def _step(self, optimizer: Optimizer, number: int) -> None:
        """One step with the gradient that is written, the `number`-th of the run."""
        parameters, gradient, rates = self.adapters.parameters, self.adapters.gradient, self._rates
        plan: Any = self.plan
        if plan.max_grad_norm is not None:
            norms = self.backend.xp.sqrt(self.backend.xp.einsum("jn,jn->j", gradient, gradient))
            gradient *= self.backend.xp.clip(plan.max_grad_norm / (norms + CLIP_EPS), None, 1)[:, None]
        if plan.schedule != "constant" or plan.warmup_epochs:
            steps = self._objective.steps
            rates = rates * factor(plan.schedule, number, plan.epochs * steps, plan.warmup_epochs * steps)
        optimizer.step(parameters, gradient, rates)

    def _solve(self) -> None:
        """Put every run at its optimum."""
        (part,) = self.adapters.parts
        for run, (known, layer) in enumerate(zip(self.residuals, part.layers, strict=True)):
            free = layer.own_bias is not None
            xx, xt, mean, _ = problem(known, bias_is_free=free)
            A, B = optimum.best(xx, xt, layer.rank, mean)
            solved = {"A": A, "B": B / layer.scaling}
            if free:
                solved["own_bias"] = torch.as_tensor(known.gap) - B @ (A @ torch.as_tensor(known.x_mean))
            for name, tensor in solved.items():
                part.of[name][run] = self.backend.array(tensor)

    def _lost(self, lost: Array | None) -> Flags | None:
        """Which runs' losses have lost their digits, where there are rows to go on with; None where none has."""
        if lost is None or not lost.any():
            return None
        flags: Flags = self.backend.cpu(lost) & self._has_rows & self.alive
        return flags if flags.any() else None

    def _part(self, lost: Flags | None, which: Flags | None = None, over: bool = False) -> None:
        """Take runs out, as they stand."""
        if lost is None or not lost.any():
            return
        parting = lost & self.alive if which is None else lost & self.alive & which
        self.late += [(run, self.state(run, over)) for run in np.flatnonzero(parting).tolist()]
        self.alive = self.alive & ~parting

    def _finite(self, losses: Numbers) -> Flags | None:
        """Which runs have losses (…, runs) and parameters that are all finite as float32; None where all have."""
        parameters, xp = self.adapters.parameters, self.backend.xp
        squares = self.backend.cpu(xp.matmul(parameters[:, None], parameters[:, :, None]))
        if max(float(losses.max()), float(squares.max())) < SAFE_SQUARES:  # a NaN is not below anything
            return None
        largest = self.backend.cpu(xp.amax(xp.abs(parameters), axis=1))
        finite: Flags = (losses.reshape(-1, len(self.lessons)) <= FLOAT32_MAX).all(0) & (largest <= FLOAT32_MAX)
        return None if finite[self.places].all() else finite

    def _lose(self, finite: Flags | None) -> bool:
        """Take those runs out whose numbers are no longer finite; whether there are any."""
        if finite is None:
            return False
        self.diverged = self.diverged | (self.alive & ~finite)
        self.alive = self.alive & finite
        return True

    def _curve(self, name: str) -> Numbers:
        if name not in self.curves:
            self.curves[name] = np.full((len(self.lessons), self.plan.epochs or 1), np.nan)
        return self.curves[name]

    def _recorded(self, name: str, numbers: Array | None) -> Numbers:
        """The numbers of the epoch just done, as they enter their curve; a loss is never below 0."""
        if numbers is None:
            return np.empty(0)
        on_cpu: Numbers = np.maximum(self.backend.cpu(numbers), 0)
        self._curve(name)[:, self.epochs_done - 1] = on_cpu
        self.latest[name] = on_cpu[None]
        return on_cpu

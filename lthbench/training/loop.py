"""The training loop: flat, one screen, and the same bits wherever it is stopped and resumed.

What is pruned stays zero because its gradient is: the start and its optimiser state are masked once, then
gradients are multiplied by the mask after every backward pass. Zero weight, zero gradient, zero momentum is
a fixed point of SGD, Adam and AdamW, with weight decay too, so neither weights nor moments need a second
multiplication (and gradient clipping sees only what is trained).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from lthbench.base.seeds import derive
from lthbench.data.stream import Stream
from lthbench.training.checkpoint import Checkpoint, Tensors, part
from lthbench.training.recipe import Recipe
from lthbench.training.teacher import Teacher


class Dynamics(Protocol):
    """A mask that changes while the network under it is trained: what the loop lets it do in step `step`.

    Whatever it draws is a function of the step, and what it must remember is in the weights, the mask and `tensors()`:
    a run may stop after any step. `over`: it has found what it was looking for, and the run ends here. `news`: what
    there is to tell, by step, until somebody takes it.
    """

    over: bool
    news: dict[int, dict[str, Any]]

    def before(self, step: int) -> None:
        """Put the weights in place that the network computes with."""

    def saw(self, logits: Tensor, labels: Tensor) -> None:
        """Look at what the network made of the batch."""

    def backward(self, step: int) -> bool:
        """Make of their gradients those that the optimiser sees; False: it leaves this step out."""

    def updated(self, step: int) -> None:
        """The optimiser, unless it was left out, has moved the weights."""

    def rest(self, step: int) -> None:
        """Training pauses after `step` steps: the network and the run's mask become what is handed over."""

    def tensors(self) -> Tensors:
        """What it goes on with besides weights and mask, by name."""


class Trajectory:
    """A training run in motion: `run(until)`, then ask for its `checkpoint()` or `moments()`.

    Steps are counted on the dense schedule: a run that is at `step`, having begun at `first`, draws the batches
    and learning rates of that position. `moments` holds the optimiser state to go on with; empty: a fresh one.
    `dynamics` makes what changes the mask on the way; without it the start's mask stays. `teacher`, on the device, has
    a share in the loss. `length`: how many steps it takes at most, for dynamics that ask.
    """

    def __init__(
        self,
        start: Checkpoint,
        moments: Tensors,
        recipe: Recipe,
        stream: Stream,
        step: int,
        first: int = 0,
        device: str = "cpu",
        dynamics: Callable[[Trajectory], Dynamics] | None = None,
        teacher: Teacher | None = None,
        length: int = 0,
    ) -> None:
        self.model, self.recipe, self.stream, self.step, self.first = start.model, recipe, stream, step, first
        self.device, self.diverged_at, self.teacher, self.length = device, start.diverged_at, teacher, length
        self.mask = {k: v.to(device) for k, v in start.mask.items()}
        self.net = start.network().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parameters = dict(self.net.named_parameters())
        self._masked = [parameters[name] for name in self.mask]
        self._masks = [like(parameters[name], kept) for name, kept in self.mask.items()]
        self.optimizer = optimizer_of(self.net.parameters(), recipe)
        self._update = Update(self.optimizer, recipe)
        self._penalised: list[Tensor] = self.optimizer.param_groups[0]["params"]  # what weight decay acts on
        self._scales: list[Tensor] = [
            m.weight for m in self.net.modules() if isinstance(m, _BatchNorm) and m.weight is not None
        ]
        self._forward: Any = torch.compile(self.net) if recipe.compile else self.net
        self._scaler = torch.amp.GradScaler(torch.device(device).type) if recipe.precision == "fp16" else None
        if self._scaler and "scale" in moments:
            self._scaler.load_state_dict(
                self._scaler.state_dict()
                | {"scale": moments["scale"].item(), "_growth_tracker": int(moments["growth"].item())}
            )
        self._loss = moments.get("loss", torch.zeros(())).to(device, copy=True)  # summed since the epoch began
        with torch.no_grad():
            for name, parameter in parameters.items():
                for key, value in part(moments, name).items():
                    state = self.optimizer.state[parameter][key].copy_(value)
                    if name in self.mask and value.dim() and not dynamics:  # which masks its own
                        state.mul_(self.mask[name])
        self.dynamics = dynamics(self) if dynamics else None

    def run(self, until: int) -> None:
        """Train until `until` steps are done."""
        # moments that die out are 0 sooner: 1.3x on MNIST's LeNet, the same weights; a state of each thread
        torch.set_flush_denormal(torch.get_num_threads() == 1)
        generator = torch.get_rng_state()
        try:
            self._run(until)
        finally:
            torch.set_flush_denormal(False)
            torch.set_rng_state(generator)

    def _run(self, until: int) -> None:
        """The loop. Nothing in here waits for the device."""
        net, recipe, optimizer, stream = self.net, self.recipe, self.optimizer, self.stream
        forward, scaler, update, dynamics = self._forward, self._scaler, self._update, self.dynamics
        teacher = self.teacher
        on_gpu = torch.device(self.device).type == "cuda"
        cast: Any = nullcontext()
        if recipe.precision != "float32":
            half = torch.bfloat16 if recipe.precision == "bf16" else torch.float16
            cast = torch.autocast(torch.device(self.device).type, dtype=half)
        moves = True
        net.train()
        for step in range(self.step, until):
            if dynamics and dynamics.over:
                break
            if step % stream.steps_per_epoch == 0:
                self._loss = torch.zeros((), device=self.device)
            seed = derive(stream.seed, "dropout", *stream.index, step)  # for whatever in the network draws
            torch.default_generator.manual_seed(seed)
            if on_gpu:
                torch.cuda.manual_seed(seed)
            lr = recipe.lr_at(step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            x, y = stream.batch(step)
            if dynamics:
                dynamics.before(step)
            with cast:
                logits = forward(x)
                loss = F.cross_entropy(logits, y, label_smoothing=recipe.label_smoothing)
                if teacher:
                    loss = teacher(loss, logits, x)
            if dynamics:
                dynamics.saw(logits, y)
            for parameter in update.parameters:
                parameter.grad = None
            (scaler.scale(loss) if scaler else loss).backward()
            if recipe.l1:
                _penalise(self._penalised, recipe.l1)
            if recipe.l1_scales:
                _penalise(self._scales, recipe.l1_scales)
            if dynamics:
                moves = dynamics.backward(step)
            elif self._masks:
                torch._foreach_mul_([p.grad for p in self._masked], self._masks)  # type: ignore[misc,arg-type]
            if recipe.clip:
                if scaler:
                    scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
            if scaler:
                scaler.step(optimizer)  # leaves the step out where gradients overflowed; it counts all the same
                scaler.update()
            elif moves:
                update()
            if dynamics:
                dynamics.updated(step)
            self._loss += loss.detach()
        self.step = max(self.step, until)
        if dynamics:
            dynamics.rest(self.step)

    @property
    def over(self) -> bool:
        """Whether it goes no further, however long it is asked to run."""
        return self.diverged_at is not None or (self.dynamics is not None and self.dynamics.over)

    def epoch_loss(self) -> float:
        """Mean training loss of the current epoch so far (of the last one at its end)."""
        done = min((self.step - 1) % self.stream.steps_per_epoch + 1, self.step - self.first)
        return self._loss.item() / done

    def check(self) -> None:
        """Note divergence; asked at the ends of epochs only, so that it depends on nothing but the run."""
        if self.diverged_at is None and not math.isfinite(self._loss.item()):
            self.diverged_at = self.step

    def checkpoint(self, copy: bool = True) -> Checkpoint:
        """Weights, buffers and mask at the present step; without `copy`, good until the next one."""
        return Checkpoint.of(self.model, self.net, self.mask, self.diverged_at, copy)

    def moments(self, copy: bool = True) -> Tensors:
        """The optimiser's state by parameter name, and the loss summed since the epoch began; `copy` as above."""
        names = {parameter: name for name, parameter in self.net.named_parameters()}
        tensors = {"loss": self._loss}
        for parameter, state in self.optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"{names[parameter]}/{key}"] = value  # type: ignore[index]
        if self._scaler:
            state = self._scaler.state_dict()
            tensors |= {"scale": torch.tensor(state["scale"]), "growth": torch.tensor(state["_growth_tracker"])}
        if self.dynamics:
            tensors |= {f"x/{name}": tensor for name, tensor in self.dynamics.tensors().items()}
        return {name: tensor.detach().to("cpu", copy=copy) for name, tensor in tensors.items()}


class Update:
    """The optimiser's own fused kernel on tensors gathered once: the same bits as `optimizer.step()`.

    What that does besides, step after step (looking for its tensors, grouping them, hooks), takes 0.1 ms: a fourteenth
    of a step of MNIST's LeNet. The optimiser's state lives in the optimiser, from the start on.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe) -> None:
        self.optimizer, self.recipe = optimizer, recipe
        self.parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        adam = recipe.optimizer != "sgd"
        names = ["exp_avg", "exp_avg_sq"] if adam else ["momentum_buffer"] if recipe.momentum else []
        for p in self.parameters:
            optimizer.state[p] = {name: torch.zeros_like(p) for name in names}
            if adam:
                optimizer.state[p]["step"] = torch.zeros((), device=p.device)
        self._groups = []
        for group in optimizer.param_groups:
            states = [optimizer.state[p] for p in group["params"]]
            steps = [state["step"] for state in states] if adam else []
            self._groups.append((group, [[state[name] for state in states] for name in names], steps))

    @torch.no_grad()
    def __call__(self) -> None:
        """One step from the gradients that are there."""
        if any(p.grad is None for p in self.parameters):  # what this step did not use stays as it is
            self.optimizer.step()
            return
        r = self.recipe
        for group, states, steps in self._groups:
            parameters, lr, decay = group["params"], group["lr"], group["weight_decay"]
            grads = [p.grad for p in parameters]
            if r.optimizer == "sgd":
                torch._fused_sgd_(
                    parameters, grads, *(states or [[]]), weight_decay=decay, momentum=r.momentum, lr=lr,
                    dampening=0.0, nesterov=r.nesterov, maximize=False, is_first_step=False,
                )  # fmt: skip
                continue
            torch._foreach_add_(steps, 1)
            kernel = torch._fused_adam_ if r.optimizer == "adam" else torch._fused_adamw_
            kernel(  # type: ignore[call-overload]
                parameters, grads, *states, [], steps, lr=lr, beta1=r.betas[0], beta2=r.betas[1], weight_decay=decay,
                eps=r.eps, amsgrad=False, maximize=False,
            )  # fmt: skip


@torch.no_grad()
def _penalise(parameters: list[Tensor], l1: float) -> None:
    """Add the gradient of l1 times the sum of |w|."""
    used = [p for p in parameters if p.grad is not None]
    torch._foreach_add_([p.grad for p in used], torch._foreach_sign(used), alpha=l1)  # type: ignore[misc]


def like(parameter: Tensor, values: Tensor) -> Tensor:
    """`values` as the parameter is: its device, dtype and memory format."""
    return torch.empty_like(parameter, requires_grad=False).copy_(values)


def optimizer_of(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """The fused optimiser of a recipe."""
    parameters = list(parameters)
    decayed = [p for p in parameters if recipe.decay == "all" or p.dim() > 1]
    spared = [p for p in parameters if recipe.decay == "weights" and p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}]
    if spared:
        groups.append({"params": spared, "weight_decay": 0.0})
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=recipe.lr, betas=recipe.betas[:2], eps=recipe.eps, fused=True)  # type: ignore[arg-type]

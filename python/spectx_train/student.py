# SPDX-License-Identifier: Apache-2.0
"""A head in training. Several may learn from one pass of the target, each in its own way."""

import dataclasses

import torch

from . import UserError
from .draft import DraftTail, draft_loss
from .head import Head, HeadShape, load_head
from .objective import Objective


@dataclasses.dataclass(frozen=True)
class StudentSettings:
    name: str
    objective: Objective
    shape: HeadShape
    learning_rate: float = 1e-3
    ema: float = 0.0  # 0: the last weights are the result
    init: str | None = None  # a head to start from
    has_features: bool = True  # False: fc is 0 and stays so


class Batch:
    """What one pass of the target gives to every student, in float32."""

    def __init__(self, target, tokens, positions, hidden, residuals, maps):
        self.target, self.positions, self.hidden, self.maps = target, positions, hidden, maps
        self.embeddings = target.embed(tokens).float()
        self.residuals, self.made = residuals, {}

    def features(self, layers):
        if layers not in self.made:
            self.made[layers] = torch.cat([self.residuals[i] for i in layers], -1).float()
        return self.made[layers]

    def target_logits(self):
        if "logits" not in self.made:
            index = self.positions[..., None].expand(-1, -1, self.hidden.shape[-1])
            with torch.no_grad():
                self.made["logits"] = self.target.logits(self.hidden.gather(1, index))
        return self.made["logits"]


class Student:
    def __init__(self, settings, target, seed):
        self.settings = settings
        generator = torch.Generator().manual_seed(seed)
        self.head = Head(settings.shape)
        self.head.initialise(generator)
        if settings.init is not None:
            self.start_from(settings.init, target)
        if not settings.has_features:
            self.head.fc.weight.data.zero_()
            self.head.fc.weight.requires_grad_(False)
        parts = [self.head]
        self.tail = None
        if "draft" in settings.objective.terms:
            self.tail = DraftTail(settings.shape, target.head_dim)
            self.tail.initialise(generator)
            parts.append(self.tail)
        for part in parts:
            part.to(target.device)
        self.parameters = [weight for part in parts for weight in part.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.01
        )
        self.average = [weight.detach().clone() for weight in self.parameters]

    def start_from(self, path, target):
        shape, weights, metadata = load_head(path)
        own = self.head.state_dict()
        misfits = [
            f"{name} is {list(weights[name].shape) if name in weights else 'missing'}, "
            f"needed {list(value.shape)}"
            for name, value in own.items()
            if name not in weights or weights[name].shape != value.shape
        ]
        if shape != self.head.shape and not misfits:
            misfits = [f"it has {shape}, needed {self.head.shape}"]
        known = metadata.get("target_sha256", target.sha256)
        if known != target.sha256 and not misfits:
            misfits = [f"it was trained on {metadata.get('target')} with SHA-256 {known[:16]}..."]
        if misfits:
            raise UserError(
                f"{path} is a head for another model, or of another shape: {'; '.join(misfits)}"
            )
        self.head.load_state_dict({name: weights[name] for name in own})

    def loss(self, batch):
        objective, shape = self.settings.objective, self.head.shape
        features = batch.features(shape.feature_layers)
        entries = self.head.entries(batch.embeddings, features)
        log_weights = self.head.log_weights(entries, batch.positions)
        loss = 0
        if objective.kinds:
            loss = objective.loss(log_weights, batch.maps, batch.positions)
        if self.tail is not None:
            drafted = self.tail(entries, self.head.fc(features), log_weights, batch.positions)
            logits = batch.target.logits(drafted.to(batch.hidden.dtype))
            loss = loss + objective.terms["draft"] * draft_loss(logits, batch.target_logits())
        return loss

    def step(self, batch, rate):
        """One update at `rate` times the learning rate; the loss, still on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * rate
        loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        if self.settings.ema:
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1 - self.settings.ema)
        return loss.detach()

    def state(self):
        return {
            "weights": [weight.detach() for weight in self.parameters],
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state):
        with torch.no_grad():
            for own, kept in zip(self.parameters, state["weights"]):
                own.copy_(kept)
            for own, kept in zip(self.average, state["average"]):
                own.copy_(kept)
        self.optimizer.load_state_dict(state["optimizer"])

    def result(self):
        """The head as its file holds it: averaged if so set, rounded to float16."""
        weights = self.average if self.settings.ema else self.parameters
        head = Head(self.head.shape).to(weights[0].device)
        names = [name for name, _ in self.head.named_parameters()]
        head.load_state_dict({n: w.detach().half().float() for n, w in zip(names, weights)})
        head.reduce = self.settings.objective.reduce
        return head.requires_grad_(False)

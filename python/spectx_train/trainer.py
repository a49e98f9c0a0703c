# SPDX-License-Identifier: Apache-2.0
"""The training loop: one pass of the target, one update of every student, until time is up."""

import contextlib
import dataclasses
import math
import os
import pickle
import signal
import sys
import time

import numpy as np
import torch

from . import UserError
from .head import replace_file
from .student import Batch
from .teacher import Teacher, read_block

WARM_UP_STEPS = 50
RECORD_STEPS = 10  # losses are averaged over as many, and read from the device once
FIRST_POSITION = 8  # queries are taken from position length / 8 on


@dataclasses.dataclass(frozen=True)
class Schedule:
    lengths: tuple
    batch_tokens: int
    queries: int
    steps: int | None
    minutes: float | None
    seed: int

    def share(self, step, seconds):
        """How much of the training is done, 0 to 1."""
        done = [0.0]
        if self.steps is not None:
            done.append(step / self.steps if self.steps else 1.0)
        if self.minutes is not None:
            done.append(seconds / (60 * self.minutes))
        return min(max(done), 1.0)


class Trainer:
    def __init__(self, target, students, corpus, schedule, checkpoint_path, compiles=False):
        self.target, self.students, self.corpus = target, students, corpus
        self.schedule, self.checkpoint_path = schedule, checkpoint_path
        self.step, self.seconds, self.history = 0, 0.0, []
        self.stopped = False
        self.compiles = compiles
        self.read = torch.compile(read_block) if compiles else read_block
        self.kinds = set().union(*(s.settings.objective.kinds for s in students))
        self.features = sorted(set().union(*(s.head.shape.feature_layers for s in students)))

    def sample(self):
        """Tokens [batch, length] and query positions [batch, queries] of the present step alone: a
        run that goes on sees what it would have seen."""
        rng = np.random.default_rng((self.schedule.seed, self.step))
        length = int(rng.choice(self.schedule.lengths))
        count = max(self.schedule.batch_tokens // length, 1)
        tokens = self.corpus.sample(length, count, rng)
        queries = min(self.schedule.queries, length // 2)
        first = max(length // FIRST_POSITION, 1)
        at = (np.arange(queries) + rng.random((count, queries))) / queries
        positions = first + (at * (length - first)).astype(np.int64)
        device = self.target.device
        return tokens.to(device), torch.from_numpy(positions).to(device)

    def batch(self):
        tokens, positions = self.sample()
        teacher = Teacher(self.kinds, positions, read=self.read)
        observer = teacher if self.kinds else None
        hidden, residuals = self.target.run(tokens, self.features, observer)
        maps = teacher.maps() if self.kinds else {}
        return Batch(self.target, tokens, positions, hidden, residuals, maps)

    def run(self):
        """Returns when the schedule is done, with a checkpoint for what follows the training.
        SIGINT and SIGTERM save one and raise."""
        before = {s: signal.signal(s, self.stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            with self.target.compiled() if self.compiles else contextlib.nullcontext():
                self.loop()
        except torch.cuda.OutOfMemoryError as error:
            schedule = self.schedule
            raise UserError(
                f"the GPU ran out of memory: lower --batch-tokens (now {schedule.batch_tokens}), "
                f"then --queries-per-sequence (now {schedule.queries}), "
                f"then the longest of --lengths (now {max(schedule.lengths)})"
            ) from error
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self.save()

    def stop(self, number, frame):
        self.stopped = True

    def loop(self):
        progress = Progress(self.schedule)
        losses, saved = [], time.monotonic()
        while (share := self.schedule.share(self.step, self.seconds)) < 1:
            begun = time.monotonic()
            rate = min((self.step + 1) / WARM_UP_STEPS, 0.5 * (1 + math.cos(math.pi * share)))
            batch = self.batch()
            losses.append(torch.stack([s.step(batch, rate) for s in self.students]))
            del batch
            self.step += 1
            if len(losses) == RECORD_STEPS or self.step == self.schedule.steps or self.stopped:
                mean = torch.stack(losses).mean(0).tolist()
                losses = []
                if not all(math.isfinite(loss) for loss in mean):
                    raise UserError(f"the loss is not finite at step {self.step}: lower --lr")
                self.history.append([self.step, *mean])
                progress.show(self.step, self.seconds, mean)
            self.seconds += time.monotonic() - begun
            if self.stopped:
                self.save()
                progress.end()
                raise UserError(
                    f"interrupted at step {self.step}: kept in {self.checkpoint_path}; "
                    "the same command with --resume goes on"
                )
            if time.monotonic() - saved > 120:
                self.save()
                saved = time.monotonic()
        progress.end()

    def identity(self):
        """What a checkpoint must agree on."""
        return {
            "target": self.target.sha256,
            **dataclasses.asdict(self.schedule),
            "students": {s.settings.name: dataclasses.asdict(s.settings) for s in self.students},
            "tokens": len(self.corpus.tokens),
        }

    def save(self):
        state = {
            "identity": self.identity(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "students": [student.state() for student in self.students],
        }
        replace_file(self.checkpoint_path, lambda temporary: torch.save(state, temporary))

    def resume(self):
        """Goes on from the checkpoint, if there is one."""
        path = self.checkpoint_path
        if not os.path.exists(path):
            print(f"{path} does not exist: starting at step 0", file=sys.stderr)
            return
        try:
            state = torch.load(path, map_location=self.target.device, weights_only=True)
            kept = state["identity"]
        except (OSError, RuntimeError, KeyError, pickle.UnpicklingError, EOFError) as error:
            raise UserError(f"{path} is not a checkpoint of this tool") from error
        own = self.identity()
        if kept["target"] != own["target"]:
            raise UserError(f"{path} is of a head for another model ({kept['target'][:16]}...)")
        changed = [name for name in own if name != "students" and kept.get(name) != own[name]]
        changed += differences(kept["students"], own["students"])
        if changed:
            raise UserError(f"{path} was made with other settings ({', '.join(changed)})")
        for student, its in zip(self.students, state["students"]):
            student.load_state(its)
        self.step, self.seconds = state["step"], state["seconds"]
        self.history = state["history"]


def differences(kept, own):
    """Names of the settings in which the students of two runs differ."""
    if kept.keys() != own.keys():
        return ["--variant"]
    return sorted({key for name in own for key in own[name] if kept[name].get(key) != own[name][key]})


class Progress:
    """Loss and time left on stderr: one line that is rewritten, or one every 15 s where it is no
    terminal."""

    def __init__(self, schedule):
        self.schedule, self.begun, self.shown = schedule, time.monotonic(), -math.inf
        self.is_terminal = sys.stderr.isatty()
        self.first = None

    def show(self, step, seconds, losses):
        now = time.monotonic()
        if now - self.shown < (0.2 if self.is_terminal else 15):
            return
        self.shown = now
        share = self.schedule.share(step, seconds)
        if self.first is None:
            self.first = (share, now)
        done = share - self.first[0]
        left = (1 - share) * (now - self.first[1]) / done if done > 0 else float("nan")
        bar = "#" * int(20 * share) + "." * (20 - int(20 * share))
        shown = " ".join(f"{loss:.3f}" for loss in losses)
        line = f"[{bar}] step {step}  loss {shown}  {clock(left)} left"
        print(f"\r\033[K{line}" if self.is_terminal else line, end="", file=sys.stderr)
        print(end="" if self.is_terminal else "\n", file=sys.stderr, flush=True)

    def end(self):
        if self.is_terminal and self.first is not None:
            print(file=sys.stderr)


def clock(seconds):
    if not math.isfinite(seconds):
        return "?:??"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

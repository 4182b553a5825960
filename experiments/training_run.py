"""One training run around its agent: the loop, and everything it needs before, between and after its updates."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from experiments.agents.base_agent import Collected, LearningAgent
from experiments.checkpoint import CheckpointStore, check_same_agent, check_same_config, read_states, read_trainer
from experiments.configuration import Config
from experiments.environments import keeping_failures
from experiments.errors import UserError
from experiments.experiment_paths import ExperimentPaths
from experiments.log_file import RUN_LOG, logged_to
from experiments.nonfinite import NonFiniteError
from experiments.probe_prompts import probe_states
from experiments.run_log import STATUS, Progress, RunLog, log_row, saved_update, tracked_of_episodes
from experiments.run_messages import PresentSpeed, explain, update_line
from experiments.run_record import RunRecord
from experiments.seeding import get_random_states, set_random_states
from experiments.stopping import Stopped, finishing_steps, stop_signal
from experiments.storage import StorageError

logger = logging.getLogger("glam")

OpenAgent = Callable[[Config], AbstractContextManager[LearningAgent]]  # leaving it lets go of all the agent holds


def run_training(config: Config, paths: ExperimentPaths, open_agent: OpenAgent) -> None:
    """The training loop: collect, learn, record, checkpoint; it goes on from the newest checkpoint.

    Raises:
        Stopped: SIGTERM or SIGUSR1 came; the update it came in is finished and saved.
        UserError: numbers are not finite, and there is no going on; checkpoints are as they were.
    """
    with TrainingRun(config, paths, open_agent) as run:
        run.resume()
        with finishing_steps():
            while not run.is_complete:
                try:
                    run.advance()
                except NonFiniteError as error:
                    update, start = run.agent.skipping.update, run.checkpoint_name()
                    raise UserError(explain(error, config, update, start)) from error
                run.checkpoint_if_due()
                run.stop_if_asked()
    logger.info("done: %s", paths.logs)


class TrainingRun:
    """Builds the agent, resumes it, records every update and writes checkpoints.

    Attributes:
        agent: the agent that learns.
        progress: updates, episodes, frames and seconds so far.
        saved: the update of the newest checkpoint, None where there is none.
    """

    def __init__(self, config: Config, paths: ExperimentPaths, open_agent: OpenAgent) -> None:
        rl = config.rl
        self.config, self.paths = config, paths
        self.progress = Progress()
        self.saved: int | None = None
        self.overdue = False  # a checkpoint that was due has been put off
        self.store = CheckpointStore(paths.models)
        self.warned_of_space = False
        with ExitStack() as opened:  # closes what is open already when a later step fails
            opened.enter_context(self.store.locked())
            opened.enter_context(logged_to(paths.logs / RUN_LOG))
            opened.enter_context(self._telling_what_is_safe())
            opened.enter_context(keeping_failures(paths.logs))
            self.checkpoint = self.store.recover()
            if self.checkpoint is not None:  # refuse before the model is loaded
                trainer = read_trainer(self.checkpoint)
                check_same_agent(trainer, config.agent, self.checkpoint)
                fixed = ("rl_script_args.num_steps",) if config.rates_end_at_num_steps else ()
                check_same_config(trainer["config"], config.resolved, self.checkpoint, fixed)
                self.progress = Progress(**trainer["progress"])
                self.saved = self.progress.update
            elif lost := saved_update(paths.logs):  # to start anew would empty log.csv
                raise UserError(
                    f"{paths.models} has no checkpoint, but {paths.logs / STATUS} tells of one of update {lost}: mount "
                    "or put back what is missing, or remove that file to start anew"
                )
            self.run_record = RunRecord(paths.logs, config.training_frames)
            opened.push(self._note_end)
            self.run_record.write("running", **self._standing())
            self.agent = opened.enter_context(open_agent(config))
            # prompts that an environment writes itself have no fixed action list to follow
            can_follow = rl.prompter == "glam" and self.agent.reads_prompts
            self.probes = probe_states(rl.action_space, rl.nbr_obs, rl.template_test) if can_follow else []
            self.log = opened.enter_context(closing(RunLog(config, paths.logs, rl.action_space if self.probes else [])))
            if sys.stderr.isatty():  # log lines above the bar, not through it
                opened.enter_context(logging_redirect_tqdm())
            # disable=None: a bar only where there is a terminal
            self.bar = opened.enter_context(
                tqdm(total=config.training_frames, unit="frame", disable=None, file=sys.stderr)
            )
            self.opened = opened.pop_all()

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.opened.__exit__(*exception)

    def _note_end(self, _type: Any, exception: BaseException | None, _traceback: Any) -> None:
        """Write into run.json how it ended: with an exception, or with the `with` block."""
        if exception is not None:
            state = "stopped" if isinstance(exception, Stopped) else "failed"
            reason = str(exception).splitlines() or [type(exception).__name__]
            with suppress(StorageError):  # the exception may be of a full disk: it is the one to show
                self.run_record.write(state, reason=reason[0])
        elif self.is_complete:
            self.run_record.write("done")

    @contextmanager
    def _telling_what_is_safe(self) -> Iterator[None]:
        """Where storage fails, say from where the run will go on."""
        try:
            yield
        except StorageError as error:
            raise error.add(self.store.safe()) from error.__cause__

    def resume(self) -> None:
        """Continue from the newest complete checkpoint, or start; every log is cut back to where that is."""
        if self.checkpoint is not None:
            states = read_states(self.checkpoint)
            self.agent.load(self.checkpoint)
            self.agent.set_state(states["agent"])
            set_random_states(states["random"])
            logger.info("resumed at update %d from %s", self.progress.update, self.checkpoint)
            self._warn_of_lack_of_space()
        self.log.open(self.progress)
        self.bar.update(self.progress.frames)
        self.speed = PresentSpeed(self.progress.frames)

    def advance(self) -> None:
        """One update: collect, learn, record."""
        start = time.perf_counter()
        self.agent.skipping.update = self.progress.update + 1
        rollout = self.agent.collect_rollout()
        stats = self.agent.update(rollout)
        self.record(rollout, stats, seconds=time.perf_counter() - start)

    def checkpoint_name(self) -> str:
        """Where the run would go on from."""
        return "its start" if self.saved is None else f"the checkpoint of update {self.saved}, which is intact"

    def record(self, rollout: Collected, stats: dict[str, float], *, seconds: float) -> None:
        """Count an update and write it to every log."""
        progress = self.progress
        progress.update += 1
        progress.episodes += len(rollout.episodes)
        progress.frames += rollout.frames
        progress.duration += seconds
        row = log_row(
            progress,
            rollout.episodes,
            stats,
            fps=rollout.frames / seconds,
            reward_scale=self.config.rl.reward_scale,
        )
        tracked = stats | tracked_of_episodes(rollout.episodes)
        self.log.write(row, tracked, self.agent.probabilities(self.probes) if self.probes else None)
        self.bar.update(rollout.frames)
        self.speed.note(progress.frames)
        success = {} if row["success_rate"] == "" else {"success_rate": row["success_rate"]}
        self.run_record.write(
            "running", **self._standing(), **success, frames_per_second=self.speed.frames_per_second()
        )
        logger.info("%s", update_line(row, stats, self.speed.seconds_left(self.config.training_frames)))

    def _standing(self) -> dict[str, Any]:
        progress = self.progress
        return {"update": progress.update, "episodes": progress.episodes, "frames": progress.frames}

    def checkpoint_if_due(self) -> None:
        """Every `checkpoint_every` updates, and when the run is complete.

        It is put off while the latest gradient steps were skipped: the weights may be what is broken, and good ones
        must not make room for them.

        PAPER-DIFF(5): the released code saves after the first minibatch of an update, without random states.
        """
        due = self.overdue or self.progress.update % self.config.rl.checkpoint_every == 0
        self.overdue = due and self.agent.skipping.in_a_row > 0
        if self.is_complete or (due and not self.overdue):
            self.checkpoint_now()

    def stop_if_asked(self) -> None:
        """Save, unless that has just been done or is put off, and end; a run that is complete needs no stop.

        Raises:
            Stopped: a signal has come.
        """
        signal = stop_signal()
        if signal is None or self.is_complete:
            return
        update = self.progress.update
        if self.saved != update and not self.agent.skipping.in_a_row:
            self.checkpoint_now()
        where = "there" if self.saved == update else self.checkpoint_name()
        raise Stopped(f"stopped by {signal} after update {update}: the same command goes on from {where}")

    @property
    def is_complete(self) -> bool:
        return self.progress.frames >= self.config.training_frames

    def checkpoint_now(self) -> None:
        progress = self.progress
        trainer = {
            "update": progress.update,
            "progress": vars(progress),
            "agent": self.agent.name,
            "config": self.config.resolved,
        }

        def save(folder: Path) -> None:
            self.agent.save(folder)
            if self.config.agent == "llm":
                from experiments.model_card import write_card

                write_card(folder, trainer, self.paths.id)

        self.store.save(trainer, {"agent": self.agent.get_state(), "random": get_random_states()}, save)
        self.saved = progress.update
        self._warn_of_lack_of_space()
        self.log.write_status(progress)

    def _warn_of_lack_of_space(self) -> None:
        """Once, as soon as a checkpoint's size is known."""
        lack = None if self.warned_of_space else self.store.lack_of_space()
        if lack is not None:
            self.warned_of_space = True
            logger.warning("%s", lack)

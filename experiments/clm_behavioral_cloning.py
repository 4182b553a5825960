"""Fine-tune a language model on exported (prompt, action) pairs: behavioural cloning.

Export transitions of the bot, 400,000 to learn from and 20,000 to evaluate on (without the overlay bot, of the agent):
    python experiments/post-training_tests.py 'experiment=[actions_6,bot,export_trajectories]'
In one process, on the GPU where there is one:
    python experiments/clm_behavioral-cloning.py --data_dir storage/logs/ID/test/BabyAI-GoToLocal-v0 \\
        --file_name bot_trajectories --model_dir google/flan-t5-large --output_dir storage/cloned/actions_6_bot_seed_1
The same of an experiment of configs/experiment/, whose folders it knows:
    python experiments/clm_behavioral-cloning.py --experiment actions_6 --file_name bot_trajectories --seed 1
On four GPUs, the same 64 pairs per gradient step:
    accelerate launch --num_processes 4 experiments/clm_behavioral-cloning.py --gradient_accumulation_steps 1 …
On two CPU processes (`accelerate launch --cpu` would start one only):
    ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node 2 experiments/clm_behavioral-cloning.py \\
        --gradient_accumulation_steps 2 …
The same command again resumes after any interruption; SIGTERM or SIGUSR1 to one of the processes or all has them finish
their gradient step, write a checkpoint and end with status 75. Test the cloned model, or train it further by PPO:
    python experiments/post-training_tests.py 'experiment=[actions_6,cloned_bot]'
    python experiments/train_language_agent.py experiment=actions_6 rl_script_args.name_model=clone_of_bot \\
        lamorel_args.llm_args.model_path=storage/cloned/actions_6_bot_seed_1
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from experiments.cloning.data import read_transitions
from experiments.cloning.options import parse_arguments
from experiments.errors import UserError
from experiments.experiment_paths import make_writable_folder
from experiments.hydra_script import UNWIND_S, fail, set_up_logging
from experiments.stopping import listen_for_stop, stop_behind, stop_listening
from lamorel.config import LamorelConfigError


def clone(arguments: Sequence[str] | None = None) -> None:
    """Read the data, then train; everything that can be checked without torch is checked first."""
    options = parse_arguments(arguments, __doc__)
    data = read_transitions(options.data_dir, options.file_name, options.file_id)
    make_writable_folder(options.output_dir.parent, "--output_dir")

    from experiments.cloning.training import train

    train(options, data)


def main() -> None:
    """The script.

    Bad input ends it with one line and exit status 2, a signal with 75, Ctrl-C with 130; of several processes one per
    machine speaks.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # no fork warnings
    set_up_logging()
    if os.environ.get("RANK", "0") != "0":
        logging.getLogger("experiments").setLevel(logging.WARNING)
        logging.getLogger("lamorel").setLevel(logging.WARNING)
    try:
        listen_for_stop(leave_after_s=UNWIND_S)
        clone()
    except (UserError, LamorelConfigError) as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            sys.exit(2)
        # lamorel names its own key
        sys.exit(fail(str(error).replace("lamorel_args.llm_args.model_path", "--model_dir")))
    except BaseException as error:
        stopped = stop_behind(error)
        if stopped is None:
            raise
        if os.environ.get("LOCAL_RANK", "0") == "0":
            logging.getLogger("glam").warning("%s", stopped)
        sys.stdout.flush()
        # not sys.exit: gloo's process group, when it is freed, joins a thread that may be waiting for this one's GIL
        os._exit(stopped.status)
    finally:
        stop_listening()

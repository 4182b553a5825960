"""Starts a script as RL and LLM processes.

    python -m lamorel_launcher.launch --config-path configs --config-name base rl_script_args.path=train.py [overrides]

README.md in this folder says more.
"""

import os
import socket
import sys
from collections.abc import Sequence

from lamorel.config import LamorelConfigError
from lamorel.distributed.launched import World
from lamorel_launcher.layout import Address, environments
from lamorel_launcher.machines import OneMachine, SeveralMachines, store_socket, wait_for_machine_0
from lamorel_launcher.processes import Process, python_command
from lamorel_launcher.settings import LaunchError, Settings, read_settings
from lamorel_launcher.stopping import end_early, forget_where_dropped, handle, held_back, stopped_early
from lamorel_launcher.supervisor import Supervisor

_THIS_MACHINE = "127.0.0.1"


def launch(settings: Settings) -> int:
    """Runs the processes of this machine; returns the exit status.

    Raises:
        LamorelConfigError: there are too few GPUs, or the port is taken.
        StoppedEarly: a signal came before anything was started.
    """
    config = settings.lamorel
    args, setup = config.accelerate_args, config.distributed_setup_args
    listener: socket.socket | None = None
    if args.num_machines == 1:
        listener = store_socket(_THIS_MACHINE, args.main_process_port, any_port=True)
        address = Address(_THIS_MACHINE, listener.getsockname()[1])
    else:
        assert args.main_process_ip is not None
        assert args.main_process_port is not None
        address = Address(args.main_process_ip, args.main_process_port)
    found = environments(config, address, settings.environment)
    if args.num_machines > 1 and args.machine_rank == 0:
        listener = store_socket("::" if ":" in address.host else "0.0.0.0", address.port, any_port=False)
    elif args.num_machines > 1:
        wait_for_machine_0(address, config.gloo_timeout)
    with held_back():
        if (stopped := stopped_early()) is not None:  # a library has dropped it
            raise stopped
        # Before anything here has threads: they start in the middle of a fork.
        processes = _start(settings, found)
        machines: OneMachine | SeveralMachines
        if args.num_machines == 1:
            assert listener is not None
            machines = OneMachine(listener, address.host)
        else:
            machines = SeveralMachines(address, args.machine_rank, args.num_machines, listener)
        supervisor = Supervisor(processes, machines, range(setup.n_rl_processes), setup.stop_grace)
    return supervisor.run()


def _start(settings: Settings, environments: dict[int, dict[str, str]]) -> list[Process]:
    setup = settings.lamorel.distributed_setup_args
    world = World(0, setup.n_rl_processes, setup.n_llm_processes)
    where = f" on {socket.gethostname()}" if settings.lamorel.accelerate_args.num_machines > 1 else ""
    command = python_command(settings.script, settings.arguments)
    return [
        Process(rank, world.name(rank) + where, rank in world.llm_ranks, command, environment)
        for rank, environment in environments.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status is that of the process that failed, or 2 where the configuration is wrong.

    75 where the run was asked to stop, and goes on with the same command.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # c10d warns of every address that has no name
    try:
        return launch(read_settings(sys.argv[1:] if argv is None else argv))
    except BaseException as error:
        stopped = stopped_early()
        if stopped is not None:  # a library may have made another error of it
            print(f"lamorel_launcher: {stopped}", file=sys.stderr, flush=True)
            return stopped.status
        if isinstance(error, LaunchError | LamorelConfigError):
            print(f"error: {error}", file=sys.stderr, flush=True)
            return 2
        raise


if __name__ == "__main__":
    sys.unraisablehook = forget_where_dropped
    handle(end_early)
    status = main()
    sys.stderr.flush()
    os._exit(status)  # a regular end would unload torch first, which takes a second or more

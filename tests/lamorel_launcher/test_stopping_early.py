"""A signal while the launcher reads its configuration: one line and a status, whatever a library makes of it."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "library",
    ["lets it pass", "makes another error of it", "drops it", "drops it in a destructor", "is being imported"],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_anything_is_started(tmp_path: Path, number: signal.Signals, library: str) -> None:
    (tmp_path / "script.py").write_text("print('started')")
    (tmp_path / "signalled.py").write_text(f"import signal\nsignal.raise_signal({int(number)})\ncomplete = True\n")
    (tmp_path / "config.yaml").write_text("lamorel_args: {llm_args: {model_path: google/flan-t5-small}}")
    arguments = [
        "--config-path",
        str(tmp_path),
        "--config-name",
        "config",
        f"+rl_script_args.path={tmp_path}/script.py",
    ]
    code = textwrap.dedent(
        f"""
        import signal, sys, time
        from lamorel_launcher import launch
        from lamorel_launcher.stopping import end_early, forget_where_dropped, handle

        read_settings = launch.read_settings

        class Dropping:
            def __del__(self):
                signal.raise_signal({int(number)})

        def library(argv):
            if {library!r} == "drops it in a destructor":
                Dropping()
                return read_settings(argv)
            if {library!r} == "is being imported":
                import signalled
                assert signalled.complete
                time.sleep(10)
            try:
                signal.raise_signal({int(number)})
            except BaseException:
                if {library!r} == "lets it pass":
                    raise
                if {library!r} == "makes another error of it":
                    raise ValueError("a value cannot be read") from None
            return read_settings(argv)

        launch.read_settings = library
        sys.path.append({str(tmp_path)!r})
        sys.unraisablehook = forget_where_dropped
        handle(end_early)
        sys.exit(launch.main({arguments}))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == {signal.SIGTERM: 75, signal.SIGINT: 130}[number], done.stderr
    assert done.stdout == ""
    assert done.stderr == f"lamorel_launcher: stopped by {number.name} before anything was started\n"

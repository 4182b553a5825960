"""Which checkpoint is taken after a kill at every step of the protocol, and after damage."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from experiments import checkpoint as module
from experiments.checkpoint import CheckpointStore, check_same_config, read_states, read_trainer, verify
from experiments.errors import UserError


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.fixture(autouse=True)
def folder(tmp_path):
    """As `locked` makes it."""
    (tmp_path / "models").mkdir()


def save(store, update):
    def write_llm(folder):
        (folder / "model.safetensors").write_bytes(b"weights of update %d" % update)

    store.save({"update": update, "config": {}}, {"update": update}, write_llm)


def weights(folder):
    return (folder / "model.safetensors").read_bytes().decode()


def test_last_and_backup(tmp_path):
    store = CheckpointStore(tmp_path / "models")
    assert store.newest() is None
    for update in (1, 2, 3):
        save(store, update)
    assert store.newest() == store.last
    assert weights(store.last) == "weights of update 3"
    assert weights(store.backup) == "weights of update 2"
    assert (read_trainer(store.last)["update"], read_states(store.last)) == (3, {"update": 3})
    assert not store.next.exists()


def test_others_may_read_the_weights_where_the_umask_lets_them(tmp_path):
    """safetensors writes files of mode 600."""

    def write(folder):
        (folder / "memory").mkdir()
        for path in (folder / "model.safetensors", folder / "memory" / "0.safetensors"):
            save_file({"weight": np.zeros(1)}, path)

    store, before = CheckpointStore(tmp_path / "models"), os.umask(0o027)
    try:
        store.save({"update": 1}, {}, write)
    finally:
        os.umask(before)
    files = [path for path in store.last.rglob("*") if path.is_file()]
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o640"}
    assert {path.name for path in files} == {
        "model.safetensors", "0.safetensors", "trainer.json", "states.json", "manifest.json",
    }  # fmt: skip


def test_what_is_linked_from_the_last_checkpoint_keeps_its_hash(tmp_path, monkeypatch):
    """It is not read again, and what has gone bad on the disk meanwhile is not taken for what was written."""
    store = CheckpointStore(tmp_path / "models")
    read = []
    sha256 = module._sha256
    monkeypatch.setattr(module, "_sha256", lambda path: read.append(path.name) or sha256(path))

    def save_linking(update):
        def write(folder):
            (folder / "changing").write_bytes(b"%d" % update)
            if update == 1:
                (folder / "kept").write_bytes(b"old and big")
            else:
                os.link(store.last / "kept", folder / "kept")

        store.save({"update": update}, {}, write)

    for update in (1, 2, 3):
        save_linking(update)
    assert read.count("changing") == 3
    assert read.count("kept") == 1
    assert store.newest() == store.last
    with (store.last / "kept").open("r+b") as file:
        file.write(b"bad")
    save_linking(4)
    assert verify(store.last) == (-1, "kept is not what was written")


STEPS = ["rmtree", "mkdir", "llm", "sync_folder", "write_atomically", "rename", "sync_path"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step(tmp_path, monkeypatch, step, count, after):
    """Kill before or after the first or second call of a step of the third save: the newest complete one is found."""
    store = CheckpointStore(tmp_path / "models")
    save(store, 1)
    save(store, 2)
    calls = 0

    def deadly(function):
        def wrapped(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == count and not after:
                raise Killed
            result = function(*arguments, **options)
            if calls == count and after:
                raise Killed
            return result

        return wrapped

    def kill_llm(folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise Killed

    homes = {"rmtree": module.shutil, "mkdir": module.Path, "rename": module.os}
    try:
        if step == "llm":
            store.save({"update": 3, "config": {}}, {}, kill_llm)
        with monkeypatch.context() as patch:
            home = homes.get(step, module)
            patch.setattr(home, step, deadly(getattr(home, step)))
            save(store, 3)
    except Killed:
        pass
    again = CheckpointStore(tmp_path / "models")
    before = sorted(path.name for path in again.folder.iterdir())
    looked_at = again.newest()
    assert looked_at is not None
    newest = weights(looked_at)
    assert sorted(path.name for path in again.folder.iterdir()) == before  # looking changes nothing: tests do it
    found = again.recover()
    assert found == (again.backup if verify(again.last)[1] else again.last)
    assert weights(found) == newest
    update, problem = verify(found)
    assert problem is None
    assert update in (2, 3)
    assert weights(found) == f"weights of update {update}"
    save(again, 4)  # and the run goes on
    assert weights(again.last) == "weights of update 4"
    assert verify(again.backup) == (update, None)


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "manifest"])
def test_a_damaged_last_falls_back_to_backup(tmp_path, damage, caplog):
    store = CheckpointStore(tmp_path / "models")
    save(store, 1)
    save(store, 2)
    file = store.last / "model.safetensors"
    if damage == "truncate":
        os.truncate(file, 3)
    elif damage == "flip":
        file.write_bytes(b"weights of update 7")  # the same size
    elif damage == "delete":
        file.unlink()
    else:
        (store.last / "manifest.json").write_text('{"update": ')
    assert store.newest() == store.backup
    assert "last is not complete" in caplog.text
    assert store.recover() == store.backup
    save(store, 3)
    assert weights(store.backup) == "weights of update 1"  # the good one, not the damaged one
    assert weights(store.last) == "weights of update 3"


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path):
    store = CheckpointStore(tmp_path / "models")
    with store.locked(), pytest.raises(UserError, match=rf"process {os.getpid()} on .*: wait for it or stop it"):
        CheckpointStore(tmp_path / "models").locked().__enter__()
    with store.locked():
        pass


def test_no_complete_checkpoint_is_an_error(tmp_path):
    store = CheckpointStore(tmp_path / "models")
    save(store, 1)
    (store.last / "manifest.json").unlink()
    with pytest.raises(UserError, match="no complete checkpoint among last and backup"):
        store.newest()


def test_the_manifest_covers_every_file(tmp_path):
    store = CheckpointStore(tmp_path / "models")
    save(store, 1)
    manifest = json.loads((store.last / "manifest.json").read_text())
    assert set(manifest["files"]) == {"model.safetensors", "states.json", "trainer.json"}
    assert manifest["files"]["model.safetensors"]["size"] == len("weights of update 1")


def test_what_may_differ_on_resume(tmp_path):
    stored = {"rl_script_args": {"num_steps": 1, "lr": 0.1}, "lamorel_args": {"llm_args": {"dtype": "fp32"}}}
    free = {"rl_script_args": {"num_steps": 9, "lr": 0.1}, "lamorel_args": {"llm_args": {"dtype": "fp32"}}}
    check_same_config(stored, free, tmp_path)
    tests = {"tests": ["adj_synonym"], "number_episodes": 9, "stop_rule": "first_n", "zero_shot": False}
    check_same_config(stored, {**stored, "rl_script_args": {"num_steps": 1, "lr": 0.1, **tests}}, tmp_path)
    other = {"rl_script_args": {"num_steps": 1, "lr": 0.2}, "lamorel_args": {"llm_args": {"dtype": "bf16"}}}
    with pytest.raises(UserError, match=r"lamorel_args\.llm_args\.dtype, rl_script_args\.lr"):
        check_same_config(stored, other, tmp_path)

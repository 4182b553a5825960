"""The examples run as their README says, and print what the model says."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from launching import REPOSITORY

EXAMPLES = REPOSITORY / "lamorel" / "examples"


def run(name: str, tiny: Any, folder: Path, *overrides: str, launched: int = 0) -> str:
    """Standard output of an example, in its own process, or beside `launched` LLM processes."""
    script, configs = str(EXAMPLES / f"{name}.py"), str(EXAMPLES / "configs")
    command = [sys.executable, script]
    if launched:
        command = [sys.executable, "-m", "lamorel_launcher.launch"]
        overrides += (
            f"rl_script_args.path={script}",
            f"lamorel_args.distributed_setup_args.n_llm_processes={launched}",
        )
    command += ["--config-path", configs, "--config-name", name, *overrides]
    command += [
        f"lamorel_args.llm_args.model_path={tiny.folder}",
        f"lamorel_args.llm_args.model_type={tiny.model_type}",
    ]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environ = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == [], "the example left files behind"
    return done.stdout


def table(output: str) -> list[tuple[float, ...]]:
    """The numbers that begin the indented lines."""
    lines = [line.split() for line in output.splitlines() if line.startswith("  ")]
    return [tuple(float(word) for word in line if re.fullmatch(r"-?\d+\.\d+", word)) for line in lines]


@pytest.mark.parametrize("launched", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_score(t5: Any, tmp_path: Path, launched: int) -> None:
    source = example("score")
    printed = run("score", t5, tmp_path, launched=launched)
    assert [line for line in printed.splitlines() if line[:1] != " "] == source["PROMPTS"]
    with t5.caller() as caller:
        scores = caller.score(source["PROMPTS"], [source["ACTIONS"]] * 2)
    expected = [sorted(score.tolist(), reverse=True) for score in scores]
    assert [number for (number,) in table(printed)] == pytest.approx([x for some in expected for x in some], abs=2e-4)
    best = source["ACTIONS"][int(scores[0].argmax())]
    assert printed.splitlines()[1].endswith(f"  {best}")


def test_generate(llama: Any, tmp_path: Path) -> None:
    source = example("generate")
    printed = run("generate", llama, tmp_path, "rl_script_args.max_new_tokens=3")
    options = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 3}
    with llama.caller() as caller:
        generated = caller.generate(source["PROMPTS"], return_logprobs=True, **options)
    expected = [continuation for some in generated for continuation in some]
    assert [row[0] for row in table(printed)] == pytest.approx([float(c["text_logprob"]) for c in expected], abs=2e-4)
    assert all(repr(continuation["text"]) in printed for continuation in expected)


def test_custom_head(tiny_pair: Any, tmp_path: Path) -> None:
    source = example("custom_head")
    printed = run("custom_head", tiny_pair, tmp_path)
    functions = {"value": source["ValueHead"](), "mean_logprob": source["MeanLogProb"]()}
    with tiny_pair.caller(functions=functions) as caller:
        outputs = caller.score(source["PROMPTS"], [source["ACTIONS"]] * 2, ["value", "__tokens"])
    sums = torch.cat([output["__score"] for output in outputs])
    means = sums / torch.cat([output["__tokens"] for output in outputs])
    assert [row[0] for row in table(printed)] == pytest.approx(sums.tolist(), abs=2e-4)
    assert [row[1] for row in table(printed)] == pytest.approx(means.tolist(), abs=2e-4)
    values = [float(value) for value in re.findall(r"\(value (-?\d+\.\d+)\)", printed)]
    assert values == pytest.approx([output["value"].item() for output in outputs], abs=2e-4)


def test_saycan(t5: Any, tmp_path: Path) -> None:
    source = example("saycan")
    printed = run("saycan", t5, tmp_path)
    chosen = re.findall(r"step \d: (.+)", printed)
    world, plan = source["World"](), []
    with t5.caller() as caller:
        for step, skill in enumerate(chosen):
            text = "".join(f" {i + 1}. {done}." for i, done in enumerate(plan))
            prompt = f"User: Bring me something to drink. Robot, what is your plan?{text} {step + 1}."
            [logprobs] = caller.score([prompt], [source["SKILLS"]])
            assert skill == source["SKILLS"][int((logprobs.exp() * world.affordances()).argmax())]
            world.act(skill)
            plan.append(skill)
    assert len(chosen) == 4 or chosen[-1] == "stop"


@pytest.mark.parametrize("launched", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_ppo_lora(tiny_pair: Any, tmp_path: Path, launched: int) -> None:
    (tmp_path / "run").mkdir()
    overrides = [f"rl_script_args.{key}" for key in ("updates=10", "samples=96", "lr=0.003")]
    overrides.append(f"rl_script_args.save_to={tmp_path / 'saved'}")
    printed = run("ppo_lora", tiny_pair, tmp_path / "run", *overrides, launched=launched)
    before, after = (float(value) for value in re.findall(r"right action (?:before|after): (\d\.\d+)", printed))
    assert len(re.findall(r"update \d+: mean reward", printed)) == 10
    assert after > before + 0.15
    assert (tmp_path / "saved" / "adapter_config.json").is_file()
    auto = {"seq2seq": transformers.AutoModelForSeq2SeqLM, "causal": transformers.AutoModelForCausalLM}
    merged = auto[tiny_pair.model_type].from_pretrained(tmp_path / "saved_merged").state_dict()
    moved = [name for name, tensor in tiny_pair.plain_model().state_dict().items() if not merged[name].equal(tensor)]
    assert moved
    assert all(re.search(r"\.(q|v|q_proj|v_proj)\.weight$", name) for name in moved)


def example(name: str) -> dict[str, Any]:
    """The names of an example's module."""
    import runpy

    return runpy.run_path(str(EXAMPLES / f"{name}.py"))

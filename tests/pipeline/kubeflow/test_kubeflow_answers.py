"""What Kubeflow's own code made of our pipeline, and that the judges which run here agree with it."""

import json

import kubeflow_judge
import pytest

TAGS = sorted(path.stem for path in kubeflow_judge.ANSWERS.glob("*.json"))
BEGUN = {"begin": {"day": "2026-11-24"}}


def parsed(words: list[str]) -> list[object]:
    """Lists are compared as lists: Python and Go space JSON differently."""
    return [json.loads(word) if word.startswith("[") else word for word in words]


@pytest.mark.parametrize("tag", TAGS)
def test_a_steps_command_is_the_one_that_kubeflows_driver_and_launcher_make(tag: str) -> None:
    steps = kubeflow_judge.answer(tag)["steps"]
    compiled = kubeflow_judge.compiled()
    assert len(steps) == 10
    for task, step in steps.items():
        words = step["command"]
        run = words[words.index("--run-id") + 1]
        assert parsed(kubeflow_judge.command(compiled, task, {}, run, BEGUN)) == parsed(words), task

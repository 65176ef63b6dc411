"""What a day pushes, asked by the TensorFlow of TF Serving and by ours: towers, and a retriever of each kind of search."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.infra_validator.serving_tensorflow import LACKING, Lacking
from serving.settings import ServingTensorFlow
from tests.end_to_end.shops import Undisturbed
from tests.environments import LOCKS, VERSIONS, python_of

Answers = dict[str | tuple[str, str, str], Any]
# Searches over the day's items in lists, beside the exact one that the day pushed: 200 items, four lists, all of them asked.
VECTORS = ("float32", "bfloat16", "int8")
MAKE = """
import json, sys
import numpy as np
from components.indexer import faiss_index
from components.indexer.retriever import export_retriever
from components.indexer.search import ListSearch
from components.indexer.settings import Plan
tower, width, folder, *kinds = sys.argv[1:]
vectors = np.random.default_rng(0).normal(size=(200, int(width))).astype(np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
lists = faiss_index.build(vectors, Plan("ivf", 4, 4), seed=0).lists
for kind in kinds:
    export_retriever(tower, ListSearch(vectors, lists, 4, 200, kind), [b"s%d" % n for n in range(200)], f"{folder}/{kind}")
"""


@pytest.fixture(scope="module")
def models(undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """SavedModels, and the files of rows to ask each of them about."""
    left, folder = undisturbed.left, tmp_path_factory.mktemp("retrievers")
    served = left / "serving"
    query, item, retriever = (
        str(max((served / name).iterdir())) for name in ("query_tower", "item_tower", "retriever")
    )
    dense = 16  # the width of the shop's towers
    subprocess.run(
        [sys.executable, "-c", MAKE, query, str(dense), str(folder), *VECTORS], check=True, capture_output=True
    )
    rows, items = (f"{left}/pipeline_root/{step}/{split}" for step, split in (
        ("Interactions", "*/*/Split-eval/*"), ("Catalogue", "*/*/Split-catalogue/*"),
    ))  # fmt: skip
    asked_rows = {query: rows, retriever: rows, **{str(folder / kind / "retriever"): rows for kind in VECTORS}}
    return {**asked_rows, item: items}


def answers(python: Path | str, models: dict[str, str], file: Path) -> Answers:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [str(python), "-I", str(LOCKS / "ask.py"), json.dumps(models), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: Answers = pickle.loads(file.read_bytes())
    return found


@pytest.fixture(scope="module")
def ours(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return answers(sys.executable, models, tmp_path_factory.mktemp("ours") / "answers")


def lacking(theirs: Any, ours: Any) -> Lacking:
    """What a registry of operations lacks of another."""
    both = theirs.keys() & ours.keys()
    attributes = {name: frozenset(ours[name].keys() - theirs[name].keys()) for name in both}
    types = {
        f"{name}.{attribute}": frozenset(ours[name][attribute] - types)
        for name in both
        for attribute, types in theirs[name].items()
        if types  # else it may be any
    }
    attributes, types = ({key: missing for key, missing in found.items() if missing} for found in (attributes, types))
    return Lacking(frozenset(ours.keys() - theirs.keys()), attributes, types)


@pytest.mark.parametrize("version", VERSIONS)
def test_stock_tensorflow_answers_as_ours(
    version: ServingTensorFlow, models: dict[str, str], ours: Answers, tmp_path: Path
) -> None:
    theirs = answers(python_of(version), models, tmp_path / "answers")
    assert theirs.pop("version").startswith(f"{version}.")
    assert lacking(theirs.pop("operations"), ours["operations"]) == LACKING[version]
    asked = {key: outputs for key, outputs in ours.items() if isinstance(key, tuple)}
    assert set(theirs) == set(asked)
    # Two signatures of each of two towers, three of each of four retrievers; warm-up requests of all, and real rows.
    assert len({(folder, name) for folder, name, _ in asked}) == 2 * 2 + 3 * 4
    assert sum("rows" in what for _, _, what in asked) == len(models)
    for key, outputs in asked.items():
        for name, values in outputs.items():
            if values.dtype == object:
                assert (theirs[key][name] == values).all(), (key, name)
            else:
                np.testing.assert_allclose(theirs[key][name], values, atol=1e-5, err_msg=f"{key} {name}")

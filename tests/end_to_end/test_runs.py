"""Whole days, as a person runs them: the command line, the steps, and what is in the push folder afterwards."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.metadata_store.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from tests.end_to_end.shops import DAY, ITEMS_A_KIND, PLAIN, SHOP, write_shop
from tests.forks import PROJECT, Forks

PLAIN_TENSORFLOW = """
import json, sys
import numpy as np
import tensorflow as tf
towers, found = {}, []
for folder, tensors in json.loads(sys.argv[1]):
    tower = towers[folder] = towers.get(folder) or tf.saved_model.load(folder)
    specs = tower.signatures["serving_default"].structured_input_signature[1]
    named = {n: tf.constant(v, s.dtype) for n, v in tensors.items() for s in [specs[n]]}
    from_tensors = tower.signatures["serving_default"](**named)["embedding"].numpy()
    example = tf.train.Example()
    for name, value in tensors.items():
        feature = example.features.feature[name]
        value = value[0] if isinstance(value[0], list) else value
        if specs[name].dtype == tf.string:
            feature.bytes_list.value.extend(v.encode() for v in value if v)
        else:
            feature.float_list.value.extend(v for v in value if v == v)
    serialized = tf.constant([example.SerializeToString()])
    from_examples = tower.signatures["serving_examples"](examples=serialized)["embedding"].numpy()
    found.append({"norm": float(np.linalg.norm(from_tensors)), "apart": float(abs(from_tensors - from_examples).max()),
                  "embedding": from_tensors[0].tolist()})
print(json.dumps(found))
"""


PLAIN_RETRIEVER = """
import json, sys
import faiss, numpy as np, pyarrow as pa
import tensorflow as tf
places, history = json.loads(sys.argv[1]), sys.argv[2:]
example = tf.train.Example()
example.features.feature["bought"].bytes_list.value.extend(item.encode() for item in history)
example.features.feature["latest"].bytes_list.value.append(history[-1].encode())
def retrieve(k, exclude=()):
    example.features.feature["exclude"].bytes_list.value[:] = [item.encode() for item in exclude]
    retriever = tf.saved_model.load(places["retriever"]).signatures["serving_examples"]
    found = retriever(examples=tf.constant([example.SerializeToString()]), k=tf.constant([k]))
    return [item.decode() for item in found["item_ids"][0].numpy()]
query = tf.saved_model.load(places["query_tower"]).signatures["serving_examples"]
index = faiss.read_index(places["index"] + "/index.faiss")
ids = pa.ipc.open_file(places["index"] + "/ids.arrow").read_all().column("candidate_id").to_pylist()
rows = index.search(query(examples=tf.constant([example.SerializeToString()]))["embedding"].numpy(), 10)[1][0]
print(json.dumps({"all": retrieve(1000), "others": retrieve(5, history), "faiss": [ids[row].decode() for row in rows]}))
"""


IMPORTED = """
import sys
from pipeline import cli
try:
    cli.main()
finally:
    heavy = {"apache_beam", "keras", "kubernetes", "matplotlib", "nltk", "tensorflow", "tf_keras", "tfx"}
    print(*sorted(heavy & sys.modules.keys()), file=sys.stderr)
"""


LIMIT = "evaluator.limits=[{metric: recall_at_5, at_least: 0.999}]"


def ndr_and_imports(*arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """A command, and what it imported of that which takes seconds."""
    command = [sys.executable, "-c", IMPORTED, *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
    return answer, answer.stderr.split()


def embed(*asked: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls towers by their folders with tensors, in a process that has plain TensorFlow and nothing of this project."""
    command = [sys.executable, "-I", "-c", PLAIN_TENSORFLOW, json.dumps(asked)]
    answers: list[dict[str, Any]] = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )
    return answers


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a root on which the shop's day was run."""
    root = tmp_path_factory.mktemp("shop")
    write_shop(root)
    arguments = ["--config", str(SHOP), "--set", f"root={root}"]
    answer, imported = ndr_and_imports("run", "--date", DAY.isoformat(), *arguments)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert imported == ["apache_beam", "tensorflow", "tf_keras", "tfx"]  # none of components.unused
    assert "recall@5" in answer.stdout
    assert "WARNING" not in answer.stdout + answer.stderr
    return arguments


@pytest.fixture
def changed(shop: list[str], tmp_path: Path) -> Iterator[list[str]]:
    """The shop, for a test that changes it: it is put back behind the test, so that tests run in any order."""
    root = Path(shop[-1].removeprefix("root="))
    kept = tmp_path / "kept"
    shutil.copytree(root, kept, symlinks=True)
    yield shop
    shutil.rmtree(root)
    shutil.move(kept, root)


def test_another_shape_of_data_needs_no_python(forks: Forks, shop: list[str]) -> None:
    run = forks.runs(shop)[0]
    assert (run["date"], run["state"], run["blessed"], run["version"]) == ("2026-11-24", "complete", True, 20261124001)
    # A visitor buys among 20 items of a kind: knowing the kind, recall@20 nears 1; popularity can reach about 20/200.
    found = run["metrics"]["all"]
    assert found["candidate"]["recall_at_20"][0] > 0.6
    assert found["popularity"]["recall_at_20"][0] < 0.2
    # Within a kind all items are alike: to know the kind is all that co-occurrence can.
    assert found["cooccurrence"]["recall_at_20"][0] > 0.6
    assert (found["candidates"], run["index"]["kind"], run["index"]["items"]) == ("catalogue", "flat", 200)
    assert found["candidate"]["index_recall_at_50"][0] == 1.0
    filtered = [f"filtered_recall_{share}_percent_at_50" for share in ("50", "10", "1", "0.1")]
    assert [found["candidate"][name][0] for name in filtered] == [1.0] * 4
    parts = [run["metrics"][f"item_popularity={part}"]["interactions"] for part in ("head", "torso", "tail")]
    assert sum(parts) == found["interactions"]
    assert run["rows"]["interactions"]["rows"] == 9000
    members = run["rows"]["users"]
    assert (members["rows"], members["splits"]) == (151, {"users": 151})
    assert 0 < run["rows"]["interactions"]["splits"]["of a user whom the users' table lacks"] < 9000


def test_settings_are_searched_for_over_the_days_data(forks: Forks, changed: list[str]) -> None:
    # Within a second there is one trial, of the settings as they are.
    answer = forks("tune", "--date", DAY.isoformat(), "--for", "1s", *changed)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "trial   0 complete" in answer.stdout and "the current settings" in answer.stdout
    root = Path(changed[-1].removeprefix("root="))
    (trial,) = json.loads((root / "tuning.json").read_text())["trials"]
    # It is in ML Metadata, with the day's examples as what it used, and those who read that are not put out by it.
    where = metadata_store_pb2.ConnectionConfig()
    where.sqlite.filename_uri = str(root / "metadata.sqlite")
    metadata = MetadataStore(where)
    (kept,) = metadata.get_executions_by_type("ndr.Trial")
    assert kept.properties["recall"].double_value == pytest.approx(max(trial["curve"]))
    used = [event.artifact_id for event in metadata.get_events_by_execution_ids([kept.id])]
    examples = [each for each in metadata.get_artifacts_by_id(used) if "/Transform/transformed_examples/" in each.uri]
    lineage = forks("lineage", str(examples[0].id), *changed)
    assert lineage.returncode == 0, lineage.stderr


def test_the_report_shows_all_of_a_run(forks: Forks, shop: list[str], tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    answer = forks("report", "--output", str(output), *shop)
    assert (answer.returncode, answer.stdout) == (0, f"{output}: 1 day, 2026-11-24\n"), answer.stderr
    html = output.read_text()
    assert "2026-11-24 is good: its model was blessed. Version 20261124001 of 2026-11-24 is live." in html
    assert f'<details id="run-{forks.runs(shop)[0]["run"]}">' in html
    # Every item has its place on the map, by its title.
    assert len(set(re.findall(r'data-tip="(Item \d+) 🐜\n', html))) == 200
    assert re.search(r'data-tip="counted [\d.]+ a batch, estimated [\d.]+"', html)
    assert re.search(r'data-tip="2026-11-24, epoch 1: loss [\d.]+"', html)
    for node in ("Interactions", "Trainer", "Pusher"):
        assert f'<text class="title" x="8" y="16">{node}</text>' in html
    sentences = re.findall(r'<p class="missing">(.*?)</p>', html)
    no_model = "No model of an earlier day could be evaluated on these days."  # at each K
    no_skew = "Served queries were not compared with training data yet: ndr skew."
    no_search = "There was no search for better settings yet: ndr tune."
    no_day_before = "There was no day before to compare with."
    assert sentences == [no_model, no_model, "No row was dropped.", no_day_before, no_skew, no_search]


def test_a_report_names_removed_artifacts(forks: Forks, changed: list[str]) -> None:
    from pipeline import config
    from pipeline.report import facts, page

    settings = config.load(SHOP, [changed[-1]])
    for node in ("Trainer", "Indexer"):
        shutil.rmtree(settings.pipeline_root / node)
    html = page.render(facts.gather(settings, None, None), settings)
    assert "No run stored a loss curve." in html and "<s>Model</s>" in html
    assert (
        html.count("ModelRun was removed; retention keeps") == 1
        and html.count("ItemIndex was removed; retention keeps") == 1
    )


def test_plain_tensorflow_calls_the_towers(forks: Forks, shop: list[str]) -> None:
    pushed = forks.runs(shop)[0]["pushed"]
    query_tower, item_tower = pushed["query_tower"], pushed["item_tower"]
    known = {"latest": ["s2"], "weekday": ["1"], "club": ["gold"]}
    nan, ages = float("nan"), [3600.0, 60.0]
    features = {"tags": [["kind0"]], "price": [3.5], "looks": [[0.0, 3.0, 1.0]]}
    of_item = {**features, "sku": ["s3"], "tags": [["kind0", "new"]], "words": ["Item 3"]}
    query, padded, unaged, item, stranger = embed(
        (query_tower, {**known, "bought": [["", "s1", "s2"]], "bought_ages": [[nan, *ages]]}),
        (query_tower, {**known, "bought": [["s1", "s2", "", ""]], "bought_ages": [[*ages, nan, nan]]}),
        (query_tower, {**known, "bought": [["s1", "s2"]], "bought_ages": [[nan, nan]]}),
        (item_tower, of_item),
        (item_tower, {**features, "sku": ["never seen"], "words": [""]}),
    )
    for answer in (query, unaged, item):
        assert answer["norm"] == pytest.approx(1.0, abs=1e-5)
        assert answer["apart"] < 1e-6  # both signatures agree
    assert padded["embedding"] == pytest.approx(query["embedding"], abs=1e-6)
    assert stranger["norm"] == pytest.approx(1.0, abs=1e-5)


def test_plain_tensorflow_and_plain_faiss_find_the_same_items(forks: Forks, shop: list[str]) -> None:
    run = forks.runs(shop)[0]
    assert run["servable"] is True and run["pushed"].keys() == {"query_tower", "item_tower", "retriever", "index"}
    history = ["s61", "s62", "s63"]
    command = [sys.executable, "-I", "-c", PLAIN_RETRIEVER, json.dumps(run["pushed"]), *history]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert sorted(found["all"]) == sorted(f"s{number}" for number in range(200))  # without the two that are blocked
    assert found["faiss"] == found["all"][:10]
    assert found["others"] == [item for item in found["all"] if item not in history][:5]
    assert sum(int(item[1:]) // ITEMS_A_KIND == 3 for item in found["all"][:10]) >= 7


def test_recommendations_are_of_the_visitors_kind_and_strangers_get_some(forks: Forks, shop: list[str]) -> None:
    answer, imported = ndr_and_imports("recommend", "--user", "v 13", "--k", "10", *shop)
    assert imported == ["tensorflow"]  # and of that a session, not Keras
    items = [int(word[1:]) for word in answer.stdout.split() if word[0] == "s" and word[1:].isdecimal()]
    assert len(items) == 10
    # Chance gives 1; how many it is differs between processors.
    assert sum(item // ITEMS_A_KIND == 3 for item in items) >= 5
    # Of another kind, the items 100 to 119. Odd ones are new; 105 has become dearer, and costs 106.5.
    conditions = ["tags=kind5", "tags!=old", "price<=107.5", "called!=Item 101 🐜"]
    chosen = forks("recommend", "--user", "v 13", *(w for each in conditions for w in ("--where", each)), *shop).stdout
    assert {word for word in chosen.split() if word[0] == "s" and word[1:].isdecimal()} == {"s103", "s105", "s107"}, (
        chosen
    )
    alike = forks("similar", "--item", "s103", "--k", "12", "--where", "tags=old", *shop).stdout
    items = [int(word[1:]) for word in alike.split() if word[0] == "s" and word[1:].isdecimal()]
    assert (
        "Like Item 103 🐜, by version 20261124001" in " ".join(alike.split()) and len(items) == 12 and 103 not in items
    )
    assert sum(item // ITEMS_A_KIND == 5 for item in items) >= 5 and {item % 2 for item in items} == {0}
    nothing = forks("similar", "--item", "s999", *shop)
    assert nothing.returncode == 1 and "--item: expected an item of the catalogue in" in nothing.stderr
    wrong = forks("recommend", "--user", "v 13", "--where", "prize<=3", *shop)
    assert wrong.returncode == 1 and "where: expected tags or called with = or != and a value; price" in wrong.stderr
    stranger = forks("recommend", "--user", "nobody", "--k", "3", *shop)
    assert stranger.returncode == 0 and "Item" in stranger.stdout
    # A member without an interaction is found in the users' table, and asked for otherwise than a stranger.
    member = forks("recommend", "--user", "new member", "--k", "3", *shop)
    assert member.returncode == 0 and member.stdout.partition("score")[2] != stranger.stdout.partition("score")[2]


def test_the_same_command_again_does_nothing_and_says_so(forks: Forks, shop: list[str]) -> None:
    before = forks.runs(shop)
    answer, imported = ndr_and_imports("run", "--date", DAY.isoformat(), *shop)
    assert (answer.returncode, imported) == (0, [])
    assert answer.stdout == (
        f"2026-11-24 is done with the same input (version 20261124001, by run {before[-1]['run']}): nothing to do.\n"
    )
    assert forks.runs(shop) == before


def test_a_day_whose_version_was_lost_is_pushed_again_from_the_cache(forks: Forks, changed: list[str]) -> None:
    serving = Path(forks.runs(changed)[-1]["pushed"]["query_tower"]).parents[1]
    shutil.rmtree(serving)
    assert forks("run", "--date", DAY.isoformat(), *changed).returncode == 0
    last = forks.runs(changed)[-1]
    assert last["version"] == 20261124001 and Path(last["pushed"]["item_tower"], "saved_model.pb").exists()
    resolvers = {"Baseline", "BeforeBaseline", "CountsBefore", "WarmStart", "DayBefore"}
    assert {step["state"] for step in last["steps"] if step["node"] not in {*resolvers, "Pusher"}} == {"cached"}


def test_a_missing_day_stops_the_run_and_pushed_versions_stay(forks: Forks, changed: list[str]) -> None:
    before = forks.runs(changed)[0]
    answer = forks("run", "--date", "2026-11-25", *changed)
    assert answer.returncode == 1
    assert "2026-11-25: expected at least one csv file" in answer.stderr
    assert "Traceback" not in answer.stderr
    last = forks.runs(changed)[-1]
    assert last["state"] == "failed"
    assert last["fault"].startswith("Interactions: ") and "expected at least one csv file" in last["fault"]
    assert Path(before["pushed"]["query_tower"], "saved_model.pb").exists()


def test_a_half_made_push_is_put_right_by_a_run_that_pushes_nothing(forks: Forks, changed: list[str]) -> None:
    """Regression: it waited for the next blessed model, one tower of the new version beside the other's old one."""
    newest = forks.runs(changed)[0]
    item_tower = Path(newest["pushed"]["item_tower"])
    serving, version = item_tower.parents[1], item_tower.name
    staged = serving / ".staging" / version
    staged.mkdir(parents=True)
    item_tower.rename(staged / "item_tower")
    (serving / "manifests" / f"{version}.json").rename(staged / "manifest.json")
    assert forks("run", "--date", "2026-11-25", *changed).returncode == 1  # there is no such day
    assert (item_tower / "saved_model.pb").exists() and (serving / "manifests" / f"{version}.json").exists()
    assert not list((serving / ".staging").glob("*"))


def test_a_model_below_its_limit_is_not_pushed(forks: Forks, changed: list[str]) -> None:
    answer = forks("run", "--date", DAY.isoformat(), *changed, "--set", LIMIT)
    assert answer.returncode == 0
    last = forks.runs(changed)[-1]
    # Judged again, not ranked again.
    assert [step["state"] for step in last["steps"] if step["node"] == "Ranker"] == ["cached"]
    assert (last["blessed"], last["version"], last["pushed"]) == (False, None, {})


def test_data_against_its_schema_stops_the_run_and_names_the_anomaly(
    forks: Forks, changed: list[str], tmp_path: Path
) -> None:
    dataset = tmp_path / "shop"
    shutil.copytree(SHOP.parent, dataset)
    own = ["--config", str(dataset / SHOP.name), "--set", changed[-1]]
    assert forks("schema", *own).returncode == 0
    schema = dataset / "catalogue.pbtxt"
    price = 'name: "price"\n  value_count {\n    min: 1\n    max: 1\n  }\n  type: FLOAT\n'
    assert price in schema.read_text()
    schema.write_text(schema.read_text().replace(price, price + "  float_domain { max: 100.0 }\n"))
    answer = forks("run", "--date", DAY.isoformat(), *own)
    assert answer.returncode == 1
    # Prices run from 0.5 to 199.5.
    assert "catalogue split: price: " in answer.stderr and "199.5" in answer.stderr and "Traceback" not in answer.stderr
    last = forks.runs(own)[-1]
    assert (last["state"], last["version"]) == ("failed", None)
    assert "Trainer" not in {step["node"] for step in last["steps"]}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB: room for the data, and for the first steps."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a file system of its own needs root")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_a_full_disk_is_named_and_the_same_command_resumes_once_there_is_room(forks: Forks, small_disk: Path) -> None:
    write_shop(small_disk)
    (small_disk / "rest").write_bytes(bytes(2 << 20))
    command = ["run", "--date", DAY.isoformat(), "--config", str(SHOP)]
    command += ["--set", f"root={small_disk}", "--set", f"dataset={PLAIN}"]
    answer = forks(*command)
    full = f"The disk that holds {small_disk} is full. Nothing was pushed. Make room and run again.\n"
    assert (answer.returncode, answer.stderr) == (1, full), answer.stdout
    assert not list(small_disk.glob("serving/*_tower/*"))
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    assert forks(*command).returncode == 0
    assert list(small_disk.glob("serving/query_tower/*/saved_model.pb"))

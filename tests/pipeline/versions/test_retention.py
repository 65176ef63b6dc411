"""What a collection leaves and what it takes: on ML Metadata itself, in the shape in which TFX fills it."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd
from pydantic import ValidationError

from pipeline.config import RetentionSettings
from pipeline.records import connection
from pipeline.versions.retention import Collected, collect
from tests.work import CONTENT, Work, places


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "root")


def test_the_artifacts_of_the_newest_days_stay(work: Work) -> None:
    # Four days that have runs; the 24th has two. Of the last three days by the calendar the 23rd has none.
    old = [work.day("2026-11-20"), work.day("2026-11-21")]
    kept = [work.day("2026-11-22"), work.day("2026-11-24"), work.day("2026-11-24")]
    # Two runs of three artifacts go, each a folder with a file of ten bytes.
    assert work.collect(days=2) == Collected(artifacts=6, bytes=60, versions=[])
    assert work.live() == set().union(*(day.ids for day in kept))
    assert work.folders() == set().union(*(day.folders for day in kept))
    states = {artifact.state for artifact in work.store.get_artifacts_by_id([i for day in old for i in day.ids])}
    assert states == {mlmd.Artifact.DELETED}  # the record itself stays, for `ndr runs`
    assert work.collect(days=2) == Collected(artifacts=0, bytes=0, versions=[])


def test_kept_artifacts_are_not_written(work: Work) -> None:
    # TFX's cache key holds the inputs' whole records, time of update included: written again, they would be other inputs.
    work.day("2026-11-20")
    kept = work.day("2026-11-21", blessed=True)
    before = work.store.get_artifacts_by_id(kept.ids)
    assert work.collect().artifacts == 3
    assert work.store.get_artifacts_by_id(kept.ids) == before


def test_inputs_of_a_kept_run_are_kept(work: Work) -> None:
    base = work.day("2026-11-20")
    shared = work.day("2026-11-21")
    newest = work.day("2026-11-24")
    work.resolved(newest.run, "WarmStart", [base.model])
    work.cached(newest.run, "CatalogueSchema", shared.examples)
    assert work.collect().artifacts == 4  # two runs of three, less the two
    assert work.live() == newest.ids | {base.model.id, shared.examples.id}


def test_the_newest_blessed_model_stays_with_all_that_its_run_made(work: Work) -> None:
    # The next day continues from the 21st's. That of the 20th was blessed later, in a backfill, and is not newer.
    base, unblessed = work.day("2026-11-21", blessed=True), work.day("2026-11-22")
    backfilled = work.day("2026-11-20", blessed=True)
    # To use a blessing is not to make it: what else the 23rd's run made goes.
    user = work.run("2026-11-23")
    work.resolved(user, "Baseline", [base.model, base.blessing])
    used_with = work.step(user, "Interactions", "examples", "Examples")
    newest = work.day("2026-11-24")
    work.collect()
    assert work.live() == base.ids | newest.ids
    assert not work.folders() & (unblessed.folders | backfilled.folders)
    assert not Path(used_with.uri).exists()


def test_a_model_that_a_rollback_took_back_is_no_base(work: Work) -> None:
    # The next day continues from the 20th's. That of the 21st stays too: its version is in the push folder.
    base, bad, _newest = work.day("2026-11-20", True), work.day("2026-11-21", True), work.day("2026-11-24")
    for day in (base, bad):
        work.push(day)
    assert work.roll_back().unknown == []
    # Of two days, the rollback is the second's; and what it took the place of.
    assert work.collect(versions=2).versions == []
    assert base.ids | bad.ids <= work.live()
    # The rollback has a copy of its own, and the runs behind it stay.
    assert work.collect(versions=1).versions == [20261120001, 20261121001]
    assert base.ids <= work.live()
    assert not bad.ids & work.live()


def test_a_blessing_of_a_model_that_is_gone_is_no_base(work: Work) -> None:
    base, lost, _newest = work.day("2026-11-20", True), work.day("2026-11-21", True), work.day("2026-11-24")
    lost.model.state = mlmd.Artifact.DELETED
    work.store.put_artifacts([lost.model])
    work.collect()
    assert base.ids <= work.live()
    assert not lost.ids & work.live()


def test_the_model_of_a_blessing_stays_where_another_run_made_it(work: Work) -> None:
    # The first run was killed after training, the second had the model from the cache and judged it.
    first = work.run("2026-11-20")
    made_beside = work.step(first, "Transform", "transform_graph", "TransformGraph")
    model = work.step(first, "Trainer", "model", "Model")
    second = work.run("2026-11-20")
    work.cached(second, "Trainer", model)
    blessing = work.step(
        second, "RetrievalEvaluator", "blessing", "ModelBlessing", [model], blessed=1, current_model_id=model.id
    )
    newest = work.day("2026-11-24")
    work.collect()
    assert work.live() == newest.ids | {made_beside.id, model.id, blessing.id}


def test_the_runs_behind_pushed_versions_stay_as_long_as_these(work: Work) -> None:
    days = [work.day(f"2026-11-{day}") for day in (18, 19, 20, 24)]
    pushed = [work.push(day) for day in days[:3]]
    assert pushed == [20261118001, 20261119001, 20261120001]
    # The model of the 19th came to the run that pushed it from an earlier run of that day.
    maker = work.day("2026-11-19")
    manifest = work.serving / "manifests" / "20261119001.json"
    work.cached(days[1].run, "Trainer", maker.model)
    manifest.write_text(manifest.read_text().replace(days[1].model.uri, maker.model.uri))
    work.step(work.run("2026-11-24"), "Interactions", "examples", "Examples")  # so that the last run is another
    collected = work.collect(versions=2)
    assert collected.versions == [20261118001]
    assert not days[0].ids & work.live()
    for day in (days[1], days[2], days[3], maker):
        assert day.ids <= work.live()
    assert sorted(path.name for path in (work.serving / "query_tower").iterdir()) == [
        "20261119001",
        "20261120001",
    ]
    assert work.collect(versions=1).versions == [20261119001]
    assert not (days[1].ids | maker.ids) & work.live()
    assert days[2].ids <= work.live()


def test_of_refreshes_those_behind_versions_that_stay_are_kept_and_the_last_that_was_tried(work: Work) -> None:
    day = work.day("2026-11-24", blessed=True)
    first = work.push(day)
    made = [work.refresh(day, f"2026-11-{25 + number}") for number in range(4)]
    tried = work.step(work.run("2026-11-29", "shop.refresh", "refresh-"), "Indexer", "index", "ItemIndex", [day.model])
    collected = work.collect(days=14, versions=2)
    # What the day pushed, what was live before the last, and the last; no other though fourteen days stay.
    assert collected.versions == [version for version, _ in made[:2]]
    kept = [index.id for _, index in made[2:]]
    assert work.live() == {*day.ids, *kept, tried.id}
    assert first in [int(path.name) for path in (work.serving / "query_tower").iterdir()]


def test_the_run_that_pushed_stays_though_ml_metadata_does_not_know_the_model(work: Work, tmp_path: Path) -> None:
    pushed, _newest = work.day("2026-11-20"), work.day("2026-11-24")
    manifest = work.serving / "manifests" / f"{work.push(pushed)}.json"
    manifest.write_text(manifest.read_text().replace(pushed.model.uri, str(tmp_path / "elsewhere")))
    work.collect()
    assert pushed.ids <= work.live()


def test_the_run_behind_a_push_that_was_killed_stays(work: Work) -> None:
    # The version is complete in staging, and will be visible once the push folder has recovered.
    pushed, _newest = work.day("2026-11-20"), work.day("2026-11-24")
    version = str(work.push(pushed))
    serving = work.serving
    (serving / ".staging" / version).mkdir()
    (serving / "manifests" / f"{version}.json").rename(serving / ".staging" / version / "manifest.json")
    work.collect()
    assert pushed.ids <= work.live()


def test_pushed_versions_stay_without_ml_metadata(work: Work) -> None:
    # ML Metadata's file was moved away, as its error message proposes, and a new one begun.
    forgotten = work.day("2026-11-20")
    work.push(forgotten)
    work.places.metadata_path.rename(work.places.root / "old.sqlite")
    newer = Work(work.places.root)
    for _ in range(5):  # execution ids start again; past the existing ones
        newer.run("2026-11-24")
        newer.step(newer.run("2026-11-24"), "Catalogue", "examples", "Examples")
    newer.collect()
    assert Path(forgotten.model.uri).exists()
    assert not Path(forgotten.examples.uri).exists()


def test_the_last_run_stays_however_old_its_day(work: Work) -> None:
    # A week is run again, from its first day, below newer days: its second day continues from the first.
    newest = work.day("2026-11-24", blessed=True)
    first = work.day("2026-11-01", blessed=True)
    work.collect()
    assert work.live() == newest.ids | first.ids
    second = work.day("2026-11-02", blessed=True)
    work.collect()
    assert work.live() == newest.ids | second.ids


def test_pipelines_under_one_root_do_not_push_each_other_out(work: Work) -> None:
    radio_old = work.day("2026-11-20", pipeline="radio")
    films = [work.day("1998-04-21", True, pipeline="films"), work.day("1998-04-22", pipeline="films")]
    radio = work.day("2026-11-24", pipeline="radio")
    work.collect()
    assert work.live() == films[0].ids | films[1].ids | radio.ids
    assert not radio_old.ids & work.live()


def test_outputs_of_killed_executions_are_removed(work: Work) -> None:
    kept = work.day("2026-11-24")
    left = work.killed(work.run("2026-11-24"), "Transform", "transform_graph")
    work.killed(work.run("2026-11-24"), "Trainer", "model")
    # Each leaves three files of ten bytes: of Beam, of the step's state, of its output.
    assert work.collect(days=14) == Collected(artifacts=0, bytes=60, versions=[])
    assert not left.exists()
    assert work.folders() == kept.folders
    assert not list(work.places.pipeline_root.glob("*/.system"))


def test_checkpoints_of_an_interrupted_training_stay_as_long_as_its_day(work: Work) -> None:
    # They lie beside the artifacts, under a name that the next attempt finds again: any but a number.
    oldest = work.day("2026-11-20")
    unfinished = work.places.pipeline_root / "Trainer" / "unfinished"
    work._write(unfinished / "5c1f" / "state.index")
    work._write(unfinished / "77ab" / "state.index")
    newest = work.day("2026-11-24")
    between = (oldest.run.create_time_since_epoch + newest.run.create_time_since_epoch) / 2 / 1000
    for path in (unfinished / "5c1f" / "state.index", unfinished / "5c1f", unfinished / "77ab"):
        os.utime(path, (between, between))
    os.utime(unfinished / "77ab" / "state.index")  # written since, which its folder does not tell
    work.collect(days=2)
    assert sorted(path.name for path in unfinished.iterdir()) == ["5c1f", "77ab"]
    work.collect(days=1)
    assert [path.name for path in unfinished.iterdir()] == ["77ab"]


def test_nothing_outside_the_pipeline_root_is_touched(work: Work, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    old = work.day("2026-11-20")
    # Artifacts that an old run imported; the root itself; one in a folder whose name begins like the root's.
    places = [
        elsewhere / "model" / "7",
        work.places.pipeline_root,
        work.places.root / "pipeline_root_2" / "model" / "8",
    ]
    for place in places:
        old.examples.uri = str(place)
        work._write(place / "file")
        work.store.put_artifacts([old.examples])
        work.day("2026-11-24")
        work.collect()
        assert (place / "file").read_text() == CONTENT
        assert old.examples.id in work.live()
    # Nor what lies elsewhere and was deleted, says ML Metadata.
    old.examples.uri, old.examples.state = str(elsewhere / "model" / "7"), mlmd.Artifact.DELETED
    work.store.put_artifacts([old.examples])
    work.collect()
    assert (elsewhere / "model" / "7" / "file").read_text() == CONTENT
    # And what symbolic links below the root lead to: a node's folder, an output's, an execution's.
    for link in ("Moved", "Interactions/moved", "Interactions/examples/99"):
        work._write(elsewhere / "examples" / "9" / "file")
        (work.places.pipeline_root / link).symlink_to(elsewhere, target_is_directory=True)
    work.collect()
    assert (elsewhere / "examples" / "9" / "file").read_text() == CONTENT
    assert (elsewhere / "model" / "7" / "file").read_text() == CONTENT


def test_a_root_may_be_named_in_another_way(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "root")
    names = [tmp_path / "root", tmp_path / "link", tmp_path / "elsewhere" / ".." / "root"]
    (tmp_path / "root").mkdir()
    for then in names:
        work = Work(then)
        old, newest = work.day("2026-11-20"), work.day("2026-11-24")
        for now in names:
            collect(places(now))
            assert newest.ids <= work.live()
            assert newest.folders <= work.folders()
        assert not old.ids & work.live()
        assert not old.folders & work.folders()


def test_an_artifact_that_holds_another_goes_after_it(work: Work) -> None:
    # TFX gives an output of several artifacts folders below the execution's; a value artifact is a file there.
    old, newest = work.day("2026-11-20"), work.day("2026-11-24")
    newest.examples.uri = f"{old.examples.uri}/1"
    work._write(Path(newest.examples.uri) / "file")
    old.model.uri = f"{old.model.uri}/value"
    work._write(Path(old.model.uri))
    work.store.put_artifacts([newest.examples, old.model])
    work.collect()
    assert (Path(newest.examples.uri) / "file").read_text() == CONTENT
    assert not Path(old.model.uri).parent.exists()
    assert not old.ids & work.live()


def test_an_artifact_within_another_goes_with_it(work: Work) -> None:
    old, newest = work.day("2026-11-20"), work.day("2026-11-24")
    old.examples.uri = f"{newest.examples.uri}/1"
    work._write(Path(old.examples.uri) / "file")
    work.store.put_artifacts([old.examples])
    work.collect()
    assert not old.ids & work.live()
    assert (Path(old.examples.uri) / "file").exists()  # what stays is left as it is
    work.day("2026-11-25")
    work.collect()
    assert not Path(newest.examples.uri).exists()


def test_an_artifact_in_a_place_of_its_own_goes(work: Work) -> None:
    # A step may choose where its output lies.
    old, _newest = work.day("2026-11-20"), work.day("2026-11-24")
    old.examples.uri = str(work.places.pipeline_root / "imported")
    work._write(Path(old.examples.uri) / "file")
    work.store.put_artifacts([old.examples])
    work.collect()
    assert not Path(old.examples.uri).exists()


def test_without_a_run_in_ml_metadata_nothing_goes(work: Work) -> None:
    day = work.day("2026-11-20")
    work.places.metadata_path.unlink()
    assert work.collect() == Collected(artifacts=0, bytes=0, versions=[])
    assert work.folders() == day.folders


def test_a_manifest_that_cannot_be_read_stops_it_before_anything_goes(work: Work) -> None:
    old, _ = work.day("2026-11-20"), work.day("2026-11-24")
    version = work.push(old)
    manifest = work.serving / "manifests" / f"{version}.json"
    manifest.write_text("{")
    assert work.collect() == Collected(unreadable=[str(manifest)])
    assert old.ids <= work.live()
    assert old.folders <= work.folders()


def test_nothing_is_kept_for_no_day(tmp_path: Path) -> None:
    assert RetentionSettings() == RetentionSettings(days=14, versions=5)
    for fault in ({"days": 0}, {"versions": 0}):
        with pytest.raises(ValidationError):
            RetentionSettings(**fault)


def test_tfx_neither_caches_nor_resolves_collected_artifacts(work: Work) -> None:
    # This is what the order, mark and then remove, stands on; asked of TFX itself while the folders are still there.
    from tfx.orchestration import metadata
    from tfx.orchestration.portable import cache_utils
    from tfx.orchestration.portable.input_resolution import channel_resolver
    from tfx.proto.orchestration import pipeline_pb2

    kept, old = work.day("2026-11-24"), work.day("2026-11-20")
    work.run("2026-11-24")  # the last
    channel = pipeline_pb2.InputSpec.Channel(output_key="key")
    channel.artifact_query.type.name = "Model"
    query = channel.context_queries.add()
    query.type.name, query.name.field_value.string_value = "node", "shop.Trainer"
    cache = work._context("execution_cache", "a digest")
    for day in (kept, old):  # as if they had had the same inputs; the later execution is asked first
        [event] = [e for e in work.store.get_events_by_artifact_ids([day.model.id]) if e.type == mlmd.Event.OUTPUT]
        association = mlmd.Association(execution_id=event.execution_id, context_id=cache.id)
        work.store.put_attributions_and_associations([], [association])

    def asked() -> tuple[list[int], list[int]]:
        with metadata.Metadata(connection(work.places)) as handle:
            resolved = channel_resolver.resolve_single_channel(handle, channel)
            cached = cache_utils.get_cached_outputs(handle, cache)
            return sorted(artifact.id for artifact in resolved), [a.id for a in (cached or {}).get("key", [])]

    assert asked() == ([kept.model.id, old.model.id], [old.model.id])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path: None)
        work.collect()
    assert Path(old.model.uri).exists()
    assert asked() == ([kept.model.id], [kept.model.id])
    # The other order, a folder that is gone though its artifact lives: the cache looks, the resolver does not.
    shutil.rmtree(kept.model.uri)
    assert asked() == ([kept.model.id], [])


# What goes below: the marks; three artifacts of the old run, each a file and a folder; the old run's half-made output of a
# killed step, a file and two folders; TFX's scratch, two files and six folders.
COLLECTION = 1 + 3 * 2 + 3 + 8


@pytest.mark.parametrize("operations", range(COLLECTION + 1))
def test_a_collection_killed_after_any_operation_is_put_right(
    work: Work, monkeypatch: pytest.MonkeyPatch, operations: int
) -> None:
    old = work.day("2026-11-20")
    work.killed(old.run, "Transform", "transform_graph")
    base, newest = work.day("2026-11-21", blessed=True), work.day("2026-11-24")
    left, finished = [operations], False

    class KilledError(Exception):
        pass

    def mortal(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if not left[0]:
                raise KilledError
            left[0] -= 1
            return operation(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", mortal(os.unlink))  # shutil.rmtree's own operations
        patch.setattr(os, "rmdir", mortal(os.rmdir))
        store = metadata_store.MetadataStore
        patch.setattr(store, "put_artifacts", mortal(store.put_artifacts))
        with contextlib.suppress(KilledError):
            work.collect()
            finished = True
    assert finished == (operations == COLLECTION)
    for artifact in work.store.get_artifacts():  # what TFX may still use is whole
        if artifact.state == mlmd.Artifact.LIVE:
            assert (Path(artifact.uri) / "file").read_text() == CONTENT
    work.collect()
    assert work.live() == base.ids | newest.ids
    assert work.folders() == base.folders | newest.folders
    assert not list(work.places.pipeline_root.glob("*/.system"))

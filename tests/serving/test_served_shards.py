"""A retriever for each shard, on servers of their own: one merged answer, always of one version."""

from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.pusher import labels
from components.pusher.files import Source
from components.pusher.versions import PushFolder
from ndr_client import Client, FaissClient
from ndr_client.served import shard_names
from serving.server import EmbeddedServer
from tests.serving.tiny import ANY_PORT, DAY, Pushes, Serve, example
from tests.waiting import wait_for


def parts(pushes: Pushes, label: str, shards: int = 2) -> dict[str, Source]:
    """Each shard has the tiny model's five items; shard 1 of the label `one` has the ids one1-0 to one1-4."""
    models = [pushes.model(f"{label}{number}") for number in range(shards)]
    found = {tower: Source(str(models[0] / tower)) for tower in ("query_tower", "item_tower")}
    for component in ("retriever", "index"):
        names = shard_names(component, shards)
        found |= {name: Source(str(model / component)) for name, model in zip(names, models, strict=True)}
    return found


def push(pushes: Pushes, sources: dict[str, Source]) -> int:
    folder = PushFolder(str(pushes.root))
    labels.configure(folder, sources)
    return folder.push(sources, DAY, run="run", model="model", metrics={}).version


def address(server: EmbeddedServer) -> str:
    return f"127.0.0.1:{server.port}"


def test_the_answers_of_all_shards_are_merged(serve: Serve, pushes: Pushes) -> None:
    version = push(pushes, parts(pushes, "one"))
    servers = [serve(pushes.root, shard=number) for number in range(2)]
    # Nearest to 0.6 are items 1 and 2 of either shard; to 2.1, items 4, 3 and 2. Of equal scores, the lower id comes first.
    queries = [example(0.6), example(2.1, (b"one0-4", b"one1-3"))]
    with Client(address(servers[0]), shards=[address(each) for each in servers]) as client:
        found = client.retrieve(queries, [3, 4])
        assert found.item_ids.tolist() == [
            [b"one0-1", b"one1-1", b"one0-2", b""],
            [b"one1-4", b"one0-3", b"one0-2", b"one1-2"],
        ]
        assert found.scores[0, 3] == -2 and found.version == version
        assert client.retrieve(queries, 100).item_ids.shape == (2, 10)
        alike = client.similar([example(3.0, feature="number")], [b"one0-3"], 3)
        assert alike.item_ids.tolist() == [[b"one1-3", b"one0-2", b"one0-4"]] or alike.item_ids[0, 0] == b"one1-3"
        by_faiss = FaissClient(client, pushes.root).for_queries([example(0.6)], 3)
        assert by_faiss.item_ids.tolist() == [found.item_ids[0, :3].tolist()] and by_faiss.version == version
        # A server has its shard alone.
        with pytest.raises(grpc.RpcError) as refusal:
            client.predict("retriever-1-of-2", "serving_examples", {"examples": [b""], "k": [1]})
        assert refusal.value.code() == grpc.StatusCode.NOT_FOUND
    whole = serve(pushes.root)
    with Client(address(whole), shards=[address(whole)] * 2) as client:
        assert client.retrieve(queries, [3, 4]).item_ids.tolist() == found.item_ids.tolist()


def test_every_answer_is_of_one_version_while_servers_move_on_one_by_one(serve: Serve, pushes: Pushes) -> None:
    first = push(pushes, parts(pushes, "one"))
    ahead = serve(pushes.root, shard=0)
    behind = EmbeddedServer(pushes.root, replace(ANY_PORT, poll_seconds=3600.0, shard=1))
    with behind, Client(address(ahead), shards=[address(ahead), address(behind)]) as client:
        wait_for(lambda: behind.versions.live == first)
        second = push(pushes, parts(pushes, "two"))
        wait_for(lambda: ahead.versions.live == second)
        before = client.retrieve([example(0.6)], 4)
        assert (before.version, before.item_ids[0].tolist()) == (first, [b"one0-1", b"one1-1", b"one0-2", b"one1-2"])
        behind.versions.refresh()
        after = client.retrieve([example(0.6)], 4)
        assert (after.version, after.item_ids[0].tolist()) == (second, [b"two0-1", b"two1-1", b"two0-2", b"two1-2"])


def test_another_number_of_shards_is_never_mixed(serve: Serve, pushes: Pushes) -> None:
    push(pushes, parts(pushes, "one", 3))
    server = serve(pushes.root)
    with Client(address(server), shards=[address(server)] * 2) as client, pytest.raises(grpc.RpcError) as refusal:
        client.retrieve([example(0.6)], 1)
    assert refusal.value.code() == grpc.StatusCode.NOT_FOUND
    incomplete = parts(pushes, "two", 3)
    del incomplete["retriever-1-of-3"]
    push(pushes, incomplete)
    wait_for(lambda: server.versions.fault)
    assert "found none for retriever-1-of-3" in (server.versions.fault or "")
    of_shard = serve(pushes.root, wait=False, shard=7)
    wait_for(lambda: of_shard.versions.states("query_tower"))
    wait_for(lambda: of_shard.versions.fault)
    assert of_shard.versions.live is None


def test_a_server_of_a_shard_refuses_an_undivided_version(serve: Serve, pushes: Pushes) -> None:
    pushes.push("one")
    server = serve(pushes.root, wait=False, shard=0)
    wait_for(lambda: server.versions.fault)
    assert "expected a retriever of shard 0, found query_tower, item_tower, retriever" in (server.versions.fault or "")


def test_tf_serving_is_configured_for_all_shards_and_for_each(pushes: Pushes) -> None:
    pushes.push("zero")
    push(pushes, parts(pushes, "one"))

    def models(name: str) -> list[str]:
        config = model_server_config_pb2.ModelServerConfig()
        text_format.Parse((Path(pushes.root) / name).read_text(), config)
        return [model.name for model in config.model_config_list.config]

    # Clients of the version before are answered until the next push.
    towers = ["query_tower", "item_tower"]
    assert models("models.config") == [*towers, "retriever-0-of-2", "retriever-1-of-2", "retriever"]
    assert models("models-1.config") == [*towers, "retriever-1-of-2"]
    push(pushes, parts(pushes, "two"))
    assert models("models.config") == [*towers, "retriever-0-of-2", "retriever-1-of-2"]

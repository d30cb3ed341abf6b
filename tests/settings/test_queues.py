"""Settings of a queue override the defaults field by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.app.context import open_context
from postroad.errors import ConfigError
from postroad.queue import JobState, Lane, Queue, Retry
from postroad.settings import QueueSettings, RateSetting, Settings
from tests.queue.conftest import jobs


def load(folder: Path, text: str) -> Settings:
    path = folder / "postroad.toml"
    path.write_text(text)
    return Settings.load(path)


def test_fields_that_are_not_set_have_their_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, '[queues."email:send"]\nconcurrency = 20\n[queues.mine]\nattempts = 1\n')
    send = settings.queue("email:send")
    assert (send.concurrency, send.rate) == (20, RateSetting(count=100, per_ms=1000))
    warmup = settings.queue("email:warmup")
    assert (warmup.concurrency, str(warmup.rate)) == (5, "50/1s")
    assert settings.queue("bounce:process").rate is None
    assert settings.queue("mine") == QueueSettings(attempts=1)


@pytest.mark.parametrize(
    ("text", "delays_ms"),
    [
        ("", (5_000, 10_000)),
        ("attempts = 5", (5_000, 10_000, 20_000, 40_000)),
        ('attempts = 5\ndelay_ms = "1m"\nmax_delay_ms = "3m"', (60_000, 120_000, 180_000, 180_000)),
        ('backoff = "fixed"\ndelay_ms = "30s"', (30_000,)),
        ('backoff = "list"\ndelays_ms = ["1m", "5m", "1h"]', (60_000, 300_000, 3_600_000)),
        ("attempts = 1", (5_000,)),
    ],
)
def test_delays_match_the_backoff(tmp_path: Path, text: str, delays_ms: tuple[int, ...]) -> None:
    assert load(tmp_path, f'[queues."email:send"]\n{text}').queue("email:send").retry_delays_ms == delays_ms


@pytest.mark.parametrize(
    "text", ['backoff = "list"', 'delays_ms = ["1m"]', "attempts = 0", "jitter = 1.0", 'backoff = "linear"']
)
def test_an_invalid_backoff_is_an_error_with_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, f'[queues."email:send"]\n{text}')
    assert "postroad.toml, line" in str(refused.value)


@pytest.mark.parametrize("written", ["file", "variable"])
def test_one_shard_is_accepted_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, written: str
) -> None:
    if written == "variable":
        monkeypatch.setenv("POSTROAD_QUEUES", '{"mine": {"shards": 1}}')
    settings = load(tmp_path, "[queues.mine]\nshards = 1\n" if written == "file" else "")
    assert settings.queue("mine").concurrency == QueueSettings().concurrency
    [record] = [record for record in caplog.records if record.name == "postroad.settings"]
    assert record.levelname == "WARNING"
    assert "queues.mine.shards is deprecated" in record.getMessage()
    assert ("postroad.toml, line 2" if written == "file" else "POSTROAD_QUEUES") in record.getMessage()


@pytest.mark.parametrize("shards", [0, 2, 256])
def test_several_shards_are_an_error_with_a_remedy(tmp_path: Path, shards: int) -> None:
    with pytest.raises(ConfigError, match="no longer split into shards") as refused:
        load(tmp_path, f'[queues."email:send"]\nshards = {shards}\n')
    assert "postroad.toml, line 2" in str(refused.value)
    assert "postroad queue rebuild" in str(refused.value)


async def test_a_queue_retries_as_its_settings_say(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROAD_REDIS_URL", redis_url)
    settings = load(tmp_path, '[queues.retried]\nattempts = 2\nbackoff = "list"\ndelays_ms = ["7m"]\n')
    async with open_context(settings) as context:
        queue = await context.queue("retried")
        assert await queue.states(["1"]) == [None]
        await queue.enqueue(Lane(name="a", gates=()), jobs("1"))
        await fail(queue)
        found = await queue.find("1")
        assert found.at_ms is not None
        assert found.at_ms - found.history[0].at_ms == 7 * 60_000
        await queue.reschedule(["1"], 0)
        await fail(queue)
        assert await queue.states(["1"]) == [JobState.DEAD]


async def fail(queue: Queue) -> None:
    [job] = (await queue.claim("w", want=1, lease_ms=60_000, nonce=str((await queue.stats()).counters))).jobs
    await queue.settle("w", [(job, Retry(cause="c"))])

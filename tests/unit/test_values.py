"""Configuration, events, log lines, sources: values in, values out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem import events
from rqmem.config.load import load
from rqmem.config.settings import Config
from rqmem.errors import ConfigError, MemoryLimitExceeded, SourceError
from rqmem.sources import Positional, as_source
from rqmem.store import codec

WHOSE = {"job": "jobs.x.Y", "job_id": "0123456789ab", "queue": "q", "worker": "w"}


def breach(**changes: Any) -> events.Breach:
    fields = {
        "used_mb": 271.3, "limit_mb": 256.0, "peak_mb": 274.0, "layer": "watch", "processes": 2,
        "operation": "customers 1200-1250", **WHOSE,
    }  # fmt: skip
    return events.Breach(**{**fields, **changes})


def test_the_words_of_a_breach() -> None:
    assert str(MemoryLimitExceeded(breach())) == (
        "jobs.x.Y used 271.3 MB of 256 MB at 'customers 1200-1250' (peak 274.0 MB, by watch, 2 processes)"
    )
    assert "1 process)" in breach(processes=1, operation="").summary()


def test_a_breach_survives_json() -> None:
    grew = [(106.0, "jobs/x.py:41 in handle: rows.append(row)"), (64.0, "jobs/x.py:58 in handle: json.dumps(rows)")]
    original = breach(where=grew[1][1], grew=grew, from_mb=58.0, growth_seconds=4.2)
    assert codec.from_json(events.Breach, codec.to_json(original)) == original
    assert original.explanation() == [
        "where it grew:    106 MB  jobs/x.py:41 in handle: rows.append(row)",
        "                   64 MB  jobs/x.py:58 in handle: json.dumps(rows)",
        "stopped at:    jobs/x.py:58 in handle: json.dumps(rows)",
        "growth:        58 MB -> 274 MB in 4.2 s (51 MB/s)",
    ]


def test_kinds_of_objects_say_what_they_leave_unexplained() -> None:
    """A list that is being sorted looks empty, and C code has no objects: 10 MB of types do not explain 250."""
    [told] = breach(kinds=[("str", 28024, 6.0), ("dict", 11352, 4.3)], baseline_mb=14.0).explanation()
    assert (
        told
        == "what grew:     str +28,024 (6 MB)   dict +11,352 (4 MB)   and 247 MB in others, or that no object shows"
    )
    [told] = breach(kinds=[("dict", 812040, 200.0)]).explanation()
    assert told == "what grew:     dict +812,040 (200 MB)"


def test_an_ordinary_except_does_not_swallow_a_breach() -> None:
    assert not issubclass(MemoryLimitExceeded, Exception)


def test_defaults() -> None:
    config = load({}).config
    assert (config.memory_mb, config.default_limit_mb, config.default_chunk_size) == (None, 256.0, 100)


def test_environment_and_options_over_it() -> None:
    environ = {"RQMEM_MEMORY": "100", "MEMORY_WARNING_THRESHOLD": "0.5", "MEMORY_MONITORING_ENABLED": "off"}
    options = {"memory_mb": ("--memory", 50.0), "timeout_seconds": ("--timeout", None)}
    config = load(environ, options).config
    assert (config.memory_mb, config.warning_threshold, config.monitoring_enabled) == (50.0, 0.5, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RQMEM_MEMORY", "0"),
        ("RQMEM_MEMORY", "-1"),
        ("RQMEM_MEMORY", "much"),
        ("RQMEM_MEMORY", "nan"),
        ("RQMEM_MEMORY", "inf"),
        ("MEMORY_WARNING_THRESHOLD", "80"),
        ("MEMORY_WARNING_THRESHOLD", "0"),
        ("MEMORY_DEFAULT_CHUNK_SIZE", "1.5"),
        ("MEMORY_DEFAULT_CHUNK_SIZE", "0"),
        ("MEMORY_MONITORING_ENABLED", "maybe"),
        ("RQMEM_HEARTBEAT", "-3"),
    ],
)
def test_a_bad_value_is_named_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}='{value}': "):
        load({name: value})


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"RQMEM_MEMROY is not known: did you mean RQMEM_MEMORY\?"):
        load({"RQMEM_MEMROY": "1"})


@pytest.mark.parametrize(
    "name",
    ["RQMEM_MEMOR", "RQMEM_MEM", "RQMEM_MEMORY_MB", "RQMEM_MEMORY_LIMIT", "RQMEM_REDIS", "RQMEM_PRELOADS",
     "RQMEM_ISOLATE", "RQMEM_ALERT_URL", "RQMEM_HEARTBEATS", "RQMEM_MAX_RESUME"],
)  # fmt: skip
def test_what_is_nearly_a_setting_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is not known: did you mean RQMEM_\w+\?"):
        load({name: "1"})


def _of_service(name: str, port: int = 6379) -> dict[str, str]:
    """What the kubelet sets for a Service, and Docker for a link."""
    url = f"tcp://10.0.0.7:{port}"
    return {
        f"{name}_SERVICE_HOST": "10.0.0.7", f"{name}_SERVICE_PORT": str(port), f"{name}_SERVICE_PORT_HTTP": str(port),
        f"{name}_PORT": url, f"{name}_PORT_{port}_TCP": url, f"{name}_PORT_{port}_TCP_PROTO": "tcp",
        f"{name}_PORT_{port}_TCP_PORT": str(port), f"{name}_PORT_{port}_TCP_ADDR": "10.0.0.7",
        f"{name}_PORT_53_UDP": "udp://10.0.0.7:53", f"{name}_NAME": "/web/rqmem", f"{name}_ENV_PATH": "/bin",
    }  # fmt: skip


@pytest.mark.parametrize(
    "service",
    ["RQMEM", "RQMEM_REDIS", "RQMEM_REDIS_URL", "RQMEM_MEMORY", "RQMEM_EXPORTER", "RQMEM_CONFIG", "RQMEM_X_1"],
)
def test_a_service_called_as_we_are_stops_no_worker(service: str, caplog: pytest.LogCaptureFixture) -> None:
    environ = {**_of_service(service), "RQMEM_MEMORY": "300"}
    assert load(environ).config.memory_mb == 300
    assert not caplog.records


def test_other_names_are_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"RQMEM_DEPLOYED_BY": "ada", "RQMEM_PORT": "8080", "RQMEM_NAME": "web", "RQMEM": "1", "PATH": "/bin"}
    for _ in range(3):
        assert load(environ).config == Config()
    [record] = caplog.records
    assert "RQMEM_DEPLOYED_BY, RQMEM_NAME, RQMEM_PORT are no setting of rqmem" in record.getMessage()
    assert "ada" not in record.getMessage(), "a value may be a secret"


def test_a_failing_subscriber_stops_nobody(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[events.Event] = []

    def fails(event: events.Event) -> None:
        raise OSError("no disk")

    monkeypatch.setattr(events, "_subscribers", [fails, heard.append])
    events.emit(breach())
    assert heard == [breach()]
    assert "no disk" in caplog.text


@given(st.lists(st.integers()), st.integers(0, 60))
def test_a_positional_source_goes_on_after_any_cursor(items: list[int], stop: int) -> None:
    source = Positional(items)
    seen, cursor = [], None
    for item, after in source.items_after(None):
        if len(seen) == stop:
            break
        seen.append(item)
        cursor = after
    rest = [item for item, _ in source.items_after(json.loads(json.dumps(cursor)))]
    assert seen + rest == items


def test_what_can_be_a_source() -> None:
    positional = Positional([1])
    assert as_source(positional, must_resume=True) is positional
    assert [item for item, _ in as_source((n for n in "ab"), must_resume=False).items_after(None)] == ["a", "b"]
    with pytest.raises(SourceError, match="a generator can be read only once"):
        as_source((n for n in "ab"), must_resume=True)
    with pytest.raises(SourceError, match="not int"):
        as_source(7, must_resume=False)  # type: ignore[arg-type]

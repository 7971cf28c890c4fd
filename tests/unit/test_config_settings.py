"""Settings laid together: command line, environment, config file, default; and the config file's own rules."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import rqmem
from rqmem.cli import main
from rqmem.cli.options import given_settings, setting_options
from rqmem.config import variables
from rqmem.config.load import Origin, load, parse
from rqmem.config.parsers import duration, moment, whole_seconds
from rqmem.config.settings import FIELDS, SETTINGS, Config, JobSettings
from rqmem.errors import ConfigError


def test_nothing_given_is_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load({})
    assert loaded.config == Config()
    assert (loaded.file, loaded.origin("memory_mb")) == (None, Origin("default", ""))


def test_each_place_stands_above_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rqmem.ini").write_text("[rqmem]\nmemory = 1\ntimeout = 1\nreserve = 1\n")
    environ = {"RQMEM_MEMORY": "2", "RQMEM_TIMEOUT": "2"}
    loaded = load(environ, {"memory_mb": ("--memory", 3.0), "timeout_seconds": ("--timeout", None)})
    config = loaded.config
    assert (config.memory_mb, config.timeout_seconds, config.reserve_mb, config.grace_seconds) == (3, 2, 1, 2)
    assert loaded.origin("memory_mb") == Origin("command line", "--memory")
    assert loaded.origin("timeout_seconds") == Origin("environment", "RQMEM_TIMEOUT")
    assert loaded.origin("reserve_mb") == Origin("config file", "rqmem.ini")
    assert loaded.origin("cgroup") == Origin("default", "")


def test_a_value_of_nothing_on_the_command_line_is_a_value() -> None:
    loaded = load({"RQMEM_RESERVE": "5"}, {"reserve_mb": ("--reserve", 0.0)})
    assert loaded.config.reserve_mb == 0


def test_the_file_is_the_one_named_else_the_one_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rqmem.ini").write_text("[rqmem]\nmemory = 100\n")
    (tmp_path / "other.ini").write_text("[rqmem]\nmemory = 200\n")
    assert load({}).config.memory_mb == 100
    assert load({"RQMEM_CONFIG": "  "}).config.memory_mb == 100
    named = load({"RQMEM_CONFIG": str(tmp_path / "other.ini")})
    assert (named.config.memory_mb, named.file) == (200, str(tmp_path / "other.ini"))


def test_every_variable_has_a_name_in_the_file() -> None:
    examples = {
        "alert_urls": "json://h/a slack://b", "alert_urls_file": "urls", "cgroup": "off", "isolation": "fork",
        "on_worker_limit": "exit", "preload": "a.b, c", "memory_warning_threshold": "0.5", "journal": "off",
        "auto": "yes", "profile": "memray", "profile_job": "a.B c.d", "profile_dir": "there",
        "memory_monitoring_enabled": "no", "job_auto_split_enabled": "false",
        "preload_openmp": "end", "integrations": "no", "plugins": "a.b c",
    }  # fmt: skip
    lines = [f"{name} = {examples.get(name, '7')}" for name in FIELDS]
    read = parse("[rqmem]\n" + "\n".join(lines), "rqmem.ini").values
    environ = {setting.variable: examples.get(setting.name, "7") for setting in SETTINGS.values()}
    assert Config(**read) == load(environ).config
    assert set(read) == set(SETTINGS) == {each.name for each in fields(Config)} - {"grace_seconds", "jobs", "budget_mb"}


def test_job_types_have_sections() -> None:
    text = """
        [job jobs.training.TrainMLModelJob]
        memory_limit_mb = 2048
        bytes_per_item = 10240.5
        [job jobs.mail.Send]
        chunk_size = 7
        split_above_items = 1000
        items_per_child = 50
    """
    config = Config(jobs=parse(text.replace("        ", ""), "rqmem.ini").jobs)
    assert config.of_job("jobs.training.TrainMLModelJob") == {"memory_limit_mb": 2048.0, "bytes_per_item": 10240.5}
    assert config.jobs["jobs.mail.Send"] == JobSettings(chunk_size=7, split_above_items=1000, items_per_child=50)
    assert config.of_job("jobs.mail.Other") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memory = 1", "rqmem.ini line 1 is in no section: begin with [rqmem]"),
        ("[rqmem]\nslack://hunter2", "rqmem.ini line 2 cannot be read: write name = value"),
        ("[rqmem]\nmemory = 1\nmemory = 2", "rqmem.ini line 3: memory is there twice in [rqmem]"),
        ("[rqmem]\n[rqmem]", "rqmem.ini line 2: [rqmem] is there twice"),
        ("[rqmem]\nmemroy = 1", "rqmem.ini: [rqmem] memroy is not known: did you mean memory?"),
        ("[rqmem]\nxyz = 1", "rqmem.ini: [rqmem] xyz is not known: known are alert_collections, "),
        ("[rqmem]\nredis_url = x", "redis_url is no setting: Redis is named by --url or RQMEM_REDIS_URL"),
        ("[rqmem]\nmemory =", "rqmem.ini: memory is empty: give it a value"),
        ("[rqmem]\nmemory = lots", "rqmem.ini: memory='lots': give a number of MB greater than 0"),
        ("[DEFAULT]\nmemory = 1", "rqmem.ini: section [DEFAULT] is not known: use [rqmem], or [job module.Class]"),
        ("[jobs.mail.Send]", "rqmem.ini: section [jobs.mail.Send] is not known"),
        ("[job Send]", "rqmem.ini: [job Send]: give the job's path"),
        ("[job a..Send]", "rqmem.ini: [job a..Send]: give the job's path"),
        ("[job a.Send]\n[job  a.Send]", "rqmem.ini: [job  a.Send] is there twice"),
        ("[job a.Send]\nchunksize = 1", "rqmem.ini: [job a.Send] chunksize is not known: did you mean chunk_size?"),
        ("[job a.Send]\nchunk_size = 0", "rqmem.ini: [job a.Send] chunk_size='0': give a whole number of at least 1"),
        ("[job a.Send]\nbytes_per_item = -1", "bytes_per_item='-1': give a number of bytes greater than 0"),
        ("[job a.Send]\nmemory_limit_mb =", "rqmem.ini: [job a.Send] memory_limit_mb is empty"),
        ("[job a.Send]\nmemory_limit_mb = nan", "memory_limit_mb='nan': give a number of MB"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_without_secrets(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(text, "rqmem.ini")
    said = str(raised.value)
    assert message in said and "\n" not in said and "hunter2" not in said


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text, "rqmem.ini")
    except ConfigError as error:
        assert "\n" not in str(error)


def test_a_percent_sign_is_itself() -> None:
    assert parse("[rqmem]\nalert_urls = json://h/%2Fa", "rqmem.ini").values == {"alert_urls": ("json://h/%2Fa",)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "RQMEM_CONFIG='{path}': there is no such file"),
        (b"\xff\xfe", "config file {path} cannot be read: it is no"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "named.ini"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load({"RQMEM_CONFIG": str(path)})
    assert message.format(path=path) in str(raised.value)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load({"RQMEM_CONFIG": str(tmp_path)})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), (" 1.5 H ", 5400), ("3d", 259200), ("2w", 1209600), (".5m", 30)],
)
def test_a_time_means_the_same_everywhere(text: str, seconds: int) -> None:
    assert whole_seconds(text, "--timeout") == duration(text, "--timeout") == seconds
    assert moment(text, "--since", 1e9) == 1e9 - seconds
    places = (
        load({"RQMEM_TIMEOUT": text, "RQMEM_HEARTBEAT": text}).config,
        Config(**parse(f"[rqmem]\ntimeout = {text}\nheartbeat = {text}", "rqmem.ini").values),
    )
    assert {(each.timeout_seconds, each.heartbeat_seconds) for each in places} == {(seconds, seconds)}


@pytest.mark.parametrize("text", ["", "0", "-5m", "1e9d", "nan", "inf", "5 minutes", "m", "1h30m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"give a time above 0, as in 90s, 10m, 2h or 3d"):
        duration(text, "--timeout")
    with pytest.raises(ConfigError, match=r"give whole seconds, at least 1, as in 90s, 10m, 2h or 3d"):
        whole_seconds(text, "--timeout")


def test_a_time_has_an_end() -> None:
    with pytest.raises(ConfigError, match="more than 100 years"):
        duration("36501d", "--timeout")
    with pytest.raises(ConfigError, match=r"at least 1, as in .*, or unlimited for no limit"):
        whole_seconds("0.5", "--duration", unlimited="unlimited")
    assert whole_seconds(" Unlimited", "--duration", unlimited="unlimited") is None


def test_every_option_of_a_setting_has_its_default_and_a_heading() -> None:
    shown = CliRunner().invoke(main, ["pool", "--help"]).output  # it has those of worker, too
    for field, setting in SETTINGS.items():
        if setting.options:
            assert f"\n{setting.group}:\n" in shown and re.search(rf"[ ,]{setting.options[0]}\b", shown), field
    assert "[default: 32]" in shown and "[default: warm]" in shown


def test_an_option_reads_its_text_as_its_variable_does() -> None:
    @click.command()
    @setting_options()
    def command(**options: Any) -> None:
        given.append(load({}, given_settings(options)).config)

    given: list[Config] = []
    texts = {"--memory": "512", "--timeout": "10m", "--preload": "a, b", "--plugin": "c", "--isolation": "fork"}
    command.main([word for pair in texts.items() for word in pair] + ["--no-integrations"], standalone_mode=False)
    variables = {setting.options[0]: setting.variable for setting in SETTINGS.values() if setting.options}
    environ = {variables[option]: text for option, text in texts.items()}
    assert given == [load({**environ, "RQMEM_INTEGRATIONS": "no"}).config]


def test_every_variable_that_is_read_is_known(caplog: pytest.LogCaptureFixture) -> None:
    read = {
        name
        for file in Path(rqmem.__file__).parent.rglob("*.py")
        for name in re.findall(r'environ\b[^"\n]*"(RQMEM_[A-Z_]+)"', file.read_text())
    }
    assert "RQMEM_DASHBOARD_PASSWORD_FILE" in read
    variables.read(dict.fromkeys(read, ""))
    assert not caplog.messages
    with pytest.raises(ConfigError, match="did you mean RQMEM_DASHBOARD_PASSWORD"):
        variables.read({"RQMEM_DASHBOARD_PASWORD": "twelve characters"})

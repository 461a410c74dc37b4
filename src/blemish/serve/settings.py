"""Settings of the server: command line before environment before a YAML file before defaults."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from blemish.errors import ServeError, nearest
from blemish.limits import MAX_PIXELS
from blemish.serve.history import KeepRule, RetentionRule
from blemish.serve.model_versions import check_model_name

KEY_CHARACTERS = 16
"""Least length of a key; shorter ones can be guessed."""
KEPT_BYTES = 20 * 10**9
"""Size of all kept images, above which the oldest are removed, unless the settings say otherwise."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _model_name(name: str) -> str:
    try:
        return check_model_name(name)
    except ServeError as error:
        raise ValueError(str(error)) from None


Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Group(BaseModel):
    """Settings that belong together; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RequestLimits(Group):
    """Limits on what requests may ask for."""

    body_bytes: int = Field(64 * 2**20, ge=1024)
    """Bytes of the body of one request."""
    held_bytes: int = Field(2**30, ge=1024)
    """Bytes of the bodies of all requests together that are in memory at one time."""
    pixels: int = Field(100_000_000, ge=1, le=MAX_PIXELS)
    """Pixels of one image, by its header."""
    files: int = Field(64, ge=1, le=10_000)
    """Images in one request."""
    queue: int = Field(1024, ge=1)
    """Images that wait for their inspection; the server answers 503 beyond."""
    connections: int = Field(2048, ge=1)
    request_seconds: Seconds = 60.0
    """From the whole request to its answer; then 504."""
    header_seconds: Seconds = 10.0
    """From the connection to the whole header of its request; then the connection is closed."""
    body_seconds: Seconds = 10.0
    """That a body may take beside the time of :attr:`bytes_a_second`; then 408."""
    bytes_a_second: int = Field(10_000, ge=1)
    """Least rate of a body, and of an answer that is read."""
    stop_seconds: Seconds = 30.0
    """That accepted images may take to be finished after a request to stop."""


class LogSettings(Group):
    """The log of the server, JSON lines."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    max_bytes: int = Field(10 * 2**20, ge=10_000)
    """Size at which the file is closed and a new one begun."""
    files: int = Field(5, ge=1, le=1000)
    """Former files that are kept."""
    console: bool = True
    """Whether lines go to standard error as well."""


class ServeSettings(BaseSettings):
    """Settings of ``blemish serve``; of the environment as ``BLEMISH_PORT`` or ``BLEMISH_LIMITS__PIXELS``."""

    model_config = SettingsConfigDict(
        env_prefix="BLEMISH_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    models: dict[Annotated[str, AfterValidator(_model_name)], Path] = Field(default_factory=dict)
    """Folders of exported or fitted models, by their names on the line."""
    home: Path = Path("blemish-line")
    """Folder of the history, kept images, versions of models and the log."""
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)
    """0 takes any port that is free."""
    key: SecretStr | None = None
    key_file: Path | None = None
    """File whose content is the key."""
    allowed_hosts: tuple[str, ...] = ()
    """Names in the header ``Host`` that are answered beside the server's own; needed without a key alone."""
    history: str | None = None
    """URL of PostgreSQL; None is SQLite in the home folder."""
    line: Path | None = None
    """``line.yaml``: sources and sinks."""
    workers: int | None = Field(None, ge=1, le=256)
    """Images that are inspected at one time; None is one for each core."""
    reload_seconds: Seconds = 2.0
    """Time between two looks at the folders of models, whose new content is then taken over."""
    keep: KeepRule = KeepRule()
    """Images that are kept with their anomaly maps."""
    retention: RetentionRule = RetentionRule(image_bytes=KEPT_BYTES)
    """How long they are kept."""
    clean_up_seconds: Seconds = 600.0
    """Time between two clean-ups by :attr:`retention`."""
    limits: RequestLimits = RequestLimits()
    log: LogSettings = LogSettings()

    @property
    def is_loopback(self) -> bool:
        """True if only programs of this machine reach the server."""
        if self.host in LOOPBACK:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def access_key(self) -> str | None:
        """The key that requests must give, None where there is none.

        Raises
        ------
        ServeError
            When its file cannot be read, it is too short, or there is none and other machines reach the server.
        """
        key, where = self.key.get_secret_value() if self.key is not None else None, "key"
        if self.key_file is not None:
            if key is not None:
                raise ServeError("key and key_file are both set; leave one of them out")
            where = str(self.key_file)
            try:
                key = self.key_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "is no text"
                raise ServeError(f"{where}: cannot be read ({reason}); write the key into it") from None
        if key is None:
            if not self.is_loopback:
                raise ServeError(
                    f"--host {self.host}: other machines would reach the server without a key; set one by "
                    "--key-file FILE or BLEMISH_KEY, or leave --host out"
                )
            return None
        if len(key) < KEY_CHARACTERS or not re.fullmatch(r"[\x21-\x7e]+", key):
            raise ServeError(
                f"{where}: a key has at least {KEY_CHARACTERS} letters, digits and signs without spaces; make one by "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        return key


def read_settings(file: Path | None = None, given: Mapping[str, Any] | None = None) -> ServeSettings:
    """Settings from the command line (``given``, without None), the environment and a YAML ``file``.

    Raises
    ------
    ServeError
        When the file cannot be read, or a setting is unknown or wrong.
    """

    class FromFile(ServeSettings):
        """:class:`ServeSettings` with one file as its last source."""

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            yaml = () if file is None else (YamlConfigSettingsSource(settings_cls, yaml_file=file),)
            return init_settings, env_settings, *yaml

    if file is not None and not file.is_file():
        raise ServeError(f"{file}: does not exist; name a YAML file of settings")
    try:
        return FromFile(**{name: value for name, value in (given or {}).items() if value is not None})
    except ValidationError as error:
        raise ServeError(_in_one_line(error, file)) from None
    except Exception as error:  # of YAML, of pydantic-settings about values of the environment, of the disk
        where = "settings" if file is None else str(file)
        reason = " ".join(str(error).split())[:200]
        raise ServeError(f"{where}: cannot be read ({reason}); correct it") from None


def _in_one_line(error: ValidationError, file: Path | None) -> str:
    first = error.errors(include_url=False)[0]
    name = ".".join(map(str, first["loc"]))
    where = "settings" if file is None else str(file)
    if first["type"] == "extra_forbidden":
        known = _known(first["loc"])
        prefix = "".join(f"{part}." for part in first["loc"][:-1])
        return f"{where}: there is no setting {name}; {nearest(str(first['loc'][-1]), known, prefix)}"
    return f"{where}: {name}: {first['msg']}; correct it"


def _known(place: Sequence[int | str]) -> list[str]:
    model: type[BaseModel] = ServeSettings
    for part in place[:-1]:
        found = model.model_fields.get(str(part))
        if found is None or not isinstance(found.annotation, type):
            return []
        model = found.annotation
    return list(model.model_fields)


def models_of(arguments: Sequence[str]) -> dict[str, Path]:
    """Names and folders of models from ``FOLDER`` or ``NAME=FOLDER``.

    Raises
    ------
    ServeError
        When two have one name, or a name cannot be that of a folder.

    Examples
    --------
    >>> models_of(["exported/screw", "left=exported/left-side"])
    {'screw': PosixPath('exported/screw'), 'left': PosixPath('exported/left-side')}
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        path = Path(folder if equals else argument)
        if not equals:
            name = path.resolve().name
        try:
            check_model_name(name)
        except ServeError as error:
            raise ServeError(f"{argument}: {error}; write NAME=FOLDER") from None
        if name in found:
            raise ServeError(f"{argument}: another model is called {name}; write NAME=FOLDER")
        found[name] = path
    return found

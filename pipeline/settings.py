"""Settings from arguments, environment and ``risorius.toml``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from pipeline.execution import Needs
from warehouse.errors import SettingsError
from warehouse.ids import check_batch
from warehouse.masking import MASK, mask
from warehouse.storage.home import Home
from warehouse.vocabulary import ACTION_UNITS

if TYPE_CHECKING:
    from annotation.label_studio.workspace import Workspace

CONFIG_FILE = "risorius.toml"


class GateSettings(BaseModel):
    """Thresholds of the quality gate; None keeps the gate's own default."""

    model_config = ConfigDict(extra="forbid")

    min_size_px: float | None = None
    min_score: float | None = None
    min_sharpness: float | None = None
    min_brightness: float | None = None
    max_brightness: float | None = None
    max_yaw: float | None = None
    max_pitch: float | None = None
    max_clipped: float | None = None
    max_blockiness: float | None = None

    def overrides(self) -> dict[str, float]:
        """Return the thresholds that are set."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


SEGMENT_SOURCES = ("sidecar", "transcript", "windows", "shots")
"""Where segments can come from."""


class Settings(BaseSettings):
    """Settings of a home.

    Precedence: arguments, ``RISORIUS_*`` variables, ``risorius.toml``, defaults.
    """

    model_config = SettingsConfigDict(
        env_prefix="RISORIUS_", env_nested_delimiter="__", toml_file=CONFIG_FILE, extra="forbid"
    )

    home: Path = Field(Path(".risorius"), description="where tables, media and releases are kept")
    umask: str = Field(
        "077",
        pattern=r"^0?[0-7]{3}$",
        description="rights that files and folders are written without; 027 lets the group read",
    )
    engine: Literal["local", "ray"] = Field("local", description="what runs the work per video")
    workers: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None, description="processes of the local engine; default: one per core"
    )
    worker_cpus: float = Field(1.0, gt=0, le=256, description="cores of a Ray worker")
    worker_gpus: float = Field(0.0, ge=0, le=16, description="GPUs, or a share, of a Ray worker")
    sample_fps: float = Field(5.0, gt=0, le=240, description="faces are sampled this often")
    detector: str = Field(
        "centerface", description="centerface, a pack of `models list`, or a file"
    )
    gate: GateSettings = GateSettings()
    video_limit_s: Annotated[float, Field(gt=0)] | None = Field(
        None, description="seconds one video may take; default: 5 minutes and 20 times its length"
    )
    retry_failed: bool = Field(
        False, description="search videos again that ended their worker in an earlier run"
    )
    hardware_decoding: Literal["auto", "off"] = Field(
        "off", description="auto: decode on a device where one opens; not yet tried on one"
    )
    recogniser: str | None = Field(
        None, description="a pack of `models list` or a file that recognises subjects across cuts"
    )
    blur_bystanders: bool = Field(
        True, description="hide other people's faces in context pictures and clips"
    )
    rater: str = Field("default", description="default, or package.module:callable")
    keep_audio: bool = Field(
        False, description="keep the sound of clips; off, because a voice identifies a person"
    )
    speech: str | None = Field(
        None,
        description="recogniser for videos without transcript: a name or package.module:object",
    )
    segments: Annotated[tuple[str, ...], NoDecode] = Field(
        ("sidecar",),
        description="where segments come from: sidecar,transcript,windows,shots; empty: none",
    )
    segment_window_s: float = Field(5.0, gt=0, le=3600, description="length of a window in seconds")
    segment_videos: bool = Field(True, description="cut a video per segment")
    pages: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="pages about items other than faces: utterance,clip,dialogue,picture,video or "
        ".toml files",
    )
    project: str = Field("faces", min_length=3, max_length=50, description="Label Studio project")
    wanted_votes: int = Field(5, ge=1, le=100, description="votes wanted per face")
    vote_budget: Annotated[int, Field(ge=0)] | None = Field(
        None, description="votes a round of the queue may ask for; default: all that are wanted"
    )
    reask_votes: int = Field(
        0, ge=0, le=100, description="more votes for a face that an audit doubts; 0: none"
    )
    label_set: Literal["expressions", "coarse"] = Field(
        "expressions", description="labels offered to annotators"
    )
    ask_mood: bool = Field(False, description="ask for valence and arousal")
    ask_au: Annotated[tuple[int, ...], NoDecode] = Field(
        (), description="ask for these action units with intensity: AU1,AU12 or all"
    )
    ask_compounds: bool = Field(False, description="offer compound expressions")
    ask_free_label: bool = Field(False, description="offer a free-text label")
    show_clips: bool = Field(False, description="cut clips and show them beside the face")
    show_predictions: bool = Field(
        False, description="show the machine rater's answer; recorded with the vote"
    )
    project_cap: int = Field(
        20_000, ge=1, description="tasks per Label Studio project before another is created"
    )
    aggregation: str = Field("posterior", description="how votes become soft labels")
    synthesizer: str = Field(
        "default", description="default, a saved pipeline's folder, or package.module:callable"
    )
    synth_faces: int = Field(
        24, ge=0, le=100_000, description="synthetic faces generated for coverage gaps; 0: none"
    )
    synth_guide: bool = Field(False, description="guide the generation by the machine rater")
    release: str = Field("faces", description="name of the dataset")
    drop_flagged: bool = Field(False, description="leave flagged rows out of releases")
    release_synthetic: Literal["config", "train"] = Field(
        "config", description="put synthetic faces in a config of their own, or into train"
    )
    release_clips: bool = Field(True, description="release clips as a config of their own")
    clip_flow: Literal["dis", "farneback"] | None = Field(
        None, description="add optical flow to released clips; default: none"
    )
    release_use: Literal["commercial", "research", "public"] | None = Field(
        None, description="refuse a release whose licences forbid this use"
    )
    drop_forbidden: bool = Field(
        False, description="leave out rows that release_use forbids instead of refusing"
    )
    require_consent: bool = Field(
        False, description="leave faces of videos without a statement of consent out of releases"
    )
    dagster_postgres: SecretStr | None = Field(
        None, description="postgresql://… for Dagster's runs and events; default: SQLite"
    )
    studio_postgres: SecretStr | None = Field(
        None, description="postgresql://… for the local Label Studio; default: SQLite"
    )
    studio_port: int | None = Field(
        None, ge=1024, le=65535, description="of the home's own Label Studio; default: a free one"
    )
    label_studio_url: str | None = Field(
        None,
        validation_alias="LABEL_STUDIO_URL",
        description="a Label Studio that runs already; default: the home's own",
    )
    label_studio_api_key: SecretStr | None = Field(
        None,
        validation_alias="LABEL_STUDIO_API_KEY",
        description="an account's token on that server",
    )
    media_from: Literal["folder", "store"] | None = Field(
        None, description="where annotators see pictures from; default: store if both are elsewhere"
    )
    studio_s3_key: SecretStr | None = Field(
        None, description="key that Label Studio reads media/ with; default: a role of its own"
    )
    studio_s3_secret: SecretStr | None = Field(None, description="the secret of that key")
    studio_s3_endpoint: str | None = Field(
        None, description="the store as Label Studio reaches it; `server`: as it is set there"
    )
    studio_s3_presign: bool = Field(
        True, description="browsers fetch from the bucket; off: through Label Studio"
    )

    @field_validator("ask_au", mode="before")
    @classmethod
    def _action_units(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.strip().lower() == "all":
            return tuple(unit.number for unit in ACTION_UNITS)
        words = value.replace("[", "").replace("]", "").split(",")
        return tuple(word.strip().upper().removeprefix("AU") for word in words if word.strip())

    @field_validator("segments", "pages", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(word.strip() for word in value.split(",") if word.strip())

    @field_validator("segments")
    @classmethod
    def _known_segment_sources(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in value if name not in SEGMENT_SOURCES]:
            raise ValueError(f"{unknown} is not among {list(SEGMENT_SOURCES)}")
        return value

    @field_validator("ask_au")
    @classmethod
    def _known_action_units(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        known = [unit.number for unit in ACTION_UNITS]
        if unknown := [number for number in value if number not in known]:
            raise ValueError(f"{unknown} is not among {known}")
        return tuple(sorted(set(value), key=known.index))

    @field_validator("release")
    @classmethod
    def _release_is_a_folder_name(cls, value: str) -> str:
        return check_batch(value)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))

    @property
    def needs(self) -> Needs:
        """Resources of one worker of a cluster."""
        return Needs(cpus=self.worker_cpus, gpus=self.worker_gpus)

    def apply_umask(self) -> None:
        """Let this process and its children write files of this ``umask``."""
        os.umask(int(self.umask, 8))

    @property
    def label_studio(self) -> Workspace:
        """Return the home with the settings of its Label Studio."""
        from annotation.label_studio.workspace import LabelStudioOptions, Workspace

        given = {field.name: getattr(self, field.name) for field in fields(LabelStudioOptions)}
        plain: dict[str, Any] = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in given.items()
        }
        return Workspace(self.place, LabelStudioOptions(**plain))

    @property
    def place(self) -> Home:
        """The home."""
        return Home.at(self.home)


class AuditSettings(BaseSettings):
    """Thresholds of the audits, from ``RISORIUS_AUDIT_*``.

    The page of the asset ``curated_faces`` shows the effect of other values.
    """

    model_config = SettingsConfigDict(env_prefix="RISORIUS_AUDIT_", extra="ignore")

    label_noise: float = Field(default=0.45, ge=0, le=1, description="lower scores are flagged")
    open_set: float = Field(default=0.5, ge=0, le=1, description="lower scores are flagged")


def load(**given: Any) -> Settings:
    """Return the settings with ``given`` on top; None means not given.

    Raises:
        SettingsError: a value is invalid; names the setting.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        raise SettingsError(
            f"The setting {name} is invalid",
            got=first["msg"],
            hint=f"change RISORIUS_{name.upper().replace('.', '__')} or {CONFIG_FILE}",
        ) from None
    except SettingsError:
        raise
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{CONFIG_FILE} cannot be read", got=str(error), hint="fix or remove the file"
        ) from None


def thresholds() -> AuditSettings:
    """Return the thresholds of the audits from the environment.

    Raises:
        SettingsError: a value is not within 0 and 1.
    """
    try:
        return AuditSettings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise SettingsError(
            "The threshold of an audit is not within 0 and 1",
            got=first["msg"],
            hint=f"change RISORIUS_AUDIT_{str(first['loc'][0]).upper()}",
        ) from None


@dataclass(frozen=True)
class Setting:
    """One setting as ``risorius doctor --settings`` lists it.

    Attributes:
        value: as text with secrets masked; empty if not set.
        moved: the value differs from the default.
    """

    variable: str
    value: str
    moved: bool
    meaning: str


def describe(settings: Settings) -> list[Setting]:
    """List all settings and thresholds in the order of declaration."""
    return list(_described(settings, prefix="RISORIUS_"))


def _described(model: BaseModel, *, prefix: str) -> Iterator[Setting]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _described(value, prefix=f"{prefix}{name.upper()}__")
            continue
        alias = field.validation_alias
        yield Setting(
            variable=alias if isinstance(alias, str) else prefix + name.upper(),
            value=_text(value),
            moved=value != field.get_default(call_default_factory=True),
            meaning=field.description or _gate_default(name),
        )


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return mask(str(value).lower() if isinstance(value, bool) else str(value))


def _gate_default(name: str) -> str:
    from pipeline.faces.quality import Gate

    default = getattr(Gate(), name, None)
    return "" if default is None else f"of the quality gate; default: {default:g}"

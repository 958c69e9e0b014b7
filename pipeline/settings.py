"""One typed settings object, built at the edge and passed in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from warehouse.errors import SettingsError
from warehouse.home import Home
from warehouse.ids import check_batch

CONFIG_FILE = "risorius.toml"


class GateSettings(BaseModel):
    """Thresholds of the quality gate that a user may move; None keeps the gate's own default."""

    model_config = ConfigDict(extra="forbid")

    min_size_px: float | None = None
    min_score: float | None = None
    min_sharpness: float | None = None
    min_brightness: float | None = None
    max_brightness: float | None = None
    max_yaw: float | None = None
    max_pitch: float | None = None

    def moved(self) -> dict[str, float]:
        """Only what the user moved."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class Settings(BaseSettings):
    """Read from arguments, then ``RISORIUS_*`` variables, then ``risorius.toml``, then defaults."""

    model_config = SettingsConfigDict(
        env_prefix="RISORIUS_", env_nested_delimiter="__", toml_file=CONFIG_FILE, extra="forbid"
    )

    home: Path = Field(Path(".risorius"), description="where tables, media and releases are kept")
    engine: Literal["local", "ray"] = Field("local", description="what runs the work per video")
    workers: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None, description="processes of the local engine; default: one per core"
    )
    sample_fps: float = Field(5.0, gt=0, le=240, description="faces are sampled this often")
    detector: str = Field("centerface", description="centerface, an .onnx file, or a pack's folder")
    gate: GateSettings = GateSettings()
    rater: str = Field("default", description="default, or package.module:callable")
    project: str = Field("faces", min_length=3, max_length=50, description="Label Studio project")
    wanted_votes: int = Field(5, ge=1, le=100, description="votes wanted per face")
    aggregation: str = Field("vote_share", description="how votes become soft labels")
    release: str = Field("faces", description="name of the dataset")
    drop_flagged: bool = Field(False, description="leave flagged rows out of releases")
    studio_port: int | None = Field(None, ge=1024, le=65535)
    label_studio_url: str | None = Field(None, validation_alias="LABEL_STUDIO_URL")
    label_studio_api_key: SecretStr | None = Field(None, validation_alias="LABEL_STUDIO_API_KEY")

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
    def place(self) -> Home:
        return Home.at(self.home)


def load(**given: Any) -> Settings:
    """Settings with ``given`` on top; a value of None means "not given".

    Raises:
        SettingsError: a value does not fit; names the setting and what it may be.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        raise SettingsError(
            f"a valid setting {name}",
            got=first["msg"],
            mend=f"change RISORIUS_{name.upper().replace('.', '__')} or {CONFIG_FILE}",
        ) from None
    except SettingsError:
        raise
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"a readable {CONFIG_FILE}", got=str(error), mend="mend or remove the file"
        ) from None

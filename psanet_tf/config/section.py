"""What all sections of a configuration have in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Immutable, strictly typed, and without room for keys that do not exist."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

"""Base class of all models of the configuration."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Base class of the models. Instances are frozen, and an unknown key is an error."""

    # Values are not converted to other types: the text "8000" is an invalid port.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

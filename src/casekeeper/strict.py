"""The base of every model that others fill in: callers, operators, agents."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A model that refuses a field that it does not know: most likely a typing error, which must not pass in silence."""

    model_config = ConfigDict(extra="forbid")

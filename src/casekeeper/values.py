"""Values: small dataclasses that nobody changes once they are made."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T], /) -> type[T]:
    """A dataclass with slots that is compared and hashed by its fields, and frozen for the type checker.

    Not while it runs: freezing makes an object seven times as dear, and an operation is made of some thirty of them.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)

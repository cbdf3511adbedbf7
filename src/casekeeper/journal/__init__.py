"""RECORD: what happened, append-only, gapless and verifiable (docs/record-format.md)."""

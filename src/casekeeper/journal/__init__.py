"""RECORD: what happened, append-only, gapless and verifiable (SPEC §8)."""

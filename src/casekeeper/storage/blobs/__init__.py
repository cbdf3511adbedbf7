"""Where raw bytes are kept: a directory, the store itself, or a bucket."""

"""Every way in, in process."""

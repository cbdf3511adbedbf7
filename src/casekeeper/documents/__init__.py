"""Documents: what a casefile holds, how it is filed, kept and found."""

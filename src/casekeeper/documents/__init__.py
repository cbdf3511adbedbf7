"""What a casefile holds: mails and other documents, how they are read in and how they are searched."""

"""From bytes to items: mail, archives, office files and PDF, read in a process that can be killed. Knows nothing of casefiles."""

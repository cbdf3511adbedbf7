"""WHERE: casefiles, their access lists, and who is let in."""

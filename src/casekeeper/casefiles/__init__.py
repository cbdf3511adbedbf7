"""WHERE: casefiles, their access lists, and the check of who may enter."""

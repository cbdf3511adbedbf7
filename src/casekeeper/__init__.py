"""casekeeper: casefiles in which people and agents work under one access list and one verifiable record."""

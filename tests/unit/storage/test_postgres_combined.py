from casekeeper.storage.postgres.combined import combined_reads, combined_writes


def test_the_parameters_of_each_statement_are_counted_on_from_those_before_it():
    together = combined_reads(
        ("SELECT a WHERE b = $1 OR c = $2 OR d = $1", "SELECT 1", "SELECT e WHERE f = $1")
    )

    assert together == (
        "SELECT ARRAY(SELECT ROW(one.*) FROM (SELECT a WHERE b = $1 OR c = $2 OR d = $1) AS one), "
        "ARRAY(SELECT ROW(one.*) FROM (SELECT 1) AS one), "
        "ARRAY(SELECT ROW(one.*) FROM (SELECT e WHERE f = $3) AS one)"
    )


def test_what_is_seen_last_is_asked_for_behind_all_that_is_written():
    together = combined_writes(
        ("DELETE FROM a WHERE b = $1", "DELETE FROM c WHERE d = $1"), "SELECT e FOR SHARE"
    )

    assert together == (
        "WITH w0 AS (DELETE FROM a WHERE b = $1 RETURNING 1), w1 AS (DELETE FROM c WHERE d = $2 RETURNING 1), "
        "last AS MATERIALIZED (SELECT e FOR SHARE) "
        "SELECT ARRAY[(SELECT count(*) FROM w0), (SELECT count(*) FROM w1)], ARRAY(SELECT ROW(last.*) FROM last)"
    )

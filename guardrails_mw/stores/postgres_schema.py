"""What the PostgreSQL store keeps, version by version, and the functions that change it.

All is in a schema of its own, ``guardrails``. Budgets and the log are changed by functions, so that each
operation is one statement and its own transaction. Locks are always taken in the same order: rows of ``used``
sorted by scope, then rows of ``hold`` sorted by key and scope; so nothing deadlocks.
"""

from __future__ import annotations

__all__ = ["MIGRATIONS"]

_TABLES = r"""
CREATE TABLE guardrails.version (one bool PRIMARY KEY DEFAULT true CHECK (one), number int NOT NULL);
INSERT INTO guardrails.version (number) VALUES (0);

CREATE TABLE guardrails.log (
    run text COLLATE "C" NOT NULL, seq bigint NOT NULL, key text COLLATE "C" NOT NULL, at float8 NOT NULL,
    kind text NOT NULL, body text NOT NULL, prev text NOT NULL, hash text NOT NULL,
    PRIMARY KEY (run, seq), UNIQUE (run, key));
CREATE TABLE guardrails.run (
    run text COLLATE "C" PRIMARY KEY, first float8 NOT NULL, last float8 NOT NULL, seq bigint NOT NULL,
    prev text NOT NULL, hash text NOT NULL);
CREATE INDEX run_last ON guardrails.run (last DESC, run);

CREATE TABLE guardrails.used (scope text COLLATE "C" PRIMARY KEY, amount bigint NOT NULL) WITH (fillfactor = 50);
CREATE TABLE guardrails.reserved (key text COLLATE "C" PRIMARY KEY);
CREATE TABLE guardrails.hold (
    key text COLLATE "C" NOT NULL, scope text COLLATE "C" NOT NULL, amount bigint NOT NULL, expires float8 NOT NULL,
    PRIMARY KEY (key, scope));
CREATE INDEX hold_expires ON guardrails.hold (scope, expires);

CREATE TABLE guardrails.register (
    id bigint GENERATED ALWAYS AS IDENTITY, key text COLLATE "C" PRIMARY KEY, value text NOT NULL, due float8);
CREATE INDEX register_due ON guardrails.register (due) WHERE due IS NOT NULL;

CREATE FUNCTION guardrails.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'append-only' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON guardrails.log
    FOR EACH STATEMENT EXECUTE FUNCTION guardrails.refuse();

-- What is hashed is in pieces: the number, the middle, the hash before, the texts; see guardrails_mw.ledger.link
CREATE FUNCTION guardrails.link(seq bigint, middle bytea, prev text, tail bytea) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT encode(sha256(convert_to(E'guardrails-mw/ledger/1\n' || seq, 'UTF8') || middle
                         || convert_to(prev, 'UTF8') || tail), 'hex')
$$;

CREATE FUNCTION guardrails.append(
    a_run text, a_key text, a_at float8, a_kind text, a_body text, middle bytea, tail bytea)
RETURNS SETOF guardrails.log LANGUAGE plpgsql AS $$
DECLARE
    head guardrails.run;
BEGIN
    RETURN QUERY SELECT * FROM guardrails.log l WHERE l.run = a_run AND l.key = a_key;
    IF FOUND THEN
        RETURN;
    END IF;
    INSERT INTO guardrails.run AS r (run, first, last, seq, prev, hash)
    VALUES (a_run, a_at, a_at, 1, repeat('0', 64), guardrails.link(1, middle, repeat('0', 64), tail))
    ON CONFLICT (run) DO UPDATE
    SET last = a_at, seq = r.seq + 1, prev = r.hash, hash = guardrails.link(r.seq + 1, middle, r.hash, tail)
    RETURNING * INTO head;
    RETURN QUERY INSERT INTO guardrails.log
    VALUES (a_run, head.seq, a_key, a_at, a_kind, a_body, head.prev, head.hash) RETURNING *;
END $$;
"""

_COUNTER = r"""
-- `used` counts holds from the start, so charging one in full is forgetting that it can be settled
CREATE FUNCTION guardrails.reserve(
    a_key text, scopes text[], amounts bigint[], caps bigint[], priors bigint[], a_now float8, a_expires float8)
RETURNS TABLE (place bigint, taken bigint) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO guardrails.used SELECT DISTINCT s COLLATE "C", 0 FROM unnest(scopes) s
    WHERE NOT EXISTS (SELECT FROM guardrails.used u WHERE u.scope = s COLLATE "C")
    ORDER BY 1 ON CONFLICT DO NOTHING;
    PERFORM FROM guardrails.used u WHERE u.scope = ANY (scopes) ORDER BY u.scope FOR UPDATE;
    IF EXISTS (SELECT FROM guardrails.reserved r WHERE r.key = a_key) THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM guardrails.hold h WHERE h.scope = ANY (scopes) AND h.expires <= a_now) THEN
        PERFORM FROM guardrails.hold h WHERE h.key IN (
            SELECT o.key FROM guardrails.hold o WHERE o.scope = ANY (scopes) AND o.expires <= a_now)
        ORDER BY h.key, h.scope FOR UPDATE;
        DELETE FROM guardrails.hold h WHERE h.key IN (
            SELECT o.key FROM guardrails.hold o WHERE o.scope = ANY (scopes) AND o.expires <= a_now);
    END IF;
    RETURN QUERY SELECT c.place, u.amount + c.prior
    FROM unnest(scopes, amounts, caps, priors) WITH ORDINALITY c (scope, amount, cap, prior, place)
    JOIN guardrails.used u ON u.scope = c.scope COLLATE "C"
    WHERE u.amount + c.prior + c.amount > c.cap ORDER BY c.place LIMIT 1;
    IF FOUND THEN
        RETURN;
    END IF;
    INSERT INTO guardrails.reserved VALUES (a_key) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO guardrails.hold
    SELECT a_key, c.scope, sum(c.amount), a_expires FROM unnest(scopes, amounts) c (scope, amount) GROUP BY c.scope;
    UPDATE guardrails.used u SET amount = u.amount + h.amount
    FROM guardrails.hold h WHERE h.key = a_key AND h.scope = u.scope;
END $$;

CREATE FUNCTION guardrails.settle(a_key text, units text[], amounts bigint[], forget bool) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    closed bigint;
BEGIN
    PERFORM FROM guardrails.used u
    WHERE u.scope IN (SELECT h.scope FROM guardrails.hold h WHERE h.key = a_key) ORDER BY u.scope FOR UPDATE;
    WITH held AS (DELETE FROM guardrails.hold h WHERE h.key = a_key RETURNING h.scope, h.amount),
    really AS (SELECT * FROM unnest(units, amounts) c (unit, amount)),
    charged AS (
        UPDATE guardrails.used u SET amount = u.amount - held.amount + coalesce(
            (SELECT r.amount FROM really r WHERE r.unit = substring(held.scope FROM '[^:]*$')), 0)
        FROM held WHERE u.scope = held.scope)
    SELECT count(*) INTO closed FROM held;
    IF forget AND closed > 0 THEN
        DELETE FROM guardrails.reserved r WHERE r.key = a_key;
    END IF;
    RETURN closed;
END $$;
"""

MIGRATIONS: tuple[str, ...] = (_TABLES + _COUNTER,)
"""What leads from schema version n to n + 1. Never change one that was released; add one."""

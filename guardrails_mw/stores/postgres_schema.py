"""What the PostgreSQL store keeps, version by version, and the functions that change it.

All is in a schema of its own, ``guardrails``. Budgets and the log are changed by functions, so that each
operation is one statement and its own transaction. Locks are always taken in the same order: what is kept of the
key, then rows of ``used`` sorted by scope; who forgets holds waits for none. So nothing deadlocks.
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
    key text COLLATE "C" PRIMARY KEY, expires float8 NOT NULL, scopes text[] NOT NULL, amounts bigint[] NOT NULL);

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
-- Takes from a scope that is new, or has got room since it was looked at; false: it has none, and is locked
CREATE FUNCTION guardrails.first_or_late(a_scope text, a_amount bigint, a_room bigint)
RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    taken bigint;
BEGIN
    INSERT INTO guardrails.used SELECT a_scope, a_amount WHERE a_room >= 0 ON CONFLICT DO NOTHING;
    IF FOUND THEN
        RETURN true;
    END IF;
    SELECT u.amount INTO taken FROM guardrails.used u WHERE u.scope = a_scope FOR UPDATE;
    IF NOT FOUND OR taken > a_room THEN
        RETURN false;
    END IF;
    UPDATE guardrails.used u SET amount = u.amount + a_amount WHERE u.scope = a_scope;
    RETURN true;
END $$;

-- Gives back what was taken from the first scopes, and tells what all of them have used
CREATE FUNCTION guardrails.refused(a_key text, a_scopes text[], a_amounts bigint[], a_taken int)
RETURNS bigint[] LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. a_taken LOOP
        UPDATE guardrails.used u SET amount = u.amount - a_amounts[i] WHERE u.scope = a_scopes[i];
    END LOOP;
    DELETE FROM guardrails.hold h WHERE h.key = a_key;
    DELETE FROM guardrails.reserved r WHERE r.key = a_key;
    RETURN ARRAY(
        SELECT coalesce(u.amount, 0) FROM unnest(a_scopes) WITH ORDINALITY c (scope, place)
        LEFT JOIN guardrails.used u ON u.scope = c.scope COLLATE "C" ORDER BY c.place);
END $$;

-- Looks at the next holds after a key, and forgets those whose time was over then. The last key, or '' at the end.
-- There are few holds at a time, and looking is rare: an index by time would cost every reservation more.
CREATE FUNCTION guardrails.forget(a_after text, a_stale float8) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    seen text[];
BEGIN
    seen := ARRAY(SELECT h.key FROM guardrails.hold h WHERE h.key > a_after ORDER BY h.key LIMIT 1000);
    DELETE FROM guardrails.hold h WHERE h.key IN (
        SELECT o.key FROM guardrails.hold o WHERE o.key = ANY (seen) AND o.expires <= a_stale
        FOR UPDATE SKIP LOCKED);
    RETURN CASE WHEN cardinality(seen) = 1000 THEN seen[1000] ELSE '' END;
END $$;

CREATE FUNCTION guardrails.settle(a_key text, units text[], spent bigint[], forget bool) RETURNS bool
LANGUAGE plpgsql AS $$
DECLARE
    held guardrails.hold;
BEGIN
    DELETE FROM guardrails.hold h WHERE h.key = a_key RETURNING h.* INTO held;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    FOR i IN 1 .. cardinality(held.scopes) LOOP
        UPDATE guardrails.used u SET amount = u.amount - held.amounts[i]
            + coalesce(spent[array_position(units, reverse(split_part(reverse(held.scopes[i]), ':', 1)))], 0)
        WHERE u.scope = held.scopes[i];
    END LOOP;
    IF forget THEN
        DELETE FROM guardrails.reserved r WHERE r.key = a_key;
    END IF;
    RETURN true;
END $$;
"""

# Version 1 did not tell a key that was used before from one that is held
_RESERVE = r"""
-- NULL: held; {}: the key was used before. Else nothing is held, and this is what the scopes have used, at least one
-- of them more than its room. Scopes come sorted and once each. `used` counts holds from the start.
CREATE OR REPLACE FUNCTION guardrails.reserve(
    a_key text, a_scopes text[], a_amounts bigint[], a_rooms bigint[], a_expires float8)
RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    one text;
    more bigint;
    room bigint;
BEGIN
    INSERT INTO guardrails.reserved VALUES (a_key) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN '{}';
    ELSIF cardinality(a_scopes) = 0 THEN
        RETURN NULL;
    END IF;
    INSERT INTO guardrails.hold VALUES (a_key, a_expires, a_scopes, a_amounts);
    FOR i IN 1 .. cardinality(a_scopes) LOOP
        one := a_scopes[i];
        more := a_amounts[i];
        room := a_rooms[i];
        UPDATE guardrails.used u SET amount = u.amount + more WHERE u.scope = one AND u.amount <= room;
        IF NOT FOUND AND NOT guardrails.first_or_late(one, more, room) THEN
            RETURN guardrails.refused(a_key, a_scopes, a_amounts, i - 1);
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
"""

MIGRATIONS: tuple[str, ...] = (_TABLES + _COUNTER, _RESERVE)
"""What leads from schema version n to n + 1. Never change one that was released; add one."""

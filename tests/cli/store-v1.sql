BEGIN TRANSACTION;
CREATE TABLE hold (
        key TEXT NOT NULL, scope TEXT NOT NULL, amount INTEGER NOT NULL, expires REAL NOT NULL,
        PRIMARY KEY (key, scope)) STRICT, WITHOUT ROWID;
INSERT INTO "hold" VALUES('open','run:1:usd',60,900.0);
CREATE TABLE log (
        run TEXT NOT NULL, seq INTEGER NOT NULL, key TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL,
        body TEXT NOT NULL, prev TEXT NOT NULL, hash TEXT NOT NULL,
        PRIMARY KEY (run, seq), UNIQUE (run, key)) STRICT, WITHOUT ROWID;
INSERT INTO "log" VALUES('run-1',1,'k1',1.0,'decision','{"action":"allow","v":1,"verdict":"allow"}','0000000000000000000000000000000000000000000000000000000000000000','c1e8fa28bed18bf7f8f44ddaab22ed41d21dad6712e65c074cfce2b9bfc9dbac');
INSERT INTO "log" VALUES('run-1',2,'k2',2.0,'decision','{"action":"block","v":1,"verdict":"block"}','c1e8fa28bed18bf7f8f44ddaab22ed41d21dad6712e65c074cfce2b9bfc9dbac','9dc1d0d9a57dc06f75c6b3a1cc64400e3b9eacdeeebf1a0558b9264bc47b3000');
CREATE TABLE register (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value TEXT NOT NULL, due REAL) STRICT;
INSERT INTO "register" VALUES(1,'approval:1','{}',50.0);
INSERT INTO "register" VALUES(2,'secret','0000000000000000000000000000000000000000000000000000000000000000',NULL);
CREATE TABLE reserved (key TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
INSERT INTO "reserved" VALUES('open');
INSERT INTO "reserved" VALUES('settled');
CREATE TABLE used (scope TEXT PRIMARY KEY, amount INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO "used" VALUES('run:1:usd',67);
CREATE TRIGGER log_no_update BEFORE UPDATE ON log BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER log_no_delete BEFORE DELETE ON log BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER log_no_replace BEFORE INSERT ON log
        WHEN EXISTS (SELECT 1 FROM log WHERE run = NEW.run AND seq = NEW.seq)
          OR EXISTS (SELECT 1 FROM log WHERE run = NEW.run AND key = NEW.key)
        BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE INDEX hold_expires ON hold (expires);
CREATE INDEX register_due ON register (due) WHERE due IS NOT NULL;
COMMIT;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;

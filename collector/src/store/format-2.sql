PRAGMA application_id = 1213678447;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE epochs (
    id INTEGER PRIMARY KEY,
    agent TEXT NOT NULL,
    epoch TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    batches INTEGER NOT NULL DEFAULT 0,
    duplicates INTEGER NOT NULL DEFAULT 0,
    UNIQUE (agent, epoch)
) STRICT;
INSERT INTO epochs VALUES(1,'plant-7','00112233445566778899aabbccddeeff',1795258129169503,1795258129173209,3,0);
CREATE TABLE batches (
    epoch INTEGER NOT NULL REFERENCES epochs,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    digest BLOB NOT NULL,
    received INTEGER NOT NULL,
    PRIMARY KEY (epoch, first, last)
) STRICT, WITHOUT ROWID;
INSERT INTO batches VALUES(1,0,3,X'f48ab2ad4727ca56839a01a2c30150ef8ddb90e94486addf1e98a27115a96425',1795258129169503);
INSERT INTO batches VALUES(1,4,5,X'a19905497d8c43116a2e348c8131a545d07784324788f57d5e5a81bcc7e40569',1795258129172065);
INSERT INTO batches VALUES(1,6,6,X'e6ebeeb4e6d591a5de3d02ab2c3b8f25af9b5845672b0858ff3b02e20ccbc8dd',1795258129173209);
CREATE TABLE coverage (
    epoch INTEGER NOT NULL REFERENCES epochs,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (epoch, first)
) STRICT, WITHOUT ROWID;
INSERT INTO coverage VALUES(1,0,6);
CREATE TABLE pipelines (
    id INTEGER PRIMARY KEY,
    agent TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    results INTEGER NOT NULL DEFAULT 0,
    events INTEGER NOT NULL DEFAULT 0,
    readings INTEGER NOT NULL DEFAULT 0,
    late INTEGER NOT NULL DEFAULT 0,
    rejected INTEGER NOT NULL DEFAULT 0,
    replaced INTEGER NOT NULL DEFAULT 0,
    ignored INTEGER NOT NULL DEFAULT 0,
    UNIQUE (agent, pipeline)
) STRICT;
INSERT INTO pipelines VALUES(1,'plant-7','temperature',3,0,15,2,1,1,1);
INSERT INTO pipelines VALUES(2,'plant-7','raw',0,1,0,0,0,0,0);
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    pipeline INTEGER NOT NULL REFERENCES pipelines,
    key TEXT NOT NULL,
    UNIQUE (pipeline, key)
) STRICT;
INSERT INTO series VALUES(1,1,'hall/1');
INSERT INTO series VALUES(2,1,'hall/2');
INSERT INTO series VALUES(3,2,'hall/1');
CREATE TABLE modules (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO modules VALUES(1,'sha256:abababababababababababababababababababababababababababababababab');
CREATE TABLE results (
    change INTEGER PRIMARY KEY,
    pipeline INTEGER NOT NULL REFERENCES pipelines,
    series INTEGER NOT NULL REFERENCES series,
    epoch INTEGER NOT NULL REFERENCES epochs,
    seq INTEGER NOT NULL,
    start INTEGER NOT NULL,
    end INTEGER,
    revision INTEGER,
    count INTEGER,
    late INTEGER,
    rejected INTEGER,
    module INTEGER REFERENCES modules,
    value TEXT NOT NULL
) STRICT;
INSERT INTO results VALUES(2,1,2,1,1,1767225600000000,1767225610000000,0,4,0,0,1,'{"mean":4.5}');
INSERT INTO results VALUES(3,2,3,1,2,1767225615000000,NULL,NULL,NULL,NULL,NULL,NULL,'{"n":1}');
INSERT INTO results VALUES(4,1,1,1,4,1767225600000000,1767225610000000,1,5,2,1,1,'{"mean":5.5}');
INSERT INTO results VALUES(5,1,1,1,5,1767225610000000,1767225620000000,0,6,0,0,1,'{"mean":6.5}');
CREATE TABLE reports (
    id INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL REFERENCES epochs,
    seq INTEGER NOT NULL,
    agent TEXT NOT NULL,
    pipeline TEXT,
    time INTEGER NOT NULL,
    kind TEXT NOT NULL,
    count INTEGER,
    value TEXT NOT NULL,
    UNIQUE (epoch, seq)
) STRICT;
INSERT INTO reports VALUES(1,1,3,'plant-7','temperature',1767225620000000,'lost',2,'{"kind":"lost","count":2,"reason":"the disk"}');
CREATE UNIQUE INDEX by_series ON results (series, start, end);
CREATE UNIQUE INDEX by_seq ON results (epoch, seq) WHERE end IS NULL;
CREATE INDEX by_pipeline ON results (pipeline, start);
CREATE INDEX by_start ON results (start);
CREATE INDEX by_agent ON reports (agent, kind);
COMMIT;
PRAGMA user_version = 2;

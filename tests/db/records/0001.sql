BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE chain (
	table_name VARCHAR NOT NULL, 
	floor_id INTEGER NOT NULL, 
	floor_hash BLOB NOT NULL, 
	PRIMARY KEY (table_name)
);
INSERT INTO "chain" VALUES('part',0,X'0000000000000000000000000000000000000000000000000000000000000000');
INSERT INTO "chain" VALUES('event',0,X'0000000000000000000000000000000000000000000000000000000000000000');
CREATE TABLE event (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	uid VARCHAR NOT NULL, 
	unix_ns BIGINT NOT NULL, 
	run_id VARCHAR, 
	kind VARCHAR NOT NULL, 
	severity VARCHAR NOT NULL, 
	title VARCHAR NOT NULL, 
	detail JSON NOT NULL, 
	user VARCHAR NOT NULL, 
	hash BLOB NOT NULL, 
	UNIQUE (uid), 
	FOREIGN KEY(run_id) REFERENCES run (run_id)
);
INSERT INTO "event" VALUES(1,'event-1',1,NULL,'alarm','low','alarm 1','{"key":"1"}','',X'65D1B355B5DFCE7A17F29946FA31A0D64421FE2B1EC04DD68C0E3C7324FAABDE');
INSERT INTO "event" VALUES(2,'event-2',2,NULL,'alarm','low','alarm 2','{"key":"2"}','',X'63BAF29A0059D6993D24813D98B2C447A88673339E239C8CA328AF9AC94CE92E');
CREATE TABLE hourly (
	hour_unix_s BIGINT NOT NULL, 
	shift_key VARCHAR NOT NULL, 
	verdict VARCHAR NOT NULL, 
	reason VARCHAR NOT NULL, 
	parts INTEGER NOT NULL, 
	PRIMARY KEY (hour_unix_s, shift_key, verdict, reason)
);
INSERT INTO "hourly" VALUES(1789999200,'2026-11-24 A','PASS','below limit',3);
CREATE TABLE part (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	uid VARCHAR NOT NULL, 
	run_id VARCHAR NOT NULL, 
	part_seq BIGINT NOT NULL, 
	camera_id VARCHAR NOT NULL, 
	frame_id BIGINT, 
	triggered_unix_ns BIGINT NOT NULL, 
	shift_key VARCHAR NOT NULL, 
	lot VARCHAR NOT NULL, 
	recipe VARCHAR NOT NULL, 
	user VARCHAR NOT NULL, 
	verdict VARCHAR NOT NULL, 
	reason VARCHAR NOT NULL, 
	score DOUBLE, 
	limit_recheck DOUBLE NOT NULL, 
	limit_reject DOUBLE NOT NULL, 
	model_id VARCHAR NOT NULL, 
	latency_ms DOUBLE NOT NULL, 
	timings_ms JSON NOT NULL, 
	image_path VARCHAR, 
	map_path VARCHAR, 
	image_shed BOOLEAN NOT NULL, 
	regions JSON NOT NULL, 
	hash BLOB NOT NULL, 
	CONSTRAINT uq_part_run_seq_camera UNIQUE (run_id, part_seq, camera_id), 
	UNIQUE (uid), 
	FOREIGN KEY(run_id) REFERENCES run (run_id)
);
INSERT INTO "part" VALUES(1,'part-1','run-1',1,'CAM 1',1,1790000001000000000,'2026-11-24 A','L1','button','ana','PASS','below limit',3.33333333333333314829e-01,0.8,1.0,'m1',31.0,'{"align":1.5,"predict":20.25}','2026/09/21/14/part-1.png',NULL,0,'[[0.1,0.2,0.3,0.4]]',X'5AD303E48A4C7599BE70E74460B4B35E556CF93D3CA44B4AF9368143B490D743');
INSERT INTO "part" VALUES(2,'part-2','run-1',2,'CAM 1',2,1790000002000000000,'2026-11-24 A','L1','button','ana','PASS','below limit',NULL,0.8,1.0,'m1',32.0,'{"align":1.5,"predict":20.25}','2026/09/21/14/part-2.png',NULL,0,'[[0.1,0.2,0.3,0.4]]',X'1DC570302D88FB368DEE516DD93F45DF79662A4E6C8BA89091FB07B618CD8273');
INSERT INTO "part" VALUES(3,'part-3','run-1',3,'CAM 1',3,1790000003000000000,'2026-11-24 A','L1','button','ana','PASS','below limit',1.0,0.8,1.0,'m1',33.0,'{"align":1.5,"predict":20.25}','2026/09/21/14/part-3.png',NULL,0,'[[0.1,0.2,0.3,0.4]]',X'A32D4688D0EBACD7E77ACFE1D93802117FEDAD7E5524EB552AACE4E5B732A255');
CREATE TABLE run (
	run_id VARCHAR NOT NULL, 
	station VARCHAR NOT NULL, 
	started_unix_ns BIGINT NOT NULL, 
	stopped_unix_ns BIGINT, 
	version VARCHAR NOT NULL, 
	config_sha256 VARCHAR NOT NULL, 
	model_id VARCHAR NOT NULL, 
	stop_reason VARCHAR, 
	PRIMARY KEY (run_id)
);
INSERT INTO "run" VALUES('run-1','S1',1,NULL,'1','c','m1',NULL);
CREATE INDEX ix_run_started_unix_ns ON run (started_unix_ns);
CREATE INDEX ix_part_seq ON part (part_seq);
CREATE INDEX ix_part_time_verdict ON part (triggered_unix_ns, verdict);
CREATE INDEX ix_part_shift ON part (shift_key, verdict, reason, latency_ms);
CREATE INDEX ix_part_not_pass ON part (triggered_unix_ns) WHERE verdict <> 'PASS';
CREATE INDEX ix_event_time_kind ON event (unix_ns, kind);
CREATE TRIGGER part_no_update BEFORE UPDATE ON part BEGIN SELECT RAISE(ABORT, 'part is append-only'); END;
CREATE TRIGGER part_no_delete BEFORE DELETE ON part WHEN OLD.id > (SELECT floor_id FROM chain WHERE table_name = 'part') BEGIN SELECT RAISE(ABORT, 'part is append-only: retention alone removes old rows'); END;
CREATE TRIGGER event_no_update BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'event is append-only'); END;
CREATE TRIGGER event_no_delete BEFORE DELETE ON event WHEN OLD.id > (SELECT floor_id FROM chain WHERE table_name = 'event') BEGIN SELECT RAISE(ABORT, 'event is append-only: retention alone removes old rows'); END;
CREATE TRIGGER chain_only_up BEFORE UPDATE ON chain WHEN NEW.floor_id < OLD.floor_id OR NEW.table_name <> OLD.table_name BEGIN SELECT RAISE(ABORT, 'the floor of a chain only rises'); END;
CREATE TRIGGER chain_no_delete BEFORE DELETE ON chain BEGIN SELECT RAISE(ABORT, 'the floor of a chain only rises'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('part',3);
INSERT INTO "sqlite_sequence" VALUES('event',2);
COMMIT;

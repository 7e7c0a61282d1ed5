CREATE TABLE knowledge_stop_changes (
  id INTEGER NOT NULL,
  at DOUBLE NOT NULL,
  action VARCHAR(8) NOT NULL,
  model VARCHAR(200) NOT NULL,
  changed_by VARCHAR(200) NOT NULL,
  reason VARCHAR(400) NOT NULL,
  PRIMARY KEY (id)
);

CREATE TABLE knowledge_withdrawals (
  kind VARCHAR(16) NOT NULL,
  tenant VARCHAR(200) NOT NULL,
  name VARCHAR(200) NOT NULL,
  reason VARCHAR(400) NOT NULL,
  at DOUBLE NOT NULL,
  PRIMARY KEY (kind, tenant, name)
);

CREATE TABLE document_contents (
  tenant VARCHAR(100) NOT NULL,
  sha256 VARCHAR(64) NOT NULL,
  document_id VARCHAR(100) NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (tenant, sha256)
);

CREATE TABLE document_decisions (
  id INTEGER NOT NULL,
  tenant VARCHAR(100) NOT NULL,
  document_id VARCHAR(100) NOT NULL,
  version INTEGER NOT NULL,
  decision VARCHAR(16) NOT NULL,
  decided_by VARCHAR(200) NOT NULL,
  decided_at DOUBLE NOT NULL,
  visible_from DOUBLE,
  visible_until DOUBLE,
  PRIMARY KEY (id)
);

CREATE TABLE documents (
  tenant VARCHAR(100) NOT NULL,
  document_id VARCHAR(100) NOT NULL,
  latest INTEGER NOT NULL,
  updated_at DOUBLE NOT NULL,
  PRIMARY KEY (tenant, document_id)
);

CREATE TABLE ingest_jobs (
  id VARCHAR(32) NOT NULL,
  tenant VARCHAR(100) NOT NULL,
  document_id VARCHAR(100) NOT NULL,
  version INTEGER NOT NULL,
  state VARCHAR(16) NOT NULL,
  stage VARCHAR(16) NOT NULL,
  done INTEGER NOT NULL,
  total INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  claimed_by VARCHAR(200),
  claimed_until DOUBLE NOT NULL,
  created_at DOUBLE NOT NULL,
  updated_at DOUBLE NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (tenant, document_id, version)
);

CREATE INDEX ingest_jobs_waiting ON ingest_jobs (state, created_at);

CREATE TABLE document_versions (
  tenant VARCHAR(100) NOT NULL,
  document_id VARCHAR(100) NOT NULL,
  version INTEGER NOT NULL,
  file_name TEXT NOT NULL,
  sha256 VARCHAR(64) NOT NULL,
  size BIGINT NOT NULL,
  fingerprint VARCHAR(64) NOT NULL,
  title TEXT,
  product TEXT,
  language VARCHAR(8),
  readers JSON NOT NULL,
  effective_from DATE,
  effective_until DATE,
  format VARCHAR(32),
  state VARCHAR(16) NOT NULL,
  reason VARCHAR(64),
  detail TEXT,
  passages INTEGER NOT NULL,
  uploaded_by VARCHAR(200) NOT NULL,
  uploaded_at DOUBLE NOT NULL,
  approved_by VARCHAR(200),
  approved_at DOUBLE,
  visible_from DOUBLE,
  visible_until DOUBLE,
  window_written INTEGER NOT NULL,
  PRIMARY KEY (tenant, document_id, version),
  FOREIGN KEY(tenant, document_id) REFERENCES documents (tenant, document_id)
);

CREATE INDEX ix_document_versions_state ON document_versions (state);

CREATE TABLE chatbot_audit (
  writer VARCHAR(32) NOT NULL,
  sequence INTEGER NOT NULL,
  kind VARCHAR(8) NOT NULL,
  answer_id VARCHAR(64) NOT NULL,
  tenant VARCHAR(200) NOT NULL,
  at DOUBLE NOT NULL,
  body TEXT NOT NULL,
  prev_hmac VARCHAR(64) NOT NULL,
  hmac VARCHAR(64) NOT NULL,
  PRIMARY KEY (writer, sequence),
  UNIQUE (answer_id, kind)
);

CREATE INDEX ix_chatbot_audit_at ON chatbot_audit (at);

CREATE TABLE chatbot_feedback (
  answer_id VARCHAR(64) NOT NULL,
  tenant VARCHAR(200) NOT NULL,
  rating VARCHAR(4) NOT NULL,
  reasons TEXT NOT NULL,
  comment TEXT NOT NULL,
  at DOUBLE NOT NULL,
  PRIMARY KEY (answer_id)
);

CREATE INDEX ix_chatbot_feedback_at ON chatbot_feedback (at);

-- A role for each service, with the rows that it needs and no right to change a table (accounts.separate). Run by the tables'
-- owner with psql, once both `migrate` have made them, and again after a release that adds some; CREATE ROLE says then that
-- the roles are there: psql -v chatbot_password=… -v ingest_password=… -f postgres-roles.sql
CREATE ROLE bank_chatbot LOGIN PASSWORD :'chatbot_password';
CREATE ROLE bank_ingest LOGIN PASSWORD :'ingest_password';

GRANT USAGE ON SCHEMA public TO bank_chatbot, bank_ingest;
GRANT SELECT ON knowledge_schema, chatbot_schema, knowledge_index_state TO bank_chatbot;
GRANT SELECT ON knowledge_schema, ingest_schema TO bank_ingest;

-- What a log is, is only added to: the audit's rows and who decided what can be neither changed nor removed.
GRANT SELECT, INSERT ON chatbot_audit, knowledge_stop_changes TO bank_chatbot;
GRANT SELECT, INSERT ON document_decisions TO bank_ingest;
GRANT USAGE ON knowledge_stop_changes_id_seq TO bank_chatbot;
GRANT USAGE ON document_decisions_id_seq TO bank_ingest;

GRANT SELECT, INSERT, DELETE ON chatbot_feedback TO bank_chatbot;
GRANT SELECT, INSERT, UPDATE, DELETE ON knowledge_withdrawals, knowledge_service_keys TO bank_chatbot;

GRANT SELECT, INSERT, UPDATE ON documents, document_versions, document_contents, ingest_jobs TO bank_ingest;
GRANT SELECT, INSERT, DELETE ON knowledge_withdrawals TO bank_ingest;
GRANT SELECT ON knowledge_stop_changes TO bank_ingest;
GRANT SELECT, UPDATE ON knowledge_service_keys, knowledge_index_state TO bank_ingest;

DROP TABLE log_entries;
DROP TABLE log_heads;

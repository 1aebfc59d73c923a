ALTER TABLE prekeys DROP COLUMN store_epoch;
ALTER TABLE store DROP COLUMN lineage;

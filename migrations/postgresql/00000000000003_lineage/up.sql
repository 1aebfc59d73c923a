-- The history of the database server that the store was last served from (PostgreSQL: system identifier and timeline), so that a failover or a
-- restored copy is noticed: it may lack what was answered, and its numbers come a second time. Empty where there is no server.
ALTER TABLE store ADD COLUMN lineage TEXT NOT NULL DEFAULT '';
-- The store's epoch when the prekey came. After a failover the epoch is raised, and one-time prekeys of an older one are given to nobody: the
-- database may have forgotten that they were claimed. (Marking them one by one would keep a large store waiting.)
ALTER TABLE prekeys ADD COLUMN store_epoch BIGINT NOT NULL DEFAULT 1;

-- What the nodes of a cluster share: the same secret file, which this value tells apart from another one without giving it away (an HMAC of
-- store_id). NULL until the first node has started.
ALTER TABLE store ADD COLUMN secret_check BLOB;

DROP TABLE former_members;
ALTER TABLE members DROP COLUMN joined_seq;

ALTER TABLE store DROP COLUMN secret_check;

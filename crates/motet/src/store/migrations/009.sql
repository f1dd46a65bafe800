-- Version 9. A purge is told again to a remote that has lost it.

-- The changes that deleted and purged the document; NULL: not kept.
ALTER TABLE grave ADD COLUMN changes BLOB;

-- Version 7. A log is known again at another address, and whoever emptied the file is noticed by those who still read into it.

ALTER TABLE remote ADD COLUMN log BLOB; -- what the relay calls the log; NULL: it has never been met

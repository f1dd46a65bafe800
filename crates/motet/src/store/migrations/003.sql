-- Version 3. The conflict journal says who wrote the value that shows, and when.

ALTER TABLE conflict ADD COLUMN winner_device BLOB;
ALTER TABLE conflict ADD COLUMN winner_time INTEGER; -- seconds since 1970, by that device's clock

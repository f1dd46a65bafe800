-- Version 10. The times of conflicts are milliseconds, as all others are. What is no time (2^53 milliseconds at most) stays.

UPDATE conflict SET time = time * 1000 WHERE time BETWEEN -9007199254740 AND 9007199254740;
UPDATE conflict SET winner_time = winner_time * 1000 WHERE winner_time BETWEEN -9007199254740 AND 9007199254740;

//! Reading the rows of a table of which some pages are damaged.

use std::collections::VecDeque;

use rusqlite::{Connection, Row};

use crate::limits;

/// Reads the rows of a table between two ids, from both ends if some cannot be read, and then what lies between damaged pages. Says
/// whether that were all.
pub(super) fn read_rows(
    conn: &Connection,
    select: &str,
    (low, high): (i64, i64),
    take: &mut dyn FnMut(&Row<'_>) -> rusqlite::Result<i64>,
) -> bool {
    let mut run = |low: i64, high: i64, direction: &str| -> (Option<i64>, bool) {
        let mut reached = None;
        let sql = format!("{select} WHERE id > ? AND id < ? ORDER BY id {direction}");
        let Ok(mut statement) = conn.prepare(&sql) else { return (None, false) };
        let Ok(mut rows) = statement.query([low, high]) else { return (None, false) };
        loop {
            match rows.next() {
                Ok(Some(row)) => reached = take(row).ok().or(reached),
                Ok(None) => return (reached, true),
                Err(_) => return (reached, false),
            }
        }
    };
    let (first, is_whole) = run(low, high, "ASC");
    if is_whole {
        return true;
    }
    let (last, _) = run(low, high, "DESC");
    let mut gaps = VecDeque::from([(first.unwrap_or(low), last.unwrap_or(high))]);
    for _ in 0..limits::SALVAGE_PROBES {
        let Some((low, high)) = gaps.pop_front() else { break };
        if high.saturating_sub(low) <= 1 {
            continue;
        }
        let middle = low.midpoint(high);
        let (last, is_whole) = run(middle.saturating_sub(1), high, "ASC");
        if !is_whole {
            gaps.push_back((last.unwrap_or(middle.saturating_sub(1)).max(low), high));
        }
        let (first, is_whole) = run(low, middle, "DESC");
        if !is_whole {
            gaps.push_back((low, first.unwrap_or(middle)));
        }
    }
    false
}

//! Filters as SQL over the projection.

use rusqlite::types::Value;
use serde_json::Value as Json;

use super::{Result, StorageError};
use crate::limits;
use crate::query::Comparison;
use crate::query::{FieldPath, Filter};

/// 2^63: whole numbers from here on are no integers of SQLite, which reads them as floating point.
const BEYOND_INTEGER: f64 = 9_223_372_036_854_775_808.0;

/// What documents show, in a statement of [`Sql`].
pub(super) const JSON: &str = "p.json";

/// A statement being put together: text with placeholders, and what goes into them.
pub(super) struct Sql {
    pub(super) text: String,
    pub(super) values: Vec<Value>,
    /// Conditions that the one being read stands in.
    depth: usize,
}

/// A value of a document: what SQLite makes of it, its type in JSON, and its JSON.
struct Operand {
    value: String,
    kind: String,
    json: String,
}

impl Sql {
    /// The live documents of a collection. The literal lets SQLite use the collection's own indexes.
    pub(super) fn new(collection: &str) -> Self {
        let text =
            format!("FROM projection p WHERE p.collection = {} AND p.deleted = 0", literal(collection));
        Self { text, values: Vec::new(), depth: 0 }
    }

    pub(super) fn condition(&mut self, filter: &Filter) -> Result<()> {
        self.text += " AND ";
        self.filter(filter)
    }

    fn filter(&mut self, filter: &Filter) -> Result<()> {
        self.depth += 1;
        if self.depth > limits::QUERY_DEPTH {
            let most = limits::QUERY_DEPTH;
            return Err(StorageError::Query(format!("conditions stand in each other more than {most} deep")));
        }
        self.filter_at_depth(filter)?;
        self.depth -= 1;
        if self.values.len() > limits::QUERY_VALUES {
            let most = limits::QUERY_VALUES;
            return Err(StorageError::Query(format!("it compares with more than {most} values")));
        }
        Ok(())
    }

    fn filter_at_depth(&mut self, filter: &Filter) -> Result<()> {
        match filter {
            Filter::All(all) => self.each(all, " AND ", "1", &mut Self::filter),
            Filter::Any(any) => self.each(any, " OR ", "0", &mut Self::filter),
            Filter::Not(filter) => self.not(|sql| sql.filter(filter)),
            Filter::Compare(field, Comparison::Ne, value) => {
                let operand = Operand::field(field)?;
                self.not(|sql| sql.compare(&operand, Comparison::Eq, value))
            }
            Filter::Compare(field, comparison, value) => {
                self.compare(&Operand::field(field)?, *comparison, value)
            }
            Filter::In(field, values) => self.is_in(&Operand::field(field)?, values),
            Filter::Contains(field, value) => {
                let path = path(JSON, field)?;
                self.text += &format!(
                    "(json_type(p.json, {path}) = 'array'
                      AND EXISTS (SELECT 1 FROM json_each(p.json, {path}) e WHERE "
                );
                self.compare(&Operand::element(), Comparison::Eq, value)?;
                self.text += "))";
                Ok(())
            }
            Filter::StartsWith(field, prefix) => {
                let Operand { value, kind, .. } = Operand::field(field)?;
                self.text += &format!("({value} >= ? AND ");
                self.values.push(Value::Text(prefix.clone()));
                if let Some(end) = after_all_with(prefix) {
                    self.text += &format!("{value} < ? AND ");
                    self.values.push(Value::Text(end));
                }
                self.text += &format!("{kind} = 'text')");
                Ok(())
            }
            Filter::Pending => {
                self.text += "EXISTS (SELECT 1 FROM outbox o WHERE o.document = p.document
                              AND o.remote IN (SELECT id FROM remote WHERE active = 1))";
                Ok(())
            }
            Filter::Conflicted => {
                self.text += "p.conflicts > 0";
                Ok(())
            }
            Filter::Invalid(reason) => Err(StorageError::Query(reason.clone())),
        }
    }

    fn not(&mut self, inner: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.text += "NOT COALESCE(";
        inner(self)?;
        self.text += ", 0)";
        Ok(())
    }

    /// All of them, in pairs of pairs: SQLite bounds how deep an expression is, and reads `a OR b OR c` as one in another.
    fn each<T>(
        &mut self,
        all: &[T],
        between: &str,
        of_none: &str,
        one: &mut impl FnMut(&mut Self, &T) -> Result<()>,
    ) -> Result<()> {
        match all {
            [] => self.text += of_none,
            [item] => one(self, item)?,
            _ => {
                let (first, second) = all.split_at(all.len() / 2);
                self.text.push('(');
                self.each(first, between, of_none, one)?;
                self.text += between;
                self.each(second, between, of_none, one)?;
                self.text.push(')');
            }
        }
        Ok(())
    }

    /// A comparison with a value of one kind holds for values of that kind only. SQLite has true as 1, and an array as its text.
    fn compare(&mut self, operand: &Operand, comparison: Comparison, value: &Json) -> Result<()> {
        let operator = match comparison {
            Comparison::Eq => "=",
            Comparison::Ne => "<>",
            Comparison::Lt => "<",
            Comparison::Le => "<=",
            Comparison::Gt => ">",
            Comparison::Ge => ">=",
        };
        if let Some(large) = Large::of(value) {
            self.compare_large(operand, comparison, operator, &large);
            return Ok(());
        }
        let Operand { value: column, kind, .. } = operand;
        let (kinds, value) = match value {
            Json::Null => {
                let holds = matches!(comparison, Comparison::Eq);
                self.text += &if holds { format!("{column} IS NULL") } else { "0".into() };
                return Ok(());
            }
            Json::Bool(b) => ("'true', 'false'", Value::Integer(i64::from(*b))),
            Json::Number(n) => match n.as_i64() {
                Some(n) => ("'integer', 'real'", Value::Integer(n)),
                None => ("'integer', 'real'", Value::Real(n.as_f64().unwrap_or_default())),
            },
            Json::String(text) => ("'text'", Value::Text(text.clone())),
            other => {
                let reason = format!("{other} is neither a string, a number nor a boolean");
                return Err(StorageError::Query(reason));
            }
        };
        self.text += &format!("({column} {operator} ? AND {kind} IN ({kinds}))");
        self.values.push(value);
        Ok(())
    }

    /// What SQLite reads such numbers as has 53 bits; where that is equal, the digits decide.
    fn compare_large(&mut self, operand: &Operand, comparison: Comparison, operator: &str, large: &Large) {
        let Operand { value, kind, json } = operand;
        let real = match comparison {
            Comparison::Eq => large.is_exact(),
            Comparison::Ne => !large.is_exact(),
            Comparison::Lt => large.rounded_is_less(),
            Comparison::Le => large.rounded_is_less() || large.is_exact(),
            Comparison::Gt => !large.rounded_is_less() && !large.is_exact(),
            Comparison::Ge => !large.rounded_is_less(),
        };
        let equal = format!(
            "({value} = ? AND CASE {kind} WHEN 'integer' THEN (length({json}), {json}) {operator} (?, ?)
                              WHEN 'real' THEN {} ELSE 0 END)",
            i64::from(real)
        );
        self.values.push(Value::Real(large.rounded));
        self.values.push(Value::Integer(large.digits.len() as i64));
        self.values.push(Value::Text(large.digits.clone()));
        match comparison {
            Comparison::Eq | Comparison::Ne => self.text += &equal,
            _ => {
                let strict = operator.trim_end_matches('=');
                self.text += &format!("({equal} OR ({value} {strict} ? AND {kind} IN ('integer', 'real')))");
                self.values.push(Value::Real(large.rounded));
            }
        }
    }

    fn is_in(&mut self, operand: &Operand, values: &[Json]) -> Result<()> {
        // Strings together, so that an index of them serves.
        let (texts, others): (Vec<&Json>, Vec<&Json>) = values.iter().partition(|value| value.is_string());
        let one = &mut |sql: &mut Self, value: &&Json| sql.compare(operand, Comparison::Eq, value);
        if texts.is_empty() {
            return self.each(&others, " OR ", "0", one);
        }
        let places = vec!["?"; texts.len()].join(", ");
        self.text += &format!("(({} IN ({places}) AND {} = 'text')", operand.value, operand.kind);
        self.values.extend(texts.iter().filter_map(|text| text.as_str()).map(|t| Value::Text(t.to_owned())));
        if !others.is_empty() {
            self.text += " OR ";
            self.each(&others, " OR ", "0", one)?;
        }
        self.text.push(')');
        Ok(())
    }
}

impl Operand {
    fn field(field: &str) -> Result<Self> {
        let path = path(JSON, field)?;
        Ok(Self {
            value: extract(JSON, field)?,
            kind: format!("json_type(p.json, {path})"),
            json: format!("(p.json -> {path})"),
        })
    }

    /// An element of an array, from `json_each`.
    fn element() -> Self {
        let json = "(p.json -> e.fullkey)".to_owned();
        Self { value: "e.value".into(), kind: "e.type".into(), json }
    }
}

/// The whole numbers from 2^63 on that a field holds, which SQLite reads as floating point.
pub(super) struct LargeIntegers {
    /// Whether a document has one.
    pub(super) is_there: String,
    /// What such a number, or a fraction beside it, is more than 2^63: exact, so it orders those that are read as equal. Null for others.
    pub(super) beyond: String,
}

impl LargeIntegers {
    pub(super) fn of(field: &str) -> Result<Self> {
        let Operand { value, kind, json } = Operand::field(field)?;
        // A range of numbers alone, so that an index of the field finds them.
        let is_large = format!("{value} BETWEEN {BEYOND_INTEGER:.1} AND {:.1}", 2.0 * BEYOND_INTEGER);
        // The digits before the last one count tens. A ten less and ten ones more: twice 2^63 would leave the integers on the way. A
        // difference of two such numbers is exact, also as floating point.
        let whole = format!(
            "(CAST(substr({json}, 1, length({json}) - 1) AS INTEGER) - {}) * 10 + CAST(substr({json}, -1) AS INTEGER) + {}",
            (1_u64 << 63) / 10 + 1,
            10 - (1_u64 << 63) % 10
        );
        let beyond = format!(
            "CASE WHEN {is_large} THEN CASE {kind} WHEN 'integer' THEN {whole}
                                                   WHEN 'real' THEN {value} - {BEYOND_INTEGER:.1} END END"
        );
        Ok(Self { is_there: format!("{is_large} AND {kind} = 'integer'"), beyond })
    }
}

/// A number of 2^63 or more.
struct Large {
    /// As SQLite reads it.
    rounded: f64,
    /// All its digits.
    digits: String,
}

impl Large {
    fn of(value: &Json) -> Option<Self> {
        let number = value.as_number()?;
        let rounded = number.as_f64().filter(|n| *n >= BEYOND_INTEGER)?;
        if number.as_i64().is_some() {
            return None;
        }
        let digits = number.as_u64().map_or_else(|| format!("{rounded:.0}"), |n| n.to_string());
        Some(Self { rounded, digits })
    }

    /// The digits of what SQLite reads.
    fn is_exact(&self) -> bool {
        format!("{:.0}", self.rounded) == self.digits
    }

    fn rounded_is_less(&self) -> bool {
        let rounded = format!("{:.0}", self.rounded);
        (rounded.len(), &rounded) < (self.digits.len(), &self.digits)
    }
}

/// The first string, by code point, after all that begin with `prefix`.
fn after_all_with(prefix: &str) -> Option<String> {
    let kept = prefix.trim_end_matches(char::MAX);
    let last = kept.chars().next_back()?;
    let next = match last {
        '\u{d7ff}' => '\u{e000}',
        last => char::from_u32(last as u32 + 1)?,
    };
    Some(format!("{}{next}", &kept[..kept.len() - last.len_utf8()]))
}

/// The value of a field, as an expression over the column `json`.
pub(super) fn extract(json: &str, field: &str) -> Result<String> {
    Ok(format!("json_extract({json}, {})", path(json, field)?))
}

/// Where a field is, as an SQL expression of a JSON path.
pub(super) fn path(json: &str, field: &str) -> Result<String> {
    let is_bad = |c: char| c == '"' || c.is_control();
    let Some(read) = FieldPath::parse(field).filter(|_| !field.contains(is_bad)) else {
        return Err(StorageError::Query(format!("{field:?} cannot be the name of a field")));
    };
    let nested: String = read.names().iter().map(|name| format!(".\"{name}\"")).collect();
    let nested = literal(&format!("${nested}"));
    let Some(whole) = read.whole() else { return Ok(nested) };
    let whole = name_path(&whole);
    Ok(format!("iif(COALESCE(json_type({json}, {whole}), 'null') = 'null', {nested}, {whole})"))
}

/// The path of a field of the document itself, as an SQL literal.
pub(super) fn name_path(name: &str) -> String {
    literal(&format!("$.\"{name}\""))
}

pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_string_that_does_not_have_it() {
        assert_eq!(after_all_with("ab").as_deref(), Some("ac"));
        assert_eq!(after_all_with("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(after_all_with("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(after_all_with(""), None);
    }

    #[test]
    fn sqlite_reads_numbers_as_they_were_written() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        let mut statement = conn.prepare("SELECT json_extract(?, '$') = ?").unwrap();
        let mut state = 22_741_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = f64::from_bits(state ^ (state >> 29));
            // Subnormal numbers lose digits, as they do everywhere.
            if number.is_normal() {
                let json = serde_json::to_string(&number).unwrap();
                let equal: bool =
                    statement.query_row(rusqlite::params![json, number], |row| row.get(0)).unwrap();
                assert!(equal, "{json}");
            }
        }
    }
}

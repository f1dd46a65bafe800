//! What may stand in a document. One judgement for every way in: values are judged before they become ops, received documents
//! after they were merged and before anybody sees them. What passes here is set aside by no other device.

use std::fmt;

use automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};
use serde_json::Value as Json;

use super::Document;
use super::read::{Fields, SET_MARK};
use crate::limits;

/// A value that no document can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// The field of the document, as it is named there.
    pub(crate) field: String,
    reason: &'static str,
}

const EMPTY_NAME: &str = "a name in it is empty";
const NOT_FINITE: &str = "a number in it is not finite";
const RESERVED_NAME: &str = "its name begins as the marks of open conflicts do";
const TOO_CONTESTED: &str = "a field of it has too many concurrent values";
const TOO_DEEP: &str = "it is nested too deep";

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field: String = self.field.chars().take(limits::SHOWN_NAME_CHARS).collect();
        write!(f, "field {field:?}: {}", self.reason)?;
        if self.reason == TOO_DEEP {
            write!(f, ": arrays and objects are nested at most {} levels", limits::VALUE_DEPTH)?;
        }
        Ok(())
    }
}

/// Judges the fields of a document, or some of them.
pub(crate) fn check_fields(fields: &Fields) -> Result<(), Misfit> {
    fields.iter().try_for_each(|(name, value)| check_field(name, value))
}

/// Judges one field.
pub(crate) fn check_field(name: &str, value: &Json) -> Result<(), Misfit> {
    let misfit = |reason| Misfit { field: name.to_owned(), reason };
    if name.is_empty() {
        return Err(misfit(EMPTY_NAME));
    }
    if super::overlap::is_open_mark(name) {
        return Err(misfit(RESERVED_NAME));
    }
    check_value(value, limits::VALUE_DEPTH).map_err(misfit)
}

fn check_value(value: &Json, levels: usize) -> Result<(), &'static str> {
    let deeper = || levels.checked_sub(1).ok_or(TOO_DEEP);
    match value {
        Json::Array(items) => {
            let levels = deeper()?;
            items.iter().try_for_each(|item| check_value(item, levels))
        }
        Json::Object(fields) => {
            let levels = deeper()?;
            fields.iter().try_for_each(|(name, value)| match name.is_empty() {
                true => Err(EMPTY_NAME),
                false => check_value(value, levels),
            })
        }
        _ => Ok(()),
    }
}

impl Document {
    /// Why this document, which others have written to, cannot be shown. Reading values that are nested very deep would exhaust the stack.
    pub(super) fn misfit(&self) -> Option<&'static str> {
        judge(&self.am, &ROOT, limits::VALUE_DEPTH).err()
    }
}

/// The same judgement on objects, with the losers of conflicts: they are read as well.
fn judge(am: &Automerge, object: &ObjId, levels: usize) -> Result<(), &'static str> {
    let inner = |id: &ObjId| judge(am, id, levels.checked_sub(1).ok_or(TOO_DEEP)?);
    let one = |value: &Value<'_>, id: &ObjId| match value {
        Value::Object(ObjType::Text) => Ok(()),
        Value::Object(_) => inner(id),
        Value::Scalar(scalar) => match scalar.as_ref() {
            ScalarValue::F64(number) if !number.is_finite() => Err(NOT_FINITE),
            _ => Ok(()),
        },
    };
    let all = |values: &[(Value<'_>, ObjId)]| match values.len() > limits::CONCURRENT_VALUES {
        true => Err(TOO_CONTESTED),
        false => values.iter().try_for_each(|(value, id)| one(value, id)),
    };
    if matches!(am.object_type(object), Ok(ObjType::List)) {
        return am.list_range(object, ..).try_for_each(|item| {
            // The losers as well: whether they can be read must not depend on who wins.
            match item.conflict {
                true => all(&am.get_all(object, item.index).unwrap_or_default()),
                false => one(&item.value.clone().into_value(), &item.id()),
            }
        });
    }
    am.map_range(object, ..).try_for_each(|item| {
        if item.key == SET_MARK {
            // It says that a map is a set; the document itself is none.
            let is_mark = item.value.clone().into_value().as_str() == Some(SET_MARK_VALUE);
            return if is_mark && *object != ROOT { Ok(()) } else { Err(EMPTY_NAME) };
        }
        if item.conflict {
            return all(&am.get_all(object, item.key.as_ref()).unwrap_or_default());
        }
        one(&item.value.clone().into_value(), &item.id())
    })
}

/// What stands under [`SET_MARK`].
pub(super) const SET_MARK_VALUE: &str = "set";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doc::Identity;
    use automerge::transaction::Transactable;
    use motet_proto::{DocumentId, SpaceId};
    use serde_json::json;

    fn nested(levels: usize) -> Json {
        (0..levels).fold(json!(1), |inner, n| if n % 2 == 0 { json!([inner]) } else { json!({ "a": inner }) })
    }

    #[test]
    fn depth_and_names_are_judged_at_every_level() {
        assert_eq!(check_field("a", &nested(limits::VALUE_DEPTH)), Ok(()));
        let deep = check_field("a", &nested(limits::VALUE_DEPTH + 1)).unwrap_err();
        assert!(deep.to_string().starts_with("field \"a\": it is nested too deep"), "{deep}");
        for value in [json!({ "": 1 }), json!([[{ "b": { "": 1 } }]])] {
            assert_eq!(
                check_field("a", &value).unwrap_err().to_string(),
                "field \"a\": a name in it is empty"
            );
        }
        assert!(check_field("", &json!(1)).is_err());
    }

    #[test]
    fn a_document_is_judged_as_its_values_are() {
        let document = DocumentId::derive(SpaceId::DEFAULT, "pieces", "1");
        let identity = Identity { space: SpaceId::DEFAULT, document };
        let misfit = |edit: &dyn Fn(&mut automerge::transaction::Transaction<'_>)| {
            let mut document = Document::new(identity);
            let mut tx = document.am.transaction();
            edit(&mut tx);
            tx.commit();
            document.misfit()
        };
        let depth = |levels: usize| {
            misfit(&|tx| {
                let mut at = ROOT;
                for _ in 0..levels {
                    at = tx.put_object(&at, "a", ObjType::Map).unwrap();
                }
            })
        };
        assert_eq!(depth(limits::VALUE_DEPTH), None);
        assert_eq!(depth(limits::VALUE_DEPTH + 1), Some(TOO_DEEP));
        assert_eq!(misfit(&|tx| tx.put(ROOT, "", "set").unwrap()), Some(EMPTY_NAME));
        let inner = |mark: &str| {
            let mark = mark.to_owned();
            misfit(&move |tx| {
                let map = tx.put_object(ROOT, "meta", ObjType::Map).unwrap();
                tx.put(&map, SET_MARK, mark.as_str()).unwrap();
            })
        };
        assert_eq!(inner(SET_MARK_VALUE), None);
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(misfit(&|tx| tx.put(ROOT, "n", number).unwrap()), Some(NOT_FINITE));
            let listed = misfit(&|tx| {
                let list = tx.put_object(ROOT, "l", ObjType::List).unwrap();
                tx.insert(&list, 0, number).unwrap();
            });
            assert_eq!(listed, Some(NOT_FINITE));
        }
        assert_eq!(misfit(&|tx| tx.put(ROOT, "n", f64::MAX).unwrap()), None);
        assert_eq!(inner("title"), Some(EMPTY_NAME));
    }
}

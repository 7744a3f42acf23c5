//! Why an event does not meet a filter, told to people: the first condition that failed.
//!
//! Keeps the promise that an explanation agrees with the match: it says "matches" exactly when the filter does. Not on
//! the event's way; it may copy and be slow.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::parse::pointer_to;
use super::{Bound, Clause, Condition, Scalar, Test, field, itself_or_an_element};

/// What a filter says to one event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Explanation {
    /// The filter wants the event.
    Matches,
    /// It does not, because of this condition (others may fail as well).
    Fails(Failure),
}

impl Explanation {
    /// Whether the filter wants the event.
    #[must_use]
    pub fn is_match(&self) -> bool {
        matches!(self, Self::Matches)
    }
}

/// A condition that did not hold. Displayed as one line, long values cut short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// Where in the event: a JSON pointer (RFC 6901), empty for the whole body. Where a list was searched, its pointer.
    pub path: String,
    /// The operator that failed. `$and` where each condition holds for some element of a list, but no element meets all.
    pub operator: &'static str,
    /// The operand of the operator, in the filter's syntax.
    pub wanted: Value,
    /// What the event has there; `None` (not serialized) when it has nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Value>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matches => formatter.write_str("matches"),
            Self::Fails(failure) => failure.fmt(formatter),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.path.is_empty() {
            "the body"
        } else {
            &self.path
        };
        write!(
            formatter,
            "{place}: wanted {} {}, ",
            self.operator,
            shortened(&self.wanted)
        )?;
        match &self.found {
            Some(found) => write!(formatter, "found {}", shortened(found)),
            None => formatter.write_str("found nothing"),
        }
    }
}

fn shortened(value: &Value) -> String {
    const CHARACTERS: usize = 120;
    let text = value.to_string();
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

pub(super) fn explain(root: &Condition, body: &Value) -> Explanation {
    root.failure(Some(body), "")
        .map_or(Explanation::Matches, Explanation::Fails)
}

impl Condition {
    fn failure(&self, value: Option<&Value>, path: &str) -> Option<Failure> {
        if self.holds(value) {
            return None;
        }
        let fail = |operator, wanted| Failure {
            path: path.to_owned(),
            operator,
            wanted,
            found: value.cloned(),
        };
        if let Some(Value::Array(elements)) = value
            && !self.fields.is_empty()
        {
            return match elements.as_slice() {
                [only] => self.failure(Some(only), &pointer_to(path, "0")),
                _ => Some(fail("$and", json!([self.written()]))),
            };
        }
        if !self.tests_hold(value) {
            let alone = |test: &&Test| {
                !value.is_some_and(|value| itself_or_an_element(value, &|one| test.holds(one)))
            };
            return Some(match self.tests.iter().find(alone) {
                Some(test) => fail(test.operator(), test.operand()),
                None => fail("$and", json!([self.written()])),
            });
        }
        let in_fields = self
            .fields
            .iter()
            .find_map(|(name, inner)| inner.failure(field(value, name), &pointer_to(path, name)));
        in_fields.or_else(|| {
            let clause = self.clauses.iter().find(|clause| !clause.holds(value))?;
            let inner = match clause {
                Clause::And(conditions) => conditions
                    .iter()
                    .find_map(|inner| inner.failure(value, path)),
                Clause::Or(conditions) => match conditions.as_slice() {
                    [only] => only.failure(value, path),
                    _ => None,
                },
                _ => None,
            };
            inner.or_else(|| Some(fail(clause.operator(), clause.operand())))
        })
    }

    /// The condition in the filter's syntax, shorthands written out.
    fn written(&self) -> Value {
        let tests = self
            .tests
            .iter()
            .map(|test| (test.operator().to_owned(), test.operand()));
        let clauses = self
            .clauses
            .iter()
            .map(|clause| (clause.operator().to_owned(), clause.operand()));
        let fields = self
            .fields
            .iter()
            .map(|(name, inner)| (name.clone(), inner.written()));
        Value::Object(tests.chain(clauses).chain(fields).collect::<Map<_, _>>())
    }
}

impl Test {
    fn operator(&self) -> &'static str {
        match self {
            Self::Equal(_) => "$eq",
            Self::Ordered(Bound::Greater, _) => "$gt",
            Self::Ordered(Bound::GreaterOrEqual, _) => "$gte",
            Self::Ordered(Bound::Less, _) => "$lt",
            Self::Ordered(Bound::LessOrEqual, _) => "$lte",
            Self::OneOf(_) => "$in",
            Self::StartsWith(_) => "$startsWith",
            Self::EndsWith(_) => "$endsWith",
        }
    }

    fn operand(&self) -> Value {
        match self {
            Self::Equal(operand) | Self::Ordered(_, operand) => operand.clone(),
            Self::OneOf(choices) => written_choices(choices),
            Self::StartsWith(texts) | Self::EndsWith(texts) => match texts.as_slice() {
                [only] => json!(only),
                several => json!(several),
            },
        }
    }
}

impl Clause {
    fn operator(&self) -> &'static str {
        match self {
            Self::NotEqual(_) => "$neq",
            Self::NoneOf(_) | Self::ContainsNot(_) => "$nin",
            Self::Contains(_) => "$in",
            Self::Exist(_) => "$exist",
            Self::And(_) => "$and",
            Self::Or(_) => "$or",
            Self::Not(_) => "$not",
        }
    }

    fn operand(&self) -> Value {
        match self {
            Self::NotEqual(operand) => operand.clone(),
            Self::NoneOf(choices) => written_choices(choices),
            Self::Contains(text) | Self::ContainsNot(text) => json!(text),
            Self::Exist(wanted) => json!(wanted),
            Self::And(conditions) | Self::Or(conditions) => {
                conditions.iter().map(Condition::written).collect()
            }
            Self::Not(condition) => condition.written(),
        }
    }
}

fn written_choices(choices: &[Scalar<'_>]) -> Value {
    choices.iter().map(Scalar::to_value).collect()
}

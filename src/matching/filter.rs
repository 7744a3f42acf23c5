//! Conditions on the body of an event, in the syntax of Hookdeck and Outpost.
//!
//! Keeps the promise that no event is lost to an expression that failed: everything that could go wrong is found by
//! [`Filter::parse`], and a parsed filter answers yes or no for every JSON value. Its cost is bounded by the size of the
//! filter times the size of the event; nothing in it can loop.
//!
//! # What the conditions mean
//! A key names a field of the event (dots in it are part of the name), a key beginning with `$` is an operator, and all
//! keys of an object must hold. `{"job": {"status": "failed"}}` is short for `{"job": {"status": {"$eq": "failed"}}}`.
//!
//! | operator | holds when the value |
//! |---|---|
//! | `$eq` *any* | is this, compared as JSON; `1` equals `1.0` |
//! | `$gt` `$gte` `$lt` `$lte` *number or text* | is of the same kind and greater, … ; texts by code point |
//! | `$in` *list of scalars* | is one of them |
//! | `$in` *text* | is a text that contains it, or a list with that very element |
//! | `$startsWith` `$endsWith` *text or list of texts* | is a text that begins or ends so (with one of them) |
//! | `$neq`, `$nin` | is there, and `$eq`, `$in` do not hold |
//! | `$exist` *true or false* | is there (`null` is), or is not |
//! | `$and`, `$or` *list of conditions* | meets all, or one |
//! | `$not` *condition* | does not meet it |
//!
//! **A value of another type** never matches, it is no error: `{"$gt": 5}` does not hold for `"six"`.
//!
//! **A field that is not there** meets `$exist: false` and `$not` only. So `{"status": {"$neq": "ok"}}` wants a status
//! that differs, while `{"status": {"$not": "ok"}}` also takes an event without one.
//!
//! **A list in the event** matches when one element does. Comparisons in one object must hold for the same element
//! (`{"$gt": 1, "$lt": 3}`), and so must everything in an object that names fields (`{"items": {"sku": "a", "qty": 2}}`).
//! `$neq` and `$nin` mean that *no* element equals; `$not` that no element meets the condition. Each condition of an
//! `$and` finds its own element, and a list in place of a value is short for that: `{"tags": ["a", "b"]}` wants both.
//! `$eq` with a list also matches the list as a whole. An empty list has no element.

mod compare;
mod explain;
mod parse;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::Value;

pub(crate) use compare::Scalar;
use compare::{equal, order};
pub use explain::{Explanation, Failure};
pub use parse::{FilterError, MAX_BYTES, MAX_CONDITIONS, MAX_DEPTH, OPERATORS};

/// A checked filter. Cloning is cheap: clones share the conditions.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    root: Arc<Condition>,
}

impl Filter {
    /// Reads a filter, and says everything that is wrong with it. `{}` is the filter that matches every event.
    ///
    /// # Errors
    /// One [`FilterError`] for each fault, with the JSON pointer (RFC 6901) of its place in the filter.
    pub fn parse(source: &Value) -> Result<Self, Vec<FilterError>> {
        parse::parse(source).map(|root| Self {
            root: Arc::new(root),
        })
    }

    /// Whether the event's body meets the filter. Cannot fail: see the [module](self).
    #[must_use]
    pub fn matches(&self, body: &Value) -> bool {
        self.root.holds(Some(body))
    }

    /// Why the event's body does not meet the filter: the first condition that failed. For people; it copies values.
    #[must_use]
    pub fn explain(&self, body: &Value) -> Explanation {
        explain::explain(&self.root, body)
    }

    /// Every equality that must hold for the filter to match, for an index to choose from.
    pub(crate) fn equalities(&self) -> Vec<Equality<'_>> {
        let mut found = Vec::new();
        self.root.equalities(&mut Vec::new(), &mut found);
        found
    }

    /// Whether the filter is one condition and no more, so that an equality of it is the whole of it.
    pub(crate) fn is_single(&self) -> bool {
        self.root.parts() == 1
    }
}

/// A necessary condition of a filter: the value at `path` is, or has as an element, one of `values`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Equality<'a> {
    pub(crate) path: Vec<&'a str>,
    pub(crate) values: Vec<Scalar<'a>>,
}

/// All that one object of a filter asks of one value.
#[derive(Debug, Clone, Default, PartialEq)]
struct Condition {
    /// Comparisons that the same element of a list must pass.
    tests: Vec<Test>,
    fields: Vec<(String, Condition)>,
    /// What is asked of a list as a whole, unless the condition names fields.
    clauses: Vec<Clause>,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    Equal(Value),
    Ordered(Bound, Value),
    /// Sorted, so that a long list costs a search and not a scan.
    OneOf(Vec<Scalar<'static>>),
    StartsWith(Vec<String>),
    EndsWith(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
enum Clause {
    NotEqual(Value),
    NoneOf(Vec<Scalar<'static>>),
    Contains(String),
    ContainsNot(String),
    Exist(bool),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
}

impl Condition {
    fn holds(&self, value: Option<&Value>) -> bool {
        if let Some(Value::Array(elements)) = value
            && !self.fields.is_empty()
        {
            return elements.iter().any(|element| self.holds(Some(element)));
        }
        self.tests_hold(value)
            && self
                .fields
                .iter()
                .all(|(name, condition)| condition.holds(field(value, name)))
            && self.clauses.iter().all(|clause| clause.holds(value))
    }

    fn tests_hold(&self, value: Option<&Value>) -> bool {
        self.tests.is_empty()
            || value.is_some_and(|value| {
                itself_or_an_element(value, &|one| self.tests.iter().all(|test| test.holds(one)))
            })
    }

    fn equalities<'a>(&'a self, path: &mut Vec<&'a str>, found: &mut Vec<Equality<'a>>) {
        for test in &self.tests {
            let values = match test {
                Test::Equal(value) => Scalar::of(value).into_iter().collect(),
                Test::OneOf(choices) => choices.clone(),
                _ => Vec::new(),
            };
            if !values.is_empty() {
                found.push(Equality {
                    path: path.clone(),
                    values,
                });
            }
        }
        for (name, condition) in &self.fields {
            path.push(name);
            condition.equalities(path, found);
            path.pop();
        }
        for clause in &self.clauses {
            if let Clause::And(conditions) = clause {
                conditions
                    .iter()
                    .for_each(|condition| condition.equalities(path, found));
            }
        }
    }

    fn parts(&self) -> usize {
        let in_fields: usize = self
            .fields
            .iter()
            .map(|(_, condition)| condition.parts())
            .sum();
        let in_clauses: usize = self
            .clauses
            .iter()
            .map(|clause| match clause {
                Clause::And(conditions) => conditions.iter().map(Condition::parts).sum(),
                _ => 1,
            })
            .sum();
        self.tests.len() + in_fields + in_clauses
    }
}

impl Test {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Self::Equal(wanted) => equal(value, wanted),
            Self::Ordered(bound, limit) => {
                order(value, limit).is_some_and(|ordering| bound.allows(ordering))
            }
            Self::OneOf(choices) => is_one_of(value, choices),
            Self::StartsWith(texts) => value
                .as_str()
                .is_some_and(|value| texts.iter().any(|text| value.starts_with(text.as_str()))),
            Self::EndsWith(texts) => value
                .as_str()
                .is_some_and(|value| texts.iter().any(|text| value.ends_with(text.as_str()))),
        }
    }
}

impl Bound {
    fn allows(self, ordering: Ordering) -> bool {
        match self {
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
        }
    }
}

impl Clause {
    fn holds(&self, value: Option<&Value>) -> bool {
        let no_element = |test: &dyn Fn(&Value) -> bool| {
            value.is_some_and(|value| !itself_or_an_element(value, &test))
        };
        match self {
            Self::NotEqual(unwanted) => no_element(&|one| equal(one, unwanted)),
            Self::NoneOf(choices) => no_element(&|one| is_one_of(one, choices)),
            Self::Contains(text) => value.is_some_and(|value| contains(value, text)),
            Self::ContainsNot(text) => value.is_some_and(|value| !contains(value, text)),
            Self::Exist(wanted) => value.is_some() == *wanted,
            Self::And(conditions) => conditions.iter().all(|condition| condition.holds(value)),
            Self::Or(conditions) => conditions.iter().any(|condition| condition.holds(value)),
            Self::Not(condition) => !condition.holds(value),
        }
    }
}

fn field<'a>(value: Option<&'a Value>, name: &str) -> Option<&'a Value> {
    value
        .and_then(Value::as_object)
        .and_then(|fields| fields.get(name))
}

fn itself_or_an_element(value: &Value, test: &impl Fn(&Value) -> bool) -> bool {
    test(value)
        || value.as_array().is_some_and(|elements| {
            elements
                .iter()
                .any(|element| itself_or_an_element(element, test))
        })
}

fn is_one_of(value: &Value, choices: &[Scalar<'_>]) -> bool {
    Scalar::of(value).is_some_and(|value| choices.binary_search(&value).is_ok())
}

fn contains(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value.contains(text),
        Value::Array(_) => itself_or_an_element(value, &|one| one.as_str() == Some(text)),
        _ => false,
    }
}

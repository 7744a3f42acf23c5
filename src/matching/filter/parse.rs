//! From JSON to a checked filter, or to everything that is wrong with it.
//!
//! Keeps the promise that a filter cannot fail once it is accepted: an unknown operator, an operand of the wrong kind, a
//! condition that could never or always hold is refused here, where its author still looks at it.

use std::fmt;

use serde_json::Value;

use super::{Bound, Clause, Condition, Scalar, Test};

/// The deepest nesting of objects and lists.
pub const MAX_DEPTH: usize = 16;
/// The largest filter, in bytes of compact JSON.
pub const MAX_BYTES: usize = 16 * 1024;
/// The most comparisons and clauses. Each is tried on every element of a list in the event, so this is what bounds the
/// time that one filter can take of everybody's.
pub const MAX_CONDITIONS: usize = 256;

/// Every operator.
pub const OPERATORS: [&str; 14] = [
    "$eq",
    "$neq",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$startsWith",
    "$endsWith",
    "$exist",
    "$or",
    "$and",
    "$not",
];

/// One thing that is wrong with a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FilterError {
    /// Where in the filter: a JSON pointer (RFC 6901), empty for the whole.
    pub pointer: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() {
            "the filter"
        } else {
            &self.pointer
        };
        write!(formatter, "{place}: {}", self.message)
    }
}

pub(super) fn parse(source: &Value) -> Result<Condition, Vec<FilterError>> {
    let mut parser = Parser::default();
    // Before anything else: measuring and reading are recursive themselves.
    if let Some(pointer) = too_deep(source, MAX_DEPTH) {
        parser.refuse(
            &pointer,
            format!("nested deeper than {MAX_DEPTH} levels; flatten it, for instance with `$and`"),
        );
        return Err(parser.errors);
    }
    let bytes = bytes_of(source);
    if bytes > MAX_BYTES {
        parser.refuse("", format!("{bytes} bytes as compact JSON; {MAX_BYTES} are allowed, split it over several webhooks"));
        return Err(parser.errors);
    }
    let root = match source {
        Value::Object(fields) if fields.is_empty() => Condition::default(),
        Value::Object(_) => parser.condition(source, ""),
        other => {
            let found = kind(other);
            parser.refuse(
                "",
                format!(
                    "must be an object such as {{\"job\": {{\"status\": \"failed\"}}}}, not {found}"
                ),
            );
            Condition::default()
        }
    };
    if parser.conditions > MAX_CONDITIONS {
        let count = parser.conditions;
        parser.refuse(
            "",
            format!(
                "{count} conditions; {MAX_CONDITIONS} are allowed, `$in` takes many values in one"
            ),
        );
    }
    if parser.errors.is_empty() {
        Ok(root)
    } else {
        Err(parser.errors)
    }
}

#[derive(Default)]
struct Parser {
    errors: Vec<FilterError>,
    conditions: usize,
}

impl Parser {
    fn refuse(&mut self, pointer: &str, message: String) {
        self.errors.push(FilterError {
            pointer: pointer.to_owned(),
            message,
        });
    }

    /// Reads what is asked of one value. On a fault it is noted, and what is returned is of no use.
    fn condition(&mut self, source: &Value, at: &str) -> Condition {
        let mut condition = Condition::default();
        match source {
            Value::Object(fields) => {
                if fields.is_empty() {
                    self.refuse(
                        at,
                        "is an empty condition; name a field or an operator, or remove it"
                            .to_owned(),
                    );
                }
                for (name, operand) in fields {
                    let at = pointer_to(at, name);
                    if name.starts_with('$') {
                        self.operator(name, operand, &at, &mut condition);
                    } else {
                        let inner = self.condition(operand, &at);
                        condition.fields.push((name.clone(), inner));
                    }
                }
            }
            Value::Array(_) => condition
                .clauses
                .extend(self.conditions(source, at).map(Clause::And)),
            scalar => {
                self.conditions += 1;
                condition.tests.push(Test::Equal(scalar.clone()));
            }
        }
        condition
    }

    fn operator(&mut self, name: &str, operand: &Value, at: &str, condition: &mut Condition) {
        self.conditions += 1;
        let (test, clause) = match name {
            "$eq" => (Some(Test::Equal(operand.clone())), None),
            "$neq" => (None, Some(Clause::NotEqual(operand.clone()))),
            "$gt" => (self.bound(Bound::Greater, operand, at), None),
            "$gte" => (self.bound(Bound::GreaterOrEqual, operand, at), None),
            "$lt" => (self.bound(Bound::Less, operand, at), None),
            "$lte" => (self.bound(Bound::LessOrEqual, operand, at), None),
            "$in" => match operand {
                Value::String(text) => (None, Some(Clause::Contains(text.clone()))),
                _ => (self.choices(operand, at).map(Test::OneOf), None),
            },
            "$nin" => match operand {
                Value::String(text) => (None, Some(Clause::ContainsNot(text.clone()))),
                _ => (None, self.choices(operand, at).map(Clause::NoneOf)),
            },
            "$startsWith" => (self.texts(operand, at).map(Test::StartsWith), None),
            "$endsWith" => (self.texts(operand, at).map(Test::EndsWith), None),
            "$exist" => (None, self.flag(operand, at).map(Clause::Exist)),
            "$and" => (None, self.conditions(operand, at).map(Clause::And)),
            "$or" => (None, self.conditions(operand, at).map(Clause::Or)),
            "$not" => (
                None,
                Some(Clause::Not(Box::new(self.condition(operand, at)))),
            ),
            unknown => {
                self.refuse(at, unknown_operator(unknown));
                (None, None)
            }
        };
        condition.tests.extend(test);
        condition.clauses.extend(clause);
    }

    fn bound(&mut self, bound: Bound, operand: &Value, at: &str) -> Option<Test> {
        if operand.is_number() || operand.is_string() {
            return Some(Test::Ordered(bound, operand.clone()));
        }
        self.refuse(
            at,
            format!("must be a number or a text, not {}", kind(operand)),
        );
        None
    }

    fn choices(&mut self, operand: &Value, at: &str) -> Option<Vec<Scalar<'static>>> {
        let Some(members) = operand.as_array() else {
            self.refuse(
                at,
                format!(
                    "must be a list of values, or a text to look for, not {}",
                    kind(operand)
                ),
            );
            return None;
        };
        if members.is_empty() {
            self.refuse(
                at,
                "is an empty list; give at least one value, or remove the condition".to_owned(),
            );
            return None;
        }
        let mut choices = Vec::with_capacity(members.len());
        for (place, member) in members.iter().enumerate() {
            match Scalar::of(member) {
                Some(scalar) => choices.push(scalar.into_owned()),
                None => self.refuse(
                    &format!("{at}/{place}"),
                    format!("must be a text, a number, true, false or null, not {}; `$eq` in an `$or` takes it", kind(member)),
                ),
            }
        }
        choices.sort_unstable();
        choices.dedup();
        Some(choices)
    }

    fn texts(&mut self, operand: &Value, at: &str) -> Option<Vec<String>> {
        let members = match operand {
            Value::String(text) => return Some(vec![text.clone()]),
            Value::Array(members) if !members.is_empty() => members,
            Value::Array(_) => {
                self.refuse(at, "is an empty list; give at least one text".to_owned());
                return None;
            }
            other => {
                self.refuse(
                    at,
                    format!("must be a text or a list of texts, not {}", kind(other)),
                );
                return None;
            }
        };
        self.conditions += members.len() - 1;
        let mut texts = Vec::with_capacity(members.len());
        for (place, member) in members.iter().enumerate() {
            match member {
                Value::String(text) => texts.push(text.clone()),
                other => self.refuse(
                    &format!("{at}/{place}"),
                    format!("must be a text, not {}", kind(other)),
                ),
            }
        }
        Some(texts)
    }

    fn flag(&mut self, operand: &Value, at: &str) -> Option<bool> {
        if operand.as_bool().is_none() {
            self.refuse(
                at,
                format!(
                    "must be true (the field is there) or false (it is not), not {}",
                    kind(operand)
                ),
            );
        }
        operand.as_bool()
    }

    fn conditions(&mut self, operand: &Value, at: &str) -> Option<Vec<Condition>> {
        let Some(members) = operand.as_array() else {
            self.refuse(
                at,
                format!("must be a list of conditions, not {}", kind(operand)),
            );
            return None;
        };
        if members.is_empty() {
            self.refuse(at, "is an empty list; give at least one condition (`{\"$eq\": []}` means an empty list)".to_owned());
            return None;
        }
        let read = |(place, member)| self.condition(member, &format!("{at}/{place}"));
        Some(members.iter().enumerate().map(read).collect())
    }
}

fn unknown_operator(name: &str) -> String {
    // A message is for people, and a filter's names can be as long as the filter.
    let name: &str = &name.chars().take(80).collect::<String>();
    // Names from other filter languages that spelling alone would not lead to ours.
    let synonym = match name {
        "$contains" | "$includes" => Some("$in"),
        "$nor" => Some("$not"),
        "$regex" => {
            return "there is no `$regex`, because one pattern could hold up every event; use `$startsWith`, `$endsWith` or `$in`".to_owned();
        }
        _ => None,
    };
    let nearest = || {
        let distance =
            |known: &str| strsim::damerau_levenshtein(&known.to_lowercase(), &name.to_lowercase());
        OPERATORS
            .into_iter()
            .map(|known| (distance(known), known))
            .min()
            .filter(|(distance, _)| *distance <= 3)
    };
    match synonym.or_else(|| nearest().map(|(_, known)| known)) {
        Some(known) => format!("unknown operator `{name}`; did you mean `{known}`?"),
        None => format!(
            "unknown operator `{name}`; there are {}",
            OPERATORS.join(" ")
        ),
    }
}

/// What a value is, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The pointer to a member: `~` and `/` in its name are escaped as RFC 6901 has it.
pub(super) fn pointer_to(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Where the first object or list more than `levels` deep is.
fn too_deep(value: &Value, levels: usize) -> Option<String> {
    let members: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, member)| (pointer_to("", name), member))
            .collect(),
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .map(|(place, one)| (format!("/{place}"), one))
            .collect(),
        _ => return None,
    };
    let Some(levels) = levels.checked_sub(1) else {
        return Some(String::new());
    };
    members
        .into_iter()
        .find_map(|(at, member)| too_deep(member, levels).map(|below| at + &below))
}

fn bytes_of(value: &Value) -> usize {
    // What cannot be written is over any limit.
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len())
}

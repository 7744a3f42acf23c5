//! Which of the values that filters ask for an event has, in one walk over its body.
//!
//! A tree of the field names that filters use, with the wanted values at its ends. The walk follows only names that both
//! the tree and the body have, so it costs no more than the body is large, however many paths and values are wanted.

use std::collections::HashMap;

use serde_json::Value;

use crate::matching::filter::Scalar;

/// The wanted values under one field and the fields below it.
#[derive(Debug, Default)]
pub(super) struct WantedValues {
    fields: HashMap<String, WantedValues>,
    /// The number of each wanted value.
    values: HashMap<Scalar<'static>, usize>,
}

impl WantedValues {
    /// The number of a value at a path: `next` (which is then used up) if it is new.
    pub(super) fn number(&mut self, path: &[&str], value: &Scalar<'_>, next: &mut usize) -> usize {
        let end = path.iter().fold(self, |node, name| {
            node.fields.entry((*name).to_owned()).or_default()
        });
        *end.values
            .entry(value.clone().into_owned())
            .or_insert_with(|| {
                let number = *next;
                *next += 1;
                number
            })
    }

    /// The wanted values that the body has, each once.
    pub(super) fn in_body(&self, body: &Value) -> Vec<usize> {
        let mut found = Vec::new();
        self.walk(body, &mut found);
        found.sort_unstable();
        found.dedup();
        found
    }

    fn walk(&self, value: &Value, found: &mut Vec<usize>) {
        match value {
            Value::Array(elements) => elements
                .iter()
                .for_each(|element| self.walk(element, found)),
            Value::Object(fields) if self.fields.len() <= fields.len() => {
                for (name, below) in &self.fields {
                    if let Some(value) = fields.get(name) {
                        below.walk(value, found);
                    }
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let Some(below) = self.fields.get(name) {
                        below.walk(value, found);
                    }
                }
            }
            scalar if !self.values.is_empty() => {
                let number =
                    Scalar::of(scalar).and_then(|scalar| self.values.get(&scalar).copied());
                found.extend(number);
            }
            _ => {}
        }
    }
}

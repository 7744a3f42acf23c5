//! Which of many webhooks want an event, without asking each.
//!
//! Keeps two promises: the answer is exactly that of asking every entry in turn ([`Entry::refusal`] is that question),
//! and its cost follows the number of entries that want the event, not of those that do not.
//!
//! Entries are filed by type pattern and customer; within such a file by one equality of their filter, the rarest one
//! (`{"device": {"id": 7}, "status": "down"}` is filed under the device). An event looks at the files of the patterns
//! that match its type, takes those without a filter, those whose equality its body meets, and those whose filter has no
//! equality to file by (`{"load": {"$gt": 90}}`); the last are the ones that cost time without wanting the event.
//!
//! An index is not changed, it is built anew: readers hold one while the next is made.

mod filing;
mod number_map;
mod patterns;
#[cfg(test)]
mod tests;
mod values;

use std::collections::HashMap;
use std::fmt;

use serde_json::Value;

use super::filter::{Explanation, Failure, Filter};
use super::glob::Glob;
use number_map::NumberMap;
use patterns::Patterns;
use values::WantedValues;

/// What one webhook wants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// Types and globs, see [`Glob`]; one that matches is enough.
    pub event_types: Vec<String>,
    /// Only events of this customer; `None` for the events of all, and those of none.
    pub customer: Option<String>,
    /// What the body must meet, if anything.
    pub filter: Option<Filter>,
}

/// Why an entry does not want an event. Displayed as one line.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// No pattern matches the type.
    EventType,
    /// It is the event of another customer, or of none.
    Customer,
    /// The body fails this condition of the filter.
    Filter(Failure),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EventType => formatter.write_str("none of its event types matches"),
            Self::Customer => formatter.write_str("the event is not of its customer"),
            Self::Filter(failure) => write!(formatter, "its filter does not match: {failure}"),
        }
    }
}

impl Entry {
    /// Why this entry does not want the event; `None` when it does. It reads every pattern: for people, and for tests.
    #[must_use]
    pub fn refusal(
        &self,
        event_type: &str,
        customer: Option<&str>,
        body: &Value,
    ) -> Option<Refusal> {
        if !self
            .event_types
            .iter()
            .any(|pattern| Glob::new(pattern).matches(event_type))
        {
            return Some(Refusal::EventType);
        }
        if self.customer.is_some() && self.customer.as_deref() != customer {
            return Some(Refusal::Customer);
        }
        match self.filter.as_ref().map(|filter| filter.explain(body)) {
            Some(Explanation::Fails(failure)) => Some(Refusal::Filter(failure)),
            Some(Explanation::Matches) | None => None,
        }
    }
}

/// Many entries, ready to be asked; see the [module](self). `T` is whatever stands for a webhook.
#[derive(Debug)]
pub struct Index<T> {
    /// In the order given; an entry's number is its place here. The filter is what remains to be asked of a body once
    /// the entry is found: none where the file that it is in says it all.
    entries: Vec<(T, Option<Filter>)>,
    patterns: Patterns,
    /// Numbers from 1; [`ALL_CUSTOMERS`] is 0.
    customers: HashMap<String, usize>,
    /// By pattern and customer.
    files: NumberMap<(usize, usize), File>,
    values: WantedValues,
    /// By file and wanted value.
    filed_by_value: NumberMap<(usize, usize), Vec<usize>>,
}

const ALL_CUSTOMERS: usize = 0;

/// The entries of one pattern and one customer.
#[derive(Debug)]
struct File {
    number: usize,
    /// Those that no equality sorts.
    unsorted: Vec<usize>,
    /// Whether there are others, under a value.
    has_sorted: bool,
}

impl<T> Default for Index<T> {
    /// The index of no entries.
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            patterns: Patterns::default(),
            customers: HashMap::new(),
            files: NumberMap::default(),
            values: WantedValues::default(),
            filed_by_value: NumberMap::default(),
        }
    }
}

impl<T> Index<T> {
    /// Files the entries. Takes a microsecond or two an entry, and cannot fail: patterns and filters were checked when
    /// they were read.
    pub fn build(entries: impl IntoIterator<Item = (Entry, T)>) -> Self {
        filing::build(entries)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds to `found` every entry that wants the event, each once, in the order in which they were given. What `found`
    /// holds already stays.
    pub fn wanting<'a>(
        &'a self,
        event_type: &str,
        customer: Option<&str>,
        body: &Value,
        found: &mut Vec<&'a T>,
    ) {
        let customer = customer.and_then(|customer| self.customers.get(customer).copied());
        let mut candidates: Vec<usize> = Vec::new();
        let mut sorted_files = Vec::new();
        self.patterns.matching(event_type, |pattern| {
            for scope in [Some(ALL_CUSTOMERS), customer].into_iter().flatten() {
                if let Some(file) = self.files.get(&(pattern, scope)) {
                    candidates.extend_from_slice(&file.unsorted);
                    sorted_files.extend(file.has_sorted.then_some(file.number));
                }
            }
        });
        if !sorted_files.is_empty() {
            for value in self.values.in_body(body) {
                for file in &sorted_files {
                    let filed = self.filed_by_value.get(&(*file, value));
                    candidates.extend_from_slice(filed.map(Vec::as_slice).unwrap_or_default());
                }
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        for candidate in candidates {
            if let Some((thing, filter)) = self.entries.get(candidate)
                && filter.as_ref().is_none_or(|filter| filter.matches(body))
            {
                found.push(thing);
            }
        }
    }
}

impl File {
    fn new(number: usize) -> Self {
        Self {
            number,
            unsorted: Vec::new(),
            has_sorted: false,
        }
    }
}

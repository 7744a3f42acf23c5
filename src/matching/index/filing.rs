//! Building an index: under which pattern, customer and value each entry is filed.
//!
//! Keeps the promise that an entry is found by every event that it wants: it is filed only under what its filter cannot
//! match without, and what the file does not say of it remains to be asked.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::number_map::NumberMap;
use super::{ALL_CUSTOMERS, Entry, File, Index};
use crate::matching::filter::{Equality, Filter, Scalar};
use crate::matching::glob::Glob;

pub(super) fn build<T>(entries: impl IntoIterator<Item = (Entry, T)>) -> Index<T> {
    let (wants, things): (Vec<Entry>, Vec<T>) = entries.into_iter().unzip();
    let popularity = Popularity::of(&wants);
    let mut filing = Filing {
        index: Index::default(),
        values: 0,
    };
    for (want, thing) in wants.into_iter().zip(things) {
        filing.add(want, thing, &popularity);
    }
    filing.index
}

struct Filing<T> {
    index: Index<T>,
    /// How many values have been numbered.
    values: usize,
}

impl<T> Filing<T> {
    fn add(&mut self, want: Entry, thing: T, popularity: &Popularity) {
        let scope = self.scope(want.customer);
        let rarest = want
            .filter
            .as_ref()
            .and_then(|filter| popularity.rarest(filter));
        let values = rarest
            .map(|equality| self.values_of(&equality))
            .unwrap_or_default();
        let number = self.index.entries.len();
        for pattern in self.patterns_of(&want.event_types) {
            let next = self.index.files.len();
            let file = self
                .index
                .files
                .entry((pattern, scope))
                .or_insert_with(|| File::new(next));
            if values.is_empty() {
                file.unsorted.push(number);
            } else {
                file.has_sorted = true;
            }
            for value in &values {
                self.index
                    .filed_by_value
                    .entry((file.number, *value))
                    .or_default()
                    .push(number);
            }
        }
        // One equality says the same as "some value on this path, through whatever lists, is one of these": being found
        // is the answer. With anything beside it the filter is asked, lists tie its conditions to one element.
        let is_settled = |filter: &Filter| !values.is_empty() && filter.is_single();
        let remaining = want.filter.filter(|filter| !is_settled(filter));
        self.index.entries.push((thing, remaining));
    }

    fn scope(&mut self, customer: Option<String>) -> usize {
        let next = self.index.customers.len() + 1;
        customer.map_or(ALL_CUSTOMERS, |customer| {
            *self.index.customers.entry(customer).or_insert(next)
        })
    }

    fn values_of(&mut self, equality: &Equality<'_>) -> Vec<usize> {
        let (index, next) = (&mut self.index, &mut self.values);
        equality
            .values
            .iter()
            .map(|value| index.values.number(&equality.path, value, next))
            .collect()
    }

    fn patterns_of(&mut self, event_types: &[String]) -> Vec<usize> {
        let patterns = &mut self.index.patterns;
        // With `*` among them the others add nothing.
        if let Some(everything) = event_types
            .iter()
            .find(|pattern| Glob::new(pattern).is_everything())
        {
            return vec![patterns.number(everything)];
        }
        let mut numbers: Vec<usize> = event_types
            .iter()
            .map(|pattern| patterns.number(pattern))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

/// How many entries ask for each value, to file an entry under its rarest. By hash: a collision costs an event some
/// time, not its rightness.
struct Popularity(NumberMap<u64, usize>);

impl Popularity {
    fn of(wants: &[Entry]) -> Self {
        let mut counts = NumberMap::default();
        for equality in wants
            .iter()
            .filter_map(|want| want.filter.as_ref())
            .flat_map(Filter::equalities)
        {
            for value in &equality.values {
                *counts.entry(Self::key(&equality, value)).or_insert(0) += 1;
            }
        }
        Self(counts)
    }

    fn key(equality: &Equality<'_>, value: &Scalar<'_>) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&equality.path, value).hash(&mut hasher);
        hasher.finish()
    }

    fn rarest<'a>(&self, filter: &'a Filter) -> Option<Equality<'a>> {
        filter.equalities().into_iter().min_by_key(|equality| {
            let counts = equality
                .values
                .iter()
                .map(|value| self.0.get(&Self::key(equality, value)).copied());
            (counts.max(), equality.values.len())
        })
    }
}
